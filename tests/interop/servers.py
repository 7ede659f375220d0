"""Other people's servers, as Debian has them: how each runs on loopback, and what it knows.

One that the machine lacks is skipped by name, unless TFTPD_INTEROP is
`required`: then its tests fail.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.client.test_cli import ENVIRONMENT, LIMIT, TFTPC
from tests.support.daemons import free_port, until

_SBIN = "/usr/sbin"  # where servers are, and users' paths are not


@dataclass(frozen=True)
class Kind:
    """A server, `options` of which are those it has been left.

    `command` gives its command line for a port and a directory. `refused`
    is a name that it takes no upload under, None where it takes none at
    all; `least` the smallest blksize it agrees to.
    """

    name: str
    program: str
    command: Callable[[int, Path], list[str]]
    options: frozenset[str] = frozenset({"blksize", "tsize"})
    refused: str | None = None
    least: int = 8
    port: int | None = None  # where it knows one only: then in a network of its own

    def agrees(self, blksize: int, windowsize: int) -> tuple[int, int]:
        """Return the blksize and windowsize that the server grants for a request of both."""
        known = self.options
        return (
            blksize if "blksize" in known else 512,
            windowsize if "windowsize" in known else 1,
        )


def _atftpd(*options: str) -> Callable[[int, Path], list[str]]:
    def command(port: int, root: Path) -> list[str]:
        return [
            *("--daemon", "--no-fork", "--port", str(port), "--bind-address", "127.0.0.1"),
            *("--user", "root", "--group", "root", "--logfile", "/dev/stdout", *options),
            str(root),
        ]  # fmt: skip

    return command


def _hpa(port: int, root: Path) -> list[str]:
    return ["-L", "--address", f"127.0.0.1:{port}", "-c", "--user", "root", "-s", str(root)]


def _dnsmasq(port: int, root: Path) -> list[str]:
    return [
        *("--no-daemon", "--conf-file=/dev/null", "--user=root", "--port=0"),
        *("--enable-tftp", f"--tftp-root={root}"),
    ]  # fmt: skip


_ALL = frozenset({"blksize", "tsize", "windowsize"})
_NONE = ("--no-blksize", "--no-tsize", "--no-timeout", "--no-windowsize")

KINDS = [
    Kind("atftpd", "atftpd", _atftpd(), _ALL, refused="../above", least=64),  # room for its OACK
    Kind("atftpd-plain", "atftpd", _atftpd(*_NONE), frozenset(), refused="../above", least=512),
    Kind("in.tftpd", "in.tftpd", _hpa, refused="locked"),
    Kind("dnsmasq", "dnsmasq", _dnsmasq, port=69),
]


@dataclass
class Serving:
    """A server that runs, what it serves, and how its network is entered."""

    kind: Kind
    root: Path
    url: str
    enter: list[str]

    def tftpc(self, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[bytes]":
        """Run our client where the server can be reached."""
        return subprocess.run(
            [*self.enter, *TFTPC, *arguments],
            cwd=cwd, env=ENVIRONMENT, capture_output=True, timeout=LIMIT,
        )  # fmt: skip


@contextmanager
def serving(kind: Kind, root: Path) -> Iterator[Serving]:
    """Run a server for as long as the block takes."""
    program = _program(kind)
    if os.getuid() != 0:
        pytest.skip(f"{kind.name} starts as root only")
    root.chmod(0o777)
    port = kind.port or free_port()
    command = [program, *kind.command(port, root)]
    if kind.port is not None:
        up = 'ip link set lo up && exec "$0" "$@"'
        command = ["unshare", "--net", "sh", "-c", up, *command]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        until(lambda: process.poll() is not None or _listens(process.pid, kind.program, port))
        assert process.poll() is None, f"{kind.name} does not start"
        enter = [] if kind.port is None else ["nsenter", f"--net=/proc/{process.pid}/ns/net"]
        yield Serving(kind, root, f"tftp://127.0.0.1:{port}", enter)
    finally:
        # With the children that in.tftpd has for transfers; they share its group.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(LIMIT)


def _program(kind: Kind) -> str:
    path = shutil.which(kind.program, path=f"{os.environ['PATH']}:{_SBIN}")
    # Debian's atftpd goes by the name of in.tftpd too.
    if path is None or (kind.program == "in.tftpd" and Path(path).resolve().name == "atftpd"):
        _skip(f"{kind.name} is not installed")
    return path


def _skip(why: str) -> None:
    if os.environ.get("TFTPD_INTEROP") == "required":
        pytest.fail(why)
    pytest.skip(why)


def _listens(pid: int, program: str, port: int) -> bool:
    """Return True if the process runs `program` already and has bound the port in its network."""
    here = Path("/proc", str(pid))
    if (here / "comm").read_text().strip() != program:
        return False
    return f":{port:04X} " in (here / "net" / "udp").read_text()
