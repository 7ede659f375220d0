"""Send a part of a file as the body of a response, a bounded part in each turn of the reactor.

`SendfileBody` is for files on disk and connections without TLS: the kernel copies from the page
cache to the socket. `CopiedBody` is for all other files.
"""

import os
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from tftpd.net.interfaces import SessionRuntime
from tftpd.net.rate_limit import TrafficShaper
from tftpd.storage.source import FileLike, file_changed

# One call takes up to 0.7 ms, and TFTP is served between the calls. With 256 KiB one client got
# half of the throughput, because each call costs a turn of the reactor.
_SENDFILE_BYTES = 1 << 20
_COPY_BYTES = 64 << 10  # the size at which a transport asks its producer to pause

OnEnd = Callable[[Exception | None], None]
"""Called at the end of a body: None if all of it was sent, or the reason why not."""


class BodyConnection(Protocol):
    """Connection that a body is sent on.

    Attributes:
        transport: Its transport.
    """

    transport: Any

    def write(self, data: bytes) -> None:
        """Send data."""

    def when_writable(self, action: Callable[[], None]) -> None:
        """Call `action` later, when the transport takes more data."""


class Body:
    """Part of a file that is being sent. The base class has what is left and the pauses.

    Attributes:
        sent: Number of bytes that the transport or the kernel has taken.
        moved_at: Time at which it took the last ones; infinite while a disk or an origin is the
            reason for the pause.
    """

    def __init__(
        self,
        runtime: SessionRuntime,
        source: FileLike,
        part: tuple[int, int],
        shaper: TrafficShaper | None,
        on_end: OnEnd,
    ) -> None:
        """Initialize the body.

        Args:
            runtime: Clock and threads.
            source: The open file; its owner closes it.
            part: Positions of the first byte and after the last one. It is not empty.
            shaper: Limits the rate.
            on_end: Called once, unless `stop()` was called before.
        """
        self._runtime = runtime
        self._source = source
        self._position, self._end = part
        self._shaper = shaper
        self._on_end = on_end
        self._is_stopped = False
        self.sent = 0
        self.moved_at = runtime.clock.seconds()

    def start(self) -> None:
        """Start to send."""
        self._send()

    def stop(self) -> None:
        """Send nothing from now on; idempotent."""
        self._is_stopped = True

    def _send(self) -> None:
        """Send the next bytes if that does not block; overridden."""
        raise NotImplementedError

    def _resume(self) -> None:
        if not self._is_stopped:
            self.moved_at = self._runtime.clock.seconds()
            self._send()

    def _count(self, n_bytes: int) -> float:
        """Count bytes that were sent; return the seconds to pause."""
        self.sent += n_bytes
        self._position += n_bytes
        now = self.moved_at = self._runtime.clock.seconds()
        if self._shaper is None:
            return 0.0
        self._shaper.spend(n_bytes)
        return max(0.0, self._shaper.until - now)

    def _wait_for_data(self, n_bytes: int) -> None:
        """Continue when the next bytes can be read without blocking."""
        self.moved_at = float("inf")
        source, position = self._source, self._position
        if source.when_readable(position, self._resume):
            return
        buffer = memoryview(bytearray(n_bytes))

        def read() -> memoryview:
            return buffer[: source.read([buffer], position, blocking=True)]

        done = self._runtime.run_file_call(read, source.blocking_device)
        done.addCallbacks(self._loaded, self._load_failed)

    def _loaded(self, data: memoryview) -> None:
        """Continue after a thread has read the next bytes."""
        self._resume()

    def _load_failed(self, failure: Failure) -> None:
        self._finish(failure.value if isinstance(failure.value, Exception) else None)

    def _check_unchanged(self) -> None:
        """Raise `RequestRefused` if the file has changed; called before the last bytes."""
        if self._source.blocking_device is None and self._source.is_touched():
            raise file_changed()

    def _finish(self, reason: Exception | None) -> None:
        if not self._is_stopped:
            self.stop()
            self._on_end(reason)


class CopiedBody(Body):
    """Body that is read into memory and written to the transport."""

    def __init__(self, connection: BodyConnection, *arguments: Any) -> None:
        """Initialize the body.

        Args:
            connection: The connection.
            *arguments: See `Body`.
        """
        super().__init__(*arguments)
        self._connection = connection

    def _send(self) -> None:
        n_bytes = min(_COPY_BYTES, self._end - self._position)
        buffer = memoryview(bytearray(n_bytes))
        try:
            n_bytes = self._source.read([buffer], self._position, blocking=False)
        except BlockingIOError:
            self._wait_for_data(n_bytes)
        except Exception as error:
            self._finish(error)
        else:
            self._write(buffer[:n_bytes])

    def _loaded(self, data: memoryview) -> None:
        if not self._is_stopped:
            self._write(data)

    def _write(self, data: memoryview) -> None:
        try:
            if self._position + len(data) >= self._end:
                self._check_unchanged()
        except Exception as error:
            self._finish(error)
            return
        self._connection.write(bytes(data))
        delay = self._count(len(data))
        if self._position >= self._end:
            self._finish(None)
        elif delay:
            self._runtime.clock.callLater(delay, self._resume_when_writable)
        else:
            self._resume_when_writable()

    def _resume_when_writable(self) -> None:
        if not self._is_stopped:
            self._connection.when_writable(self._resume)


@implementer(IWriteDescriptor)
class SendfileBody(Body):
    """Body that the kernel copies from the file to the socket (sendfile(2)).

    The reactor watches a duplicate of the socket's descriptor, so that the transport stays as it
    is. The headers are sent first: the transport has them in its buffer.
    """

    def __init__(self, connection: BodyConnection, reactor: Any, *arguments: Any) -> None:
        """Initialize the body.

        Args:
            connection: The connection.
            reactor: The reactor.
            *arguments: See `Body`.
        """
        super().__init__(*arguments)
        self._transport = connection.transport
        self._reactor = reactor
        self._fd = -1
        self._loaded_until = 0  # a thread has read the file up to here
        self._byte = [memoryview(bytearray(1))]

    def start(self) -> None:
        """Start to send."""
        self._fd = os.dup(self._transport.fileno())
        self._transport.doWrite()
        self._reactor.addWriter(self)
        self._send()

    def stop(self) -> None:
        """Send nothing from now on; idempotent."""
        super().stop()
        if self._fd >= 0:
            self._reactor.removeWriter(self)
            fd, self._fd = self._fd, -1
            os.close(fd)

    def fileno(self) -> int:
        """Twisted: return the descriptor to watch."""
        return self._fd

    def logPrefix(self) -> str:
        """Twisted: return the name of this writer in the reactor's log."""
        return "sendfile"

    def connectionLost(self, reason: Failure) -> None:
        """Twisted: the connection has ended; the transport notices it, too."""
        self._finish(ConnectionError())

    def doWrite(self) -> None:
        """Twisted: the socket takes more data."""
        self._send()

    def _resume(self) -> None:
        if not self._is_stopped:
            self.moved_at = self._runtime.clock.seconds()
            self._reactor.addWriter(self)

    def _send(self) -> None:
        if self._transport.dataBuffer:
            return  # the headers, which the transport sends first
        n_bytes = min(_SENDFILE_BYTES, self._end - self._position)
        try:
            last = self._position + n_bytes
            if last > self._loaded_until:
                # Probe the last byte: a read from the disk would stop the reactor.
                self._source.read(self._byte, last - 1, blocking=False)
            if last == self._end:
                self._check_unchanged()
        except BlockingIOError:
            self._loaded_until = last
            self._reactor.removeWriter(self)
            self._wait_for_data(n_bytes)
            return
        except Exception as error:
            self._finish(error)
            return
        try:
            n_bytes = os.sendfile(self._fd, self._source.fileno(), self._position, n_bytes)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(ConnectionError(str(error)))
            return
        if not n_bytes:
            self._finish(file_changed())
            return
        delay = self._count(n_bytes)
        if self._position >= self._end:
            self._finish(None)
        elif delay:
            self._reactor.removeWriter(self)
            self._runtime.clock.callLater(delay, self._resume)
