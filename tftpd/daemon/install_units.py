"""`tftpd install-units`: the service's files, each with the paths of this installation."""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins

_UNITS = ("tftpd.service", "tftpd@.service", "tftpd.socket", "tftpd@.socket")
_DROP_IN = "tftpd.service.d/socket.conf"
_CONFIG = "tftpd.yaml"

# What stands in the files, which serve as they are where /usr has tftpd.
_PROGRAM = "/usr/bin/tftpd"
_MODULE = "tftpd.daemon.cli"
_RUNNABLE = "ExecPaths=/usr -/lib -/lib64"

_CONFIG_TO = Path("/etc/tftpd/tftpd.yaml")
_SERVED = Path("/srv/tftp")
_HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"))  # by ProtectHome=


def install_units(arguments: argparse.Namespace) -> int:
    """Put the files in place, tell which and what comes next; the exit status."""
    prefix, root = Path(arguments.prefix).absolute(), Path(arguments.root)
    plan = InstallPlan(prefix, root, arguments.socket, arguments.force)
    try:
        for step in plan.steps():
            if not arguments.dry_run:
                step.take()
            print(step)
    except OSError as error:
        print(f"tftpd: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except CannotInstall as cannot:
        print(f"tftpd: {cannot}", file=sys.stderr)
        return 1
    if not arguments.dry_run:
        list(getPlugins(IServiceMaker))  # writes Twisted's cache, which the daemon's user may not
    print("", "Next:", *(f"    {command}" for command in plan.next_commands()), sep="\n")
    return 0


class CannotInstall(Exception):
    """The text says why, in one line."""


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """Where the files go.

    Units go below `prefix`, as a package has it; everything goes below
    `root`, as in a package that is being built. `socket` has systemd hold
    the port. An existing configuration stays unless `force` is set.
    """

    prefix: Path = Path("/usr/local")
    root: Path = Path("/")
    socket: bool = False
    force: bool = False

    def steps(self) -> Iterator["InstallStep"]:
        """What is to be done; raises `CannotInstall`."""
        program, runnable = _program(), _runnable()
        units = self.prefix / "lib/systemd/system"
        for name in _UNITS:
            text = _shipped(name).replace(_PROGRAM, program).replace(_RUNNABLE, runnable)
            yield self._file(units / name, text)
        drop_in = self._staged(units / _DROP_IN)
        if self.socket:
            yield self._file(units / _DROP_IN, _shipped(_DROP_IN))
        elif drop_in.exists():
            yield InstallStep("remove", drop_in)
        config = self._file(_CONFIG_TO, _shipped(_CONFIG))
        kept = config.path.exists() and not self.force
        yield InstallStep("keep", config.path) if kept else config
        served = self._staged(_SERVED)
        yield InstallStep("keep" if served.is_dir() else "make", served)

    def next_commands(self) -> list[str]:
        """What the administrator types then."""
        unit = "tftpd.socket" if self.socket else "tftpd.service"
        return [
            f"tftpd check {_CONFIG_TO}",
            "systemctl daemon-reload",
            f"systemctl enable --now {unit}",
        ]

    def _staged(self, path: Path) -> Path:
        return self.root / path.relative_to("/")

    def _file(self, path: Path, text: str) -> "InstallStep":
        staged = self._staged(path)
        try:
            same = staged.read_text() == text
        except OSError:
            same = False
        return InstallStep("keep" if same else "write", staged, text)


@dataclass(frozen=True, slots=True)
class InstallStep:
    """One thing to be done: write, make, remove or keep `path`."""

    verb: str
    path: Path
    text: str = ""

    def take(self) -> None:
        """Do it; raises `OSError`."""
        if self.verb == "make":
            _make(self.path)
        elif self.verb == "remove":
            self.path.unlink()
        elif self.verb == "write":
            _make(self.path.parent)
            _replace(self.path, self.text)

    def __str__(self) -> str:
        return f"{self.verb:6} {self.path}"


def _shipped(name: str) -> str:
    """The text of a file that the package brings."""
    return files("tftpd.daemon").joinpath("units", name).read_text("utf-8")


def _program() -> str:
    """The command of this installation, as a unit has it."""
    script = Path(sys.executable).with_name("tftpd")
    # -P: nothing is imported from the directory that it is started in.
    words = [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-P", "-m", _MODULE]
    for place in (script.parent, *_places()):
        if any(place.is_relative_to(hidden) for hidden in _HIDDEN):
            raise CannotInstall(
                f"this installation needs {place}, which services do not see; install "
                "tftpd with the system's Python, as into a virtual environment /opt/tftpd"
            )
    return " ".join(_quoted(word) for word in words)


def _runnable() -> str:
    """`ExecPaths=` with where this Python is, whose libraries are programs to the kernel."""
    beyond = sorted(place for place in _places() if not place.is_relative_to("/usr"))
    return " ".join([_RUNNABLE, *(_quoted(f"-{place}") for place in beyond)])


def _places() -> set[Path]:
    """Where this Python and its libraries are."""
    return {Path(sys.prefix), Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}


def _quoted(word: str) -> str:
    """`word` as systemd reads it: % begins a specifier, $ a variable."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if " " in word else word


def _make(directory: Path) -> None:
    """Make it and what is above it, for all to read, whatever the umask of root."""
    if not directory.is_dir():
        _make(directory.parent)
        directory.mkdir()
        directory.chmod(0o755)


def _replace(path: Path, text: str) -> None:
    """Write it whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, "utf-8")
    temporary.chmod(0o644)
    temporary.replace(path)
