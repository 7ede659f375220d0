"""The process that renders: `python -m tftpd.templates.worker`, its socket as standard input.

It may neither write files nor start processes, has its memory, ends with its
socket, and, while nobody ends it, by itself some time after a job should have.
"""

import resource
import signal
import socket
from typing import TYPE_CHECKING

from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.templates.protocol import MessageKind, RenderJob, framed, receive, refusal

if TYPE_CHECKING:
    from tftpd.templates.sandbox import Templates

_MEMORY = 256 << 20  # octets beyond those it starts with
_STARTS_WITH = 512 << 20  # octets, where the system does not say
_LATE = 1.0  # seconds; who gave the job ends it before

_LONGEST = 64 << 20  # octets of a job


def main() -> None:
    """Render until nobody wants it any more."""
    # A terminal and systemd tell all processes of the daemon to end, which it may do later.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    channel = socket.socket(fileno=0)
    try:
        _serve(channel)
    except (EOFError, OSError):
        return  # the daemon is gone, or wants another


def _serve(channel: socket.socket) -> None:
    try:
        from tftpd.templates.sandbox import Templates

        templates = Templates()
        _bound()
    except ImportError as error:
        channel.sendall(refusal(_unable(f"needs jinja2: {error}"), last=True))
        return
    except (OSError, ValueError) as error:
        channel.sendall(refusal(_unable(f"its process cannot be bounded: {error}"), last=True))
        return
    channel.sendall(framed(MessageKind.READY))

    def take(count: int) -> bytes:
        octets = bytearray()
        while len(octets) < count:
            got = channel.recv(count - len(octets))
            if not got:
                raise EOFError
            octets += got
        return bytes(octets)

    while True:
        _, body = receive(take, _LONGEST)
        job = RenderJob.decode(body)
        signal.setitimer(signal.ITIMER_REAL, job.seconds + _LATE)
        channel.sendall(answer(templates, job))
        signal.setitimer(signal.ITIMER_REAL, 0)


def answer(templates: "Templates", job: RenderJob) -> bytes:
    """The message that says what `templates` make of a job."""
    try:
        return framed(MessageKind.FILE, templates.render(job))
    except RequestRefused as refused:
        return refusal(refused)
    except MemoryError:
        why = f"needs more than {_MEMORY >> 20} MiB of memory"
        return refusal(_unable(why), last=True)  # what is left of it is in pieces


def _bound() -> None:
    """Take from this process what it does not need; raises `OSError` or `ValueError`."""
    most = _held() + _MEMORY
    for what, limit in (
        (resource.RLIMIT_AS, most),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),  # root's are not counted
    ):
        _, hard = resource.getrlimit(what)
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(what, (limit, limit))


def _held() -> int:
    """The octets of address space that it has now."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return _STARTS_WITH


def _unable(why: str) -> RequestRefused:
    return RequestRefused(ErrorCode.NOT_DEFINED, why, ErrorText.TEMPLATE_FAILED)


if __name__ == "__main__":
    main()
