"""The servers that are compared: how each is started, asked, measured and stopped."""

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tftpd
from bench.load import PROJECT
from bench.processes import Usage, usage

OURS = "tftpd"
HOST = "127.0.0.1"

_SBIN = "/usr/local/sbin:/usr/sbin"  # where servers are, and users' paths are not
_STARTS_WITHIN = 30.0  # seconds, on a busy machine
_STOPS_WITHIN = 5.0
_PROBE_EACH = 0.005  # seconds: as exact as a start-up time is told
_PROBE = b"\0\1no-such-file\0octet\0"

# As an administrator runs it: the default log level, to a file.
_TWISTD = "from twisted.scripts.twistd import run; run()"
_CONFIG = """\
listen:
  - {{address: {host}, port: {port}}}
directories:
  - path: /
    root: {root}
    read: true
    write: {{create: true, overwrite: true}}
"""


class Missing(Exception):
    """A server that this machine cannot run, and why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server runs: its port, what it serves, and a directory of its own."""

    port: int
    root: Path
    work: Path


@dataclass(frozen=True, slots=True)
class Server:
    """A server that can be started.

    `command` may hold {port}, {root}, {work} and {user}; `port` is set where
    a server knows one port only. `counted` is whether its CPU time can be
    read: that of children which nobody waits for is lost.
    """

    name: str
    command: str
    version: str = ""
    port: int | None = None
    needs_root: bool = False
    counted: bool = True
    uploads: bool = True
    windows: bool = True
    prepare: Callable[[Place], None] = lambda place: None

    def arguments(self, place: Place) -> list[str]:
        """The command line in `place`."""
        known = {"port": place.port, "root": place.root, "work": place.work}
        _, *words = shlex.split(self.command)
        user = getpass.getuser()
        return [self.program(), *(word.format(**known, user=user) for word in words)]

    def program(self) -> str:
        """The path of its program; raises `Missing` if there is none."""
        name = shlex.split(self.command)[0]
        found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")
        if found is None:
            raise Missing(f"{name} is not installed")
        return found

    def check(self) -> None:
        """Raises `Missing` where it cannot be run."""
        program = self.program()
        # Debian's atftpd calls itself in.tftpd too where tftp-hpa is absent.
        if self.name == "in.tftpd" and Path(program).resolve().name == "atftpd":
            raise Missing(f"{program} is atftpd")
        if self.needs_root and os.geteuid() != 0:
            raise Missing("needs root")

    def told_version(self) -> str:
        """What the program says of its version; empty if it says nothing."""
        if self.name == OURS:
            return tftpd.__version__
        if not self.version:
            return ""
        command = [self.program(), self.version]
        told = subprocess.run(command, capture_output=True, text=True, timeout=_STARTS_WITHIN)
        return (told.stdout or told.stderr).partition("\n")[0].partition("  ")[0].strip()


def _configure(place: Place) -> None:
    settings = _CONFIG.format(host=HOST, port=place.port, root=place.root)
    (place.work / "tftpd.yaml").write_text(settings)


_SERVERS = [
    Server(
        OURS,
        f"{shlex.quote(sys.executable)} -c {shlex.quote(_TWISTD)} -n --pidfile="
        " --logfile={work}/log tftp --config {work}/tftpd.yaml",
        prepare=_configure,
    ),
    Server(
        "in.tftpd",
        f"in.tftpd -L -a {HOST}:{{port}} -c -u {{user}} -s {{root}}",
        version="-V",
        needs_root=True,  # for chroot
        counted=False,
        windows=False,
    ),
    Server(
        "atftpd",
        "atftpd --daemon --no-fork --maxthread 4000 --user {user} --verbose=0"
        f" --port {{port}} --bind-address {HOST} {{root}}",
        version="--version",
    ),
    Server(
        "dnsmasq",
        "dnsmasq --keep-in-foreground --conf-file={work}/conf --pid-file= --user={user} --port=0"
        " --enable-tftp --tftp-max=4000 --tftp-root={root}"
        f" --listen-address={HOST} --bind-interfaces --log-facility={{work}}/log",
        version="--version",
        port=69,
        needs_root=True,
        uploads=False,
        windows=False,
        prepare=lambda place: (place.work / "conf").touch(),
    ),
    Server("rs-tftpd", f"rs-tftpd -i {HOST} -p {{port}} -d {{root}}"),
]
SERVERS = {server.name: server for server in _SERVERS}


def brought(specification: str) -> Server:
    """The server of a `NAME=COMMAND`; one of a known name keeps what is known of it.

    Raises `ValueError` where there is no `=`.
    """
    name, equals, command = specification.partition("=")
    if not equals or not name or not command:
        raise ValueError(f"not NAME=COMMAND: {specification!r}")
    known = SERVERS.get(name)
    if known is None:
        return Server(name, command)
    return Server(
        name,
        command,
        version=known.version,
        port=known.port,
        needs_root=known.needs_root,
        counted=known.counted,
        uploads=known.uploads,
        windows=known.windows,
        prepare=known.prepare,
    )


@dataclass(slots=True)
class Running:
    """A server that answers. `startup` is how many seconds it took to."""

    process: "subprocess.Popen[bytes]"
    port: int
    startup: float

    def usage(self) -> Usage:
        """CPU time and memory of its processes."""
        return usage(self.process.pid)


@contextmanager
def running(server: Server, root: Path, work: Path) -> Iterator[Running]:
    """Run `server` for as long as the block takes.

    Raises `Missing` if it does not come to answer.
    """
    place = Place(server.port or _free_port(), root, work)
    server.prepare(place)
    began = time.monotonic()
    said = work / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(
            server.arguments(place),
            cwd=work,
            env=dict(os.environ, PYTHONPATH=str(PROJECT)),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        if not _answers(process, place.port, began + _STARTS_WITHIN):
            raise Missing(f"does not answer: {_last_line(said)}")
        yield Running(process, place.port, time.monotonic() - began)
    finally:
        _stop(process)


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it says nothing").strip()


def _answers(process: "subprocess.Popen[bytes]", port: int, deadline: float) -> bool:
    """Whether anything is answered when a file is asked for that is not there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.settimeout(_PROBE_EACH)
        while process.poll() is None and time.monotonic() < deadline:
            try:
                sock.sendto(_PROBE, (HOST, port))
                sock.recv(600)
            except TimeoutError:
                continue
            return True
    return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Stop it and its children, which share its process group."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(_STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])
