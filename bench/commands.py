"""The clients that are compared: what each is called with, and what it can."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tftpd
from bench.servers import HOST, Missing

OURS = "tftpc"
BLKSIZE = 1468

# As the script that is installed with the package does.
_MAIN = "import sys; from tftpd.client.cli import main; sys.exit(main())"
_WAITS = 10.0  # seconds for a program to tell its version


@dataclass(frozen=True, slots=True)
class Order:
    """One file to get or put: the file here, its name at the server, and how."""

    port: int
    local: Path
    name: str
    upload: bool
    windowsize: int


@dataclass(frozen=True, slots=True)
class Command:
    """A client: its arguments for an order, and whether it knows windows."""

    name: str
    arguments: Callable[[Order], list[str]]
    windows: bool = True
    version: str = "--version"

    def told_version(self) -> str:
        """What it says of its version."""
        if self.name == OURS:
            return tftpd.__version__
        told = subprocess.run(
            [self.program(), self.version], capture_output=True, text=True, timeout=_WAITS
        )
        return " ".join((told.stdout or told.stderr).split()[:2])

    def line(self, order: Order) -> list[str]:
        """The command line for `order`; raises `Missing`."""
        return [self.program(), *self.arguments(order)]

    def check(self) -> None:
        """Raises `Missing` where it cannot be run."""
        self.program()

    def program(self) -> str:
        """The path of its program; raises `Missing`."""
        if self.name == OURS:
            return sys.executable
        path = shutil.which(self.name)
        if path is None:
            raise Missing(f"{self.name} is not installed")
        return path


def _tftpc(order: Order) -> list[str]:
    url, local = f"tftp://{HOST}:{order.port}/{order.name}", str(order.local)
    asked = ["--json", "--blksize", str(BLKSIZE), "--windowsize", str(order.windowsize)]
    what = ["put", *asked, local, url] if order.upload else ["get", *asked, "-o", local, url]
    return ["-c", _MAIN, *what]


def _atftp(order: Order) -> list[str]:
    way = "--put" if order.upload else "--get"
    options = ["--option", f"blksize {BLKSIZE}", "--option", "tsize"]
    if order.windowsize > 1:
        options += ["--option", f"windowsize {order.windowsize}"]
    files = [way, "--local-file", str(order.local), "--remote-file", order.name]
    return [*options, *files, HOST, str(order.port)]


def _curl(order: Order) -> list[str]:
    url = f"tftp://{HOST}:{order.port}/{order.name}"
    way = "--upload-file" if order.upload else "--output"
    return ["--silent", "--tftp-blksize", str(BLKSIZE), way, str(order.local), url]


_COMMANDS = [
    Command(OURS, _tftpc),
    Command("atftp", _atftp),
    Command("curl", _curl, windows=False),
]
COMMANDS = {command.name: command for command in _COMMANDS}
