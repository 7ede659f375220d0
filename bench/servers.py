"""Server programs that are measured: how each is started, checked and stopped."""

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

import yaml

from tests.support.daemons import CHECKOUT, free_port
from tftpd import dataplane

OURS, OUR_CLIENT = "tftpd", "tftpc"
HOST = "127.0.0.1"

_SBIN = "/usr/local/sbin:/usr/sbin"  # not in the PATH of an ordinary user
_START_SECONDS = 30.0  # limit, on a loaded machine
_STOP_SECONDS = 5.0
_PROBE_INTERVAL = 0.005  # seconds; the resolution of the start-up time
_PROBE = b"\0\1no-such-file\0octet\0"

_CONFIG = Path(__file__).with_name("tftpd.yaml")


class Unavailable(Exception):
    """A program cannot run on this machine. The message is the reason."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server program.

    Attributes:
        name: Name in the reports.
        command: Program and arguments. {host}, {port}, {root}, {work} and {user} are replaced.
        port: Port, if the program cannot use another one.
        needs_root: The program must be started by root.
        has_cpu_time: The CPU time can be read. That of children is lost if the program does not
            wait for them.
        uploads: The program accepts write requests.
        windows: The program knows the windowsize option (RFC 7440).
        environment: Environment variables to set.
    """

    name: str
    command: str
    port: int | None = None
    needs_root: bool = False
    has_cpu_time: bool = True
    uploads: bool = True
    windows: bool = True
    environment: dict[str, str] = field(default_factory=dict)

    def command_line(self, port: int, root: Path, work: Path) -> list[str]:
        """Return the program and its arguments, or raise `Unavailable` if it cannot run here."""
        values = {"host": HOST, "port": port, "root": root, "work": work}
        values["user"] = getpass.getuser()
        name, *arguments = (word.format(**values) for word in self.command.split())
        program = find_program(name)
        if self.needs_root and os.geteuid() != 0:
            raise Unavailable("needs root")
        return [program, *arguments]


_SERVERS = yaml.safe_load(Path(__file__).with_name("servers.yaml").read_text())
SERVERS = {name: Server(name, **keys) for name, keys in _SERVERS.items()}


def find_program(name: str) -> str:
    """Return the path of a program, or raise `Unavailable`."""
    directories = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), _SBIN)
    path = shutil.which(name, path=os.pathsep.join(directories))  # ours are beside the interpreter
    if path is None:
        raise Unavailable(f"{name} is not installed")
    # Debian's atftpd installs a link named in.tftpd if tftpd-hpa is absent.
    if name == "in.tftpd" and Path(path).resolve().name == "atftpd":
        raise Unavailable(f"{path} is atftpd")
    return path


def read_version(name: str) -> str:
    """Return the version of a program by its name in the reports, or an empty string.

    That of our programs, which may be followed by `(python)`, includes the data plane.
    """
    program, _, plane = name.partition(" ")
    try:
        command = [find_program(program), "--version"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_START_SECONDS)
    except Unavailable:
        return ""
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    version = found[0] if found else ""
    is_ours = program in (OURS, OUR_CLIENT)
    return f"{version}, data plane in {plane.strip('()') or dataplane.NAME}" if is_ours else version


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers.

    Attributes:
        pid: Its process.
        port: Its port.
        startup: Time in seconds from its start to its answer.
        work: Directory of its configuration and its log.
    """

    pid: int
    port: int
    startup: float
    work: Path


@contextmanager
def running(
    server: Server, root: Path, port: int | None = None, config: str | None = None
) -> Iterator[RunningServer]:
    """Run a server during the block.

    Args:
        server: The program.
        root: Directory that it serves.
        port: Port to use; a free one if None.
        config: Configuration of our server; one listener and one directory if None.

    Raises:
        Unavailable: The server does not answer.
    """
    port = server.port or port or free_port()
    config = config or Template(_CONFIG.read_text()).substitute(host=HOST, port=port, root=root)
    with TemporaryDirectory(prefix="tftpd-bench-") as directory:
        work = Path(directory)
        (work / "tftpd.yaml").write_text(config)
        output = work / "output"
        began = time.monotonic()
        with output.open("wb") as out:
            process = subprocess.Popen(
                server.command_line(port, root, work),
                cwd=work,
                env=dict(os.environ, PYTHONPATH=str(CHECKOUT)) | server.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            if not _wait_for_answer(process, port, began + _START_SECONDS):
                lines = output.read_text(errors="replace").strip().split("\n")
                raise Unavailable(f"does not answer: {lines[-1] or 'no output'}")
            yield RunningServer(process.pid, port, time.monotonic() - began, work)
        finally:
            _stop(process)


def _wait_for_answer(process: "subprocess.Popen[bytes]", port: int, deadline: float) -> bool:
    """Request a file that does not exist until the server answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.settimeout(_PROBE_INTERVAL)
        while process.poll() is None and time.monotonic() < deadline:
            try:
                sock.sendto(_PROBE, (HOST, port))
                sock.recv(600)
            except TimeoutError:
                continue
            return True
    return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Stop a server and its children, which share its process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_STOP_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    process.wait()
