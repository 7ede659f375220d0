"""A process that renders, as the daemon sees it."""

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
    framed,
    receive,
    refused_by,
)

# -P: nothing is imported from the directory that the daemon was started in.
_COMMAND = [sys.executable, "-P", "-m", "tftpd.templates.worker"]

_STARTS_WITHIN = 10.0  # seconds; some 0.1 where nothing else runs
_ENDS_WITHIN = 1.0  # seconds, once it has let go of its socket
_LONGEST = 64 << 10  # octets of a message that is no file
_CHUNK = 256 << 10  # octets received at once

_NONSENSE = "its process said what it should not"


class RenderTimeout(RequestRefused):
    """The job took too long."""


class RenderProcess:
    """Takes one job at a time, from one thread at a time; any may call `kill()`.

    It is started at once: raises `OSError` where that cannot be.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    _COMMAND,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    # Of ours it holds nothing: whoever waits for the end of a pipe
                    # of the daemon's would wait for a job too.
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except BaseException:
                ours.close()
                raise
        self._socket = ours
        self._deadline = 0.0
        self.works = True
        """Whether it can be given a job, as far as is known."""

    @property
    def idles(self) -> bool:
        """Whether it waits for a job, and nobody has ended it meanwhile."""
        if not self.works or self._process.poll() is not None:
            return False
        self._socket.setblocking(False)
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # that was its end, or what nobody asked for

    def begin(self) -> None:
        """Wait until it is ready; raises `Refused`."""
        self._deadline = time.monotonic() + _STARTS_WITHIN
        kind, body = self._next(_LONGEST, f"did not start within {_STARTS_WITHIN:g} s")
        if kind is not MessageKind.READY:
            self.works = False
            raise self._refused(body)

    def ask(self, job: RenderJob) -> bytes:
        """The file that `job` is for; raises `Refused`."""
        message = framed(MessageKind.JOB, job.encode())
        self._deadline = time.monotonic() + job.seconds
        self.works = False  # until it has answered
        late = f"took more than {job.seconds:g} s"
        try:
            self._socket.settimeout(job.seconds)
            self._socket.sendall(message)
        except TimeoutError:
            raise self._failed(late, RenderTimeout) from None
        except OSError:
            raise self._failed(self._ended()) from None
        kind, body = self._next(max(job.size, _LONGEST), late, RenderTimeout)
        if kind is MessageKind.FILE and len(body) <= job.size:
            self.works = True
            return body
        if kind not in (MessageKind.REFUSED, MessageKind.LAST):
            raise self._failed(_NONSENSE)
        refused = self._refused(body)
        self.works = kind is MessageKind.REFUSED
        raise refused

    def kill(self) -> None:
        """End it, whatever it does; who waits for it is refused."""
        self._process.kill()

    def close(self) -> None:
        """Have it end, and free what it holds; idempotent."""
        self.works = False
        self._socket.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # a disk that hangs may hold it
            self._process.wait(_ENDS_WITHIN)

    def _next(
        self, longest: int, late: str, kind: type[RequestRefused] = RequestRefused
    ) -> tuple[MessageKind, bytes]:
        try:
            return receive(self._take, longest)
        except TimeoutError:
            raise self._failed(late, kind) from None
        except OSError:
            raise self._failed(self._ended()) from None
        except InvalidMessage:
            raise self._failed(_NONSENSE) from None

    def _refused(self, body: bytes) -> RequestRefused:
        """What it said; raises `Refused` where that was nothing."""
        try:
            return refused_by(body)
        except InvalidMessage:
            raise self._failed(_NONSENSE) from None

    def _take(self, count: int) -> bytes:
        """The next `count` octets; raises `OSError` where none come any more."""
        octets = bytearray()
        while len(octets) < count:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            got = self._socket.recv(min(count - len(octets), _CHUNK))
            if not got:
                raise ConnectionResetError
            octets += got
        return bytes(octets)

    def _failed(self, why: str, kind: type[RequestRefused] = RequestRefused) -> RequestRefused:
        self.works = False
        return kind(ErrorCode.NOT_DEFINED, why, ErrorText.TEMPLATE_FAILED)

    def _ended(self) -> str:
        """Why it is gone."""
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(_ENDS_WITHIN)
            if status < 0:
                return f"its process was ended by {_named(-status)}"
        return "its process ended"


def _named(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
