"""Render process, from the point of view of the daemon."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.templates.protocol import (
    InvalidMessage,
    MessageKind,
    RenderJob,
    decode_refusal,
    encode_message,
    receive_message,
)

# -P: import nothing from the directory in which the daemon was started.
_COMMAND = [sys.executable, "-P", "-m", "tftpd.templates.worker"]

_START_SECONDS = 10.0  # about 0.1 s on an idle machine
_EXIT_SECONDS = 1.0  # after the process has closed its socket
_MAX_MESSAGE_BYTES = 64 << 10  # of a message without a file
_CHUNK_BYTES = 256 << 10  # of one recv(2)

_INVALID = "the render process sent an invalid message"


class RenderTimeout(RequestRefused):
    """The job exceeded its time limit."""


class RenderProcess:
    """One render process. It takes one job at a time, from one thread at a time.

    Every thread may call `kill()`. The constructor starts the process; it raises `OSError` if
    that fails.

    Attributes:
        works: False once the process cannot take a job any longer.
    """

    def __init__(self) -> None:
        self._socket, child_socket = socket.socketpair()
        with child_socket:
            try:
                self._process = subprocess.Popen(
                    _COMMAND,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    # The process inherits no descriptor of the daemon: a reader of a pipe of
                    # the daemon would otherwise have to wait for the job, too.
                    stdin=child_socket.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except BaseException:
                self._socket.close()
                raise
        self._deadline = 0.0
        self.works = True

    def is_idle(self) -> bool:
        """Return whether the process is alive and waits for a job."""
        if not self.works or self._process.poll() is not None:
            return False
        self._socket.setblocking(False)
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # end of file, or data that was not requested

    def begin(self) -> None:
        """Wait until the process is ready; raise `RequestRefused` if it cannot start."""
        self._deadline = time.monotonic() + _START_SECONDS
        kind, body = self._receive(_MAX_MESSAGE_BYTES, f"did not start within {_START_SECONDS:g} s")
        if kind is not MessageKind.READY:
            self.works = False
            raise self._decode_refusal(body)

    def render(self, job: RenderJob) -> bytes:
        """Return the file of a job; raise `RequestRefused` if there is none."""
        message = encode_message(MessageKind.JOB, job.encode())
        self._deadline = time.monotonic() + job.seconds
        self.works = False  # until the result is here
        timeout_reason = f"took more than {job.seconds:g} s"
        try:
            self._socket.settimeout(job.seconds)
            self._socket.sendall(message)
        except TimeoutError:
            raise self._fail(timeout_reason, RenderTimeout) from None
        except OSError:
            raise self._fail(self._exit_reason()) from None
        max_size = max(job.max_size, _MAX_MESSAGE_BYTES)
        kind, body = self._receive(max_size, timeout_reason, RenderTimeout)
        if kind is MessageKind.FILE and len(body) <= job.max_size:
            self.works = True
            return body
        if kind not in (MessageKind.REFUSED, MessageKind.LAST):
            raise self._fail(_INVALID)
        refused = self._decode_refusal(body)
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

    def _receive(
        self,
        max_size: int,
        timeout_reason: str,
        timeout_class: type[RequestRefused] = RequestRefused,
    ) -> tuple[MessageKind, bytes]:
        try:
            return receive_message(self._read_exactly, max_size)
        except TimeoutError:
            raise self._fail(timeout_reason, timeout_class) from None
        except OSError:
            raise self._fail(self._exit_reason()) from None
        except InvalidMessage:
            raise self._fail(_INVALID) from None

    def _decode_refusal(self, body: bytes) -> RequestRefused:
        try:
            return decode_refusal(body)
        except InvalidMessage:
            raise self._fail(_INVALID) from None

    def _read_exactly(self, count: int) -> bytes:
        """Return the next `count` bytes; raise `OSError` at the end or the deadline."""
        data = bytearray()
        while len(data) < count:
            remaining = self._deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            self._socket.settimeout(remaining)
            chunk = self._socket.recv(min(count - len(data), _CHUNK_BYTES))
            if not chunk:
                raise ConnectionResetError
            data += chunk
        return bytes(data)

    def _fail(
        self, reason: str, error_class: type[RequestRefused] = RequestRefused
    ) -> RequestRefused:
        self.works = False
        return error_class(ErrorCode.NOT_DEFINED, reason, ErrorText.TEMPLATE_FAILED)

    def _exit_reason(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(_EXIT_SECONDS)
            if status < 0:
                return f"the render process was killed by {_signal_name(-status)}"
        return "the render process ended"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
