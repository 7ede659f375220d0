"""Render process: `python -m tftpd.templates.worker`, with its socket as standard input.

The process may neither write files nor start processes, and its memory is limited. It ends when
the socket closes. A timer also ends it a second after the time limit of a job.
"""

import resource
import signal
import socket
from typing import TYPE_CHECKING

from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.templates.protocol import (
    MessageKind,
    RenderJob,
    encode_message,
    encode_refusal,
    receive_message,
)

if TYPE_CHECKING:
    from tftpd.templates.sandbox import TemplateSandbox

_EXTRA_MEMORY_BYTES = 256 << 20  # above the address space at the start
_DEFAULT_MEMORY_BYTES = 512 << 20  # at the start, if the system does not report it
_GRACE_SECONDS = 1.0  # the daemon ends the process earlier

_MAX_JOB_BYTES = 64 << 20


def main() -> None:
    """Render jobs until the daemon closes the socket."""
    # A terminal and systemd send these signals to all processes of the daemon. The daemon may
    # still have transfers then, and it ends this process itself.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    channel = socket.socket(fileno=0)
    try:
        _serve(channel)
    except (EOFError, OSError):
        return  # the daemon has ended, or it does not need this process any longer


def _serve(channel: socket.socket) -> None:
    try:
        from tftpd.templates.sandbox import TemplateSandbox

        sandbox = TemplateSandbox()
        _set_limits()
    except ImportError as error:
        channel.sendall(encode_refusal(_failed(f"needs jinja2: {error}"), last=True))
        return
    except (OSError, ValueError) as error:
        reason = f"cannot limit the resources of the render process: {error}"
        channel.sendall(encode_refusal(_failed(reason), last=True))
        return
    channel.sendall(encode_message(MessageKind.READY))

    def read_exactly(count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = channel.recv(count - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return bytes(data)

    while True:
        _, body = receive_message(read_exactly, _MAX_JOB_BYTES)
        job = RenderJob.decode(body)
        signal.setitimer(signal.ITIMER_REAL, job.seconds + _GRACE_SECONDS)
        channel.sendall(render_message(sandbox, job))
        signal.setitimer(signal.ITIMER_REAL, 0)


def render_message(sandbox: "TemplateSandbox", job: RenderJob) -> bytes:
    """Render a job and return the message with its result."""
    try:
        return encode_message(MessageKind.FILE, sandbox.render(job))
    except RequestRefused as refused:
        return encode_refusal(refused)
    except MemoryError:
        reason = f"needs more than {_EXTRA_MEMORY_BYTES >> 20} MiB of memory"
        return encode_refusal(_failed(reason), last=True)  # the heap may be fragmented now


def _set_limits() -> None:
    """Limit the resources of this process; raise `OSError` or `ValueError`."""
    memory = _address_space() + _EXTRA_MEMORY_BYTES
    for kind, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),  # no effect for root
    ):
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


def _address_space() -> int:
    """Return the size of this process's address space in bytes."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return _DEFAULT_MEMORY_BYTES


def _failed(reason: str) -> RequestRefused:
    return RequestRefused(ErrorCode.NOT_DEFINED, reason, ErrorText.TEMPLATE_FAILED)


if __name__ == "__main__":
    main()
