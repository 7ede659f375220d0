"""The server of the server target: its files and its configurations."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from tests.fuzz.harness import scratch_directory
from tests.support.fakes import SERVER, WELL_KNOWN
from tftpd.access.mounts import Mounts
from tftpd.access.profiles import Profiles
from tftpd.config.loader import load_settings
from tftpd.net.types import SocketAddress
from tftpd.protocol.result import TransferResult
from tftpd.server.config import ServerConfig
from tftpd.server.config_builder import admission_limits
from tftpd.storage.quota import UsageTracker

FILES = {
    b"seven": b"1234567",
    b"kilo": bytes(range(256)) * 4,
    b"empty": b"",
    b"lines": b"one\ntwo\r\n\r" * 30,
    b"Upper": b"u" * 512,
    b"large": bytes(range(251)) * 132,
    b"changing": b"c" * 3000,
}
NEW_FILES = b"in"  # directory for new files of at most MAX_UPLOAD_BYTES
OVERWRITE = b"over"  # directory whose files may be replaced, with a quota
MAX_UPLOAD_BYTES = 4096
QUOTA_BYTES = 20 << 10
DUPLICATES = 1  # a profile sends each datagram one more time
WRITTEN_NAMES = (b"in/new", b"in/other", b"over/same", b"in\\new", b"/over//same", b"in/../in/new")
READ_NAMES = (
    *(*FILES, b"mine", b"in/new", b"missing", b"../seven", b"C:\\SEVEN", b"upper\xff", b"old/kilo"),
)
SERVER_ADDRESS: SocketAddress = (SERVER, WELL_KNOWN)


@cache
def served_root() -> Path:
    """Return the served directory."""
    directory = scratch_directory() / "root"
    for name in ("in", "over", "own/192.0.2.7"):
        (directory / name).mkdir(parents=True)
    (directory / "own/192.0.2.7/mine").write_bytes(b"m" * 700)
    for filename, content in FILES.items():
        (directory / os.fsdecode(filename)).write_bytes(content)
    return directory


def stored_uploads() -> dict[bytes, bytes]:
    """Return the uploaded files by name; unfinished files are among them."""
    paths = [path for name in ("in", "over") for path in (served_root() / name).iterdir()]
    return {os.fsencode(path.relative_to(served_root())): path.read_bytes() for path in paths}


def restore_files() -> None:
    """Restore the file that steps may change, and remove all uploads."""
    (served_root() / "changing").write_bytes(FILES[b"changing"])
    for name in stored_uploads():
        (served_root() / os.fsdecode(name)).unlink()


def configurations(on_result: Callable[[TransferResult], None]) -> list[ServerConfig]:
    """Return the configurations of `server.yaml`; the server starts with the first."""
    root, configs = served_root() / "over", _load_configurations()
    trackers = {root: UsageTracker(root)}
    return [replace(config, report=on_result, usage_trackers=trackers) for config in configs]


@cache
def _load_configurations() -> list[ServerConfig]:
    path = scratch_directory() / "server.yaml"
    configs = []
    for text in (Path(__file__).parent / "server.yaml").read_text().split("---\n"):
        path.write_text(text.replace("ROOT", str(served_root())))
        settings = load_settings(path)
        config = ServerConfig(
            Mounts(settings.build_mounts(), settings.build_name_rules()),
            settings.limits.option_limits(),
            settings.retransmit.build_policy(),
            admission_limits(settings),
            lambda result: None,
            session_bandwidth=settings.limits.session_bandwidth,
            profiles=Profiles(profile.build_profile() for profile in settings.active_profiles()),
        )
        configs.append(config)
    return configs
