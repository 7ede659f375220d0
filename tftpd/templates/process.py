"""Render process, from the point of view of the daemon."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from tftpd.protocol.errors import HostFault, RequestRefused
from tftpd.templates import protocol
from tftpd.templates.protocol import MessageKind, RenderJob, template_failed

# -P: import nothing from the directory in which the daemon was started.
_COMMAND = [sys.executable, "-P", "-m", "tftpd.templates.worker"]

# The loader and the interpreter need these. Everything else may be a secret of the daemon.
_VARIABLES = ("LD_LIBRARY_PATH", "PYTHONHOME", "COVERAGE_PROCESS_CONFIG")

_START_SECONDS = 10.0  # about 0.1 s on an idle machine
_EXIT_SECONDS = 1.0  # after the process has closed its socket
_MAX_MESSAGE_BYTES = 64 << 10  # of a message without a file
_SIGNAL_NAMES = {number.value: number.name for number in signal.Signals}


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


class RenderTimeout(HostFault):
    """The job exceeded its time limit."""


class RenderProcessEnded(HostFault):
    """The process ended during the job; the fault may not be the job's."""


class RenderProcess:
    """One render process. It takes one job at a time, from one thread at a time.

    Every thread may call `kill()`. The constructor starts the process; it raises `OSError` if
    that fails.

    Attributes:
        works: True if the process can take a job.
    """

    def __init__(self) -> None:
        self._socket, child_socket = socket.socketpair()
        with child_socket:
            try:
                self._process = subprocess.Popen(
                    _COMMAND,
                    env=_environment(),
                    # The process inherits no descriptor of the daemon: a reader of a pipe of
                    # the daemon would otherwise have to wait for the job, too.
                    stdin=child_socket.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except BaseException:
                self._socket.close()
                raise
        self.works = False  # until `begin()`

    def is_idle(self) -> bool:
        """Return whether the process is alive and waits for a job."""
        if not self.works or self._process.poll() is not None:
            return False
        readable = select.poll()
        readable.register(self._socket, select.POLLIN)
        return not readable.poll(0)  # neither end of file nor data that was not requested

    def begin(self) -> None:
        """Wait until the process is ready; raise `RequestRefused` if it cannot start."""
        deadline = time.monotonic() + _START_SECONDS
        with self._translate_errors(template_failed(f"did not start within {_START_SECONDS:g} s")):
            kind, body = self._receive(_MAX_MESSAGE_BYTES, deadline)
            if kind is not MessageKind.READY:
                raise protocol.decode_refusal(body)
        self.works = True

    def render(self, job: RenderJob) -> bytes:
        """Return the file of a job; raise `RequestRefused` if there is none."""
        message = protocol.encode_message(MessageKind.JOB, job.encode())
        deadline = time.monotonic() + job.seconds
        self.works = False  # until the result is here
        timeout = template_failed(f"took more than {job.seconds:g} s", RenderTimeout)
        with self._translate_errors(timeout):
            self._socket.settimeout(job.seconds)
            self._socket.sendall(message)
            kind, body = self._receive(max(job.max_size, _MAX_MESSAGE_BYTES), deadline)
            if kind is MessageKind.FILE and len(body) <= job.max_size:
                self.works = True
                return body
            if kind not in (MessageKind.REFUSED, MessageKind.LAST):
                raise protocol.InvalidMessage
            refused = protocol.decode_refusal(body)
        self.works = kind is MessageKind.REFUSED
        raise refused

    def kill(self) -> None:
        """Kill the process; a thread that waits for its result gets `RequestRefused`."""
        self._process.kill()

    def close(self) -> None:
        """End the process and release its resources; idempotent."""
        self.works = False
        self._socket.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # a blocked disk may delay the end
            self._process.wait(_EXIT_SECONDS)

    def _receive(self, max_size: int, deadline: float) -> tuple[MessageKind, bytes]:
        read = partial(protocol.read_exactly, self._socket, deadline=deadline)
        return protocol.receive_message(read, max_size)

    @contextmanager
    def _translate_errors(self, timeout: RequestRefused) -> Iterator[None]:
        """Raise `RequestRefused` for errors of the socket and invalid messages."""
        try:
            yield
        except TimeoutError:
            raise timeout from None
        except OSError:
            raise template_failed(self._exit_reason(), RenderProcessEnded) from None
        except protocol.InvalidMessage:
            raise template_failed("the render process sent an invalid message") from None

    def _exit_reason(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(_EXIT_SECONDS)
            if status < 0:
                name = _SIGNAL_NAMES.get(-status, f"signal {-status}")
                return f"the render process was killed by {name}"
        return "the render process ended"
