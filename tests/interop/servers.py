"""Servers of other projects, as Debian packages them, on loopback.

A test is skipped if its server is not installed. It fails instead if the environment variable
TFTPD_INTEROP is `required`.
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

_SBIN = "/usr/sbin"  # often missing in PATH of ordinary users


@dataclass(frozen=True)
class ServerKind:
    """Kind of server.

    Attributes:
        name: Name for test ids and messages.
        program: Name of the executable.
        command: Function that returns the arguments for a port and a root directory.
        options: TFTP options that the server grants.
        refused_name: Name for which it refuses an upload; None if it refuses all uploads.
        min_blksize: Smallest blksize that it grants.
        port: The only port it can use, if there is one. It then runs in its own network namespace.
    """

    name: str
    program: str
    command: Callable[[int, Path], list[str]]
    options: frozenset[str] = frozenset({"blksize", "tsize"})
    refused_name: str | None = None
    min_blksize: int = 8
    port: int | None = None

    def granted(self, blksize: int, windowsize: int) -> tuple[int, int]:
        """Return the blksize and windowsize that the server grants for a request of both."""
        return (
            blksize if "blksize" in self.options else 512,
            windowsize if "windowsize" in self.options else 1,
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
    # Its OACK needs 64 bytes.
    ServerKind("atftpd", "atftpd", _atftpd(), _ALL, refused_name="../above", min_blksize=64),
    ServerKind(
        "atftpd-plain",
        "atftpd",
        _atftpd(*_NONE),
        frozenset(),
        refused_name="../above",
        min_blksize=512,
    ),
    ServerKind("in.tftpd", "in.tftpd", _hpa, refused_name="locked"),
    ServerKind("dnsmasq", "dnsmasq", _dnsmasq, port=69),
]


@dataclass
class RunningServer:
    """Running server, its root directory and URL, and the command that enters its namespace."""

    kind: ServerKind
    root: Path
    url: str
    enter: list[str]

    def tftpc(self, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[bytes]":
        """Run our client in the network namespace of the server."""
        return subprocess.run(
            [*self.enter, *TFTPC, *arguments],
            cwd=cwd, env=ENVIRONMENT, capture_output=True, timeout=LIMIT,
        )  # fmt: skip


@contextmanager
def running_server(kind: ServerKind, root: Path) -> Iterator[RunningServer]:
    """Run a server during the block."""
    program = _program(kind)
    if os.getuid() != 0:
        pytest.skip(f"{kind.name} must be started as root")
    root.chmod(0o777)
    port = kind.port or free_port()
    command = [program, *kind.command(port, root)]
    if kind.port is not None:
        up = 'ip link set lo up && exec "$0" "$@"'
        command = ["unshare", "--net", "sh", "-c", up, *command]
    null = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=null, stdout=null, stderr=null, start_new_session=True
    )
    try:
        until(lambda: process.poll() is not None or _listens(process.pid, kind.program, port))
        assert process.poll() is None, f"{kind.name} does not start"
        enter = [] if kind.port is None else ["nsenter", f"--net=/proc/{process.pid}/ns/net"]
        yield RunningServer(kind, root, f"tftp://127.0.0.1:{port}", enter)
    finally:
        # The process group contains the children of in.tftpd that run transfers.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(LIMIT)


def _program(kind: ServerKind) -> str:
    path = shutil.which(kind.program, path=f"{os.environ['PATH']}:{_SBIN}")
    # Debian's atftpd has a link with the name in.tftpd.
    if path is None or (kind.program == "in.tftpd" and Path(path).resolve().name == "atftpd"):
        _skip(f"{kind.name} is not installed")
    return path


def _skip(reason: str) -> None:
    if os.environ.get("TFTPD_INTEROP") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def _listens(pid: int, program: str, port: int) -> bool:
    """Return True if the process executes `program` and has bound the port."""
    process = Path("/proc", str(pid))
    if (process / "comm").read_text().strip() != program:
        return False
    return f":{port:04X} " in (process / "net" / "udp").read_text()
