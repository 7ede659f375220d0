"""`tftpd install-units`: install the systemd units with the paths of this installation."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins

import tftpd
from tftpd.config.errors import ConfigError
from tftpd.config.loader import load_settings_and_document
from tftpd.config.settings import Settings
from tftpd.daemon.service import DEFAULT_CONFIG

_UNITS = ("tftpd.service", "tftpd@.service", "tftpd.socket", "tftpd@.socket")
_DROP_IN = "tftpd.service.d/socket.conf"

# Text of the shipped units, which is correct for an installation in /usr.
_PROGRAM = "/usr/bin/tftpd"
_EXEC_PATHS = "ExecPaths=/usr -/lib -/lib64"

_CONFIG = Path(DEFAULT_CONFIG)
_STATUS_PORT = 9169  # which the shipped units allow
_SERVED = Path("/srv/tftp")
_CACHES = Path("/var/cache")
_STATE = Path("/var/lib/tftpd")
_HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"))  # by ProtectHome=


# The verb write, make, remove or keep; the path, and the text to write.
_Step = tuple[str, Path, str]


class _InstallError(Exception):
    """The units cannot be installed. The text is one line."""


def install_units(arguments: argparse.Namespace) -> int:
    """Install the files, print each step and the next commands; return the exit status."""
    os.umask(0o022)  # everyone may read what is installed, whatever root's umask is
    try:
        for verb, path, text in _plan(arguments):
            if not arguments.dry_run:
                _run_step(verb, path, text)
            print(f"{verb:6} {path}")
    except (OSError, _InstallError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        print(f"tftpd: {reason}", file=sys.stderr)
        return 1
    if not arguments.dry_run:
        list(getPlugins(IServiceMaker))  # writes Twisted's plugin cache, which needs root
    print("\nNext:", f"tftpd check {_CONFIG}", "systemctl daemon-reload", sep="\n    ")
    print(f"    systemctl enable --now tftpd.{'socket' if arguments.socket else 'service'}")
    return 0


def _run_step(verb: str, path: Path, text: str) -> None:
    if verb == "make":
        path.mkdir(parents=True)
    elif verb == "remove":
        path.unlink()
    elif verb == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        with temporary.open("x", encoding="utf-8") as file:  # follows no link
            file.write(text)
        temporary.replace(path)


def _plan(arguments: argparse.Namespace) -> Iterator[_Step]:
    """Yield the steps. An existing configuration stays unless `--force` is given."""
    root = Path(arguments.root)
    units = root / (Path(arguments.prefix).absolute() / "lib/systemd/system").relative_to("/")
    program, exec_paths = _program(), _exec_paths()
    for name in _UNITS:
        text = _shipped(name).replace(_PROGRAM, program).replace(_EXEC_PATHS, exec_paths)
        yield _write_step(units / name, text)
    if arguments.socket:
        yield _write_step(units / _DROP_IN, _shipped(_DROP_IN))
    elif (units / _DROP_IN).exists():
        yield "remove", units / _DROP_IN, ""
    if text := _network_drop_in(arguments):
        for name in ("tftpd", "tftpd@"):
            yield _write_step(units / f"{name}.service.d/network.conf", text)
    config = root / _CONFIG.relative_to("/")
    if config.exists() and not arguments.force:
        yield "keep", config, ""
        yield from _plan_drop_ins(units, config)
    else:
        yield _write_step(config, _shipped(_CONFIG.name))
    served = root / _SERVED.relative_to("/")
    yield "keep" if served.is_dir() else "make", served, ""


def _network_drop_in(arguments: argparse.Namespace) -> str:
    """Return the drop-in that extends the sandbox; empty without the options for it."""
    networks = " ".join(map(str, arguments.networks))
    lines = [f"IPAddressAllow={networks}"] if networks else []
    lines += ["RestrictAddressFamilies=AF_NETLINK"] if arguments.mac else []
    return "\n".join(["[Service]", *lines, ""]) if lines else ""


def _plan_drop_ins(units: Path, config: Path) -> Iterator[_Step]:
    """Yield the steps for the TCP ports, origins and events of each configuration.

    The configurations of tftpd@.service count, too.
    """
    for path in sorted(config.parent.glob("*.yaml")):
        name = "tftpd" if path == config else f"tftpd@{path.stem}"
        try:
            settings, _ = load_settings_and_document(path)
        except ConfigError:
            content = path.read_text(errors="replace")
            if any(key in content for key in ("origins", "events", "protocol")):
                print(f"tftpd: {path} has problems: no drop-in is written for it", file=sys.stderr)
            continue
        for key, text in (
            ("listen", _listen_drop_in(settings)),
            ("origins", _origins_drop_in(settings)),
            ("events", _events_drop_in(settings)),
        ):
            drop_in = units / f"{name}.service.d/{key}.conf"
            if text:
                yield _write_step(drop_in, text)
            elif drop_in.exists():
                yield "remove", drop_in, ""


def _listen_drop_in(settings: Settings) -> str:
    """Return the drop-in that allows further TCP ports; empty without them."""
    ports = {listen.port for listen in settings.listen if listen.protocol != "tftp"}
    if settings.status is not None and settings.status.socket is None:
        ports |= {settings.status.port} - {_STATUS_PORT}
    if not ports:
        return ""
    lines = ["# For the TCP ports of the configuration. Run `tftpd install-units` after a change."]
    lines += ["[Service]", *(f"SocketBindAllow=tcp:{port}" for port in sorted(ports))]
    return "\n".join([*lines, ""])


def _origins_drop_in(settings: Settings) -> str:
    """Return the drop-in that allows the origins and their cache; empty without origins."""
    if not settings.origins:
        return ""
    lines = ["# For the origins of the configuration. Run `tftpd install-units` after a change."]
    lines += ["[Service]"]
    lines += ["# The process that fetches lowers its own priority.", "SystemCallFilter=setpriority"]
    for name, section in settings.origins.items():
        lines += _allow_server(name, section.endpoint or section.url, section.server, "origin")
    if settings.cache is not None:
        lines += _allow_cache(Path(settings.cache.path))
    return "\n".join([*lines, ""])


def _allow_server(name: str, url: str, host: str | None, kind: str) -> list[str]:
    """Return the settings that let the daemon talk to a server: its address, or any."""
    try:
        return [f"# {name}: {url}", f"IPAddressAllow={ip_address(host or '')}"]
    except ValueError:
        return [
            f"# {name}: {url} has no fixed address.",
            f"# Replace `any` by the networks of the {kind} and of the clients, if known.",
            "IPAddressAllow=any",
        ]


def _events_drop_in(settings: Settings) -> str:
    """Return the drop-in that allows programs and webhooks; empty without them."""
    if not settings.events:
        return ""
    lines = ["# For the events of the configuration. Run `tftpd install-units` after a change."]
    lines += ["[Service]"]
    for section in settings.events:
        if section.exec is not None:
            program = Path(section.exec[0])
            if not program.is_relative_to("/usr"):
                lines += [f"ExecPaths={_quote(str(program))}"]
        elif section.webhook is not None:
            host = urlsplit(section.webhook).hostname
            lines += _allow_server(section.label, f"{section.label} (webhook)", host, "webhook")
        if section.secret_file is not None:
            path = Path(section.secret_file)
            lines += [
                f"# The configuration finds it as ${{CREDENTIALS_DIRECTORY}}/{path.name}.",
                f"LoadCredential={path.name}:{_quote(str(path))}",
            ]
    queue = settings.event_queue.file
    if queue is not None and not Path(queue).is_relative_to(_STATE):
        lines += [
            "# The directory must belong to the user of the service: set User=.",
            f"ReadWritePaths={_quote(str(Path(queue).parent))}",
        ]
    return "\n".join([*dict.fromkeys(lines), ""]) if len(lines) > 2 else ""


def _allow_cache(path: Path) -> list[str]:
    """Return the settings that let the daemon write to the directory of the cache."""
    if path.is_relative_to(_CACHES) and path != _CACHES:
        directory = _quote(str(path.relative_to(_CACHES)))
        return [f"CacheDirectory={directory}", "CacheDirectoryMode=0700"]
    return [
        "# The directory must exist and belong to the user of the service: set User=.",
        f"ReadWritePaths={_quote(str(path))}",
    ]


def _write_step(path: Path, text: str) -> _Step:
    with suppress(OSError):
        if path.read_text() == text:
            return "keep", path, text
    return "write", path, text


def _shipped(name: str) -> str:
    """Return the text of a file that the package contains."""
    return files("tftpd.daemon").joinpath("units", name).read_text("utf-8")


def _program() -> str:
    """Return the command of this installation, quoted for a unit."""
    script = Path(sys.executable).with_name("tftpd")
    command = [str(script)]
    if not os.access(script, os.X_OK):
        # -P: nothing is imported from the working directory.
        command = [sys.executable, "-P", "-m", "tftpd.daemon.cli"]
    for directory in (script.parent, *_python_directories()):
        if any(directory.is_relative_to(hidden) for hidden in _HIDDEN):
            raise _InstallError(
                f"this installation needs {directory}, which services cannot access; install "
                "tftpd with the system's Python, for example into a virtual environment in /opt"
            )
    return " ".join(_quote(word) for word in command)


def _exec_paths() -> str:
    """Return `ExecPaths=` with this Python and tftpd: libraries count as programs.

    An editable installation has the extension in the checkout.
    """
    needed = {Path("/usr"), *_python_directories(), Path(tftpd.__file__).resolve().parent}
    others = sorted(path for path in needed - {Path("/usr")} if needed.isdisjoint(path.parents))
    return " ".join([_EXEC_PATHS, *(_quote(f"-{path}") for path in others)])


def _python_directories() -> set[Path]:
    return {Path(sys.prefix), Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}


def _quote(word: str) -> str:
    """Quote for a unit, where % starts a specifier and $ a variable."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if " " in word else word
