"""Render process: `python -m tftpd.templates.worker`, with its socket as standard input.

The process may neither write files nor start processes, and its memory is limited. It ends when
the socket closes. A timer also ends it a second after the time limit of a job.
"""

import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from tftpd.protocol.errors import RequestRefused
from tftpd.templates import protocol
from tftpd.templates.protocol import MessageKind, RenderJob, template_failed

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
    with suppress(OSError):  # the daemon has ended, or it does not need this process any longer
        _serve(socket.socket(fileno=0))


def _serve(channel: socket.socket) -> None:
    try:
        from tftpd.templates.sandbox import TemplateSandbox

        render = TemplateSandbox().render
        _set_limits()
    except (ImportError, OSError, ValueError) as error:
        is_missing = isinstance(error, ImportError)
        fault = "needs jinja2" if is_missing else "cannot limit the resources of the render process"
        refused = template_failed(f"{fault}: {error}")
        channel.sendall(protocol.encode_refusal(refused, last=True))
        return
    channel.sendall(protocol.encode_message(MessageKind.READY))
    while True:
        _, body = protocol.receive_message(partial(protocol.read_exactly, channel), _MAX_JOB_BYTES)
        job = RenderJob.decode(body)
        signal.setitimer(signal.ITIMER_REAL, job.seconds + _GRACE_SECONDS)
        channel.sendall(render_message(render, job))
        signal.setitimer(signal.ITIMER_REAL, 0)


def render_message(render: Callable[[RenderJob], bytes], job: RenderJob) -> bytes:
    """Render a job and return the message with its result."""
    try:
        return protocol.encode_message(MessageKind.FILE, render(job))
    except RequestRefused as refused:
        return protocol.encode_refusal(refused)
    except MemoryError:
        reason = f"needs more than {_EXTRA_MEMORY_BYTES >> 20} MiB of memory"
        # This process ends, because its heap may be fragmented now.
        return protocol.encode_refusal(template_failed(reason), last=True)


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


if __name__ == "__main__":
    main()
