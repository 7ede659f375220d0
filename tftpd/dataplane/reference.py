"""The data plane in Python: the reference of the C extension, and its substitute.

Both have one class, `DataPlane`, with the same methods. A loan is one transfer that runs as
expected: a connected socket, a buffer, and the position in it. The plane knows only the datagram
that it expects next. It reads no files and has no timers.

| loan     | expected datagram              | answer                          |
| -------- | ------------------------------ | ------------------------------- |
| sender   | the ACK of the window in flight | the next window of the ring    |
| receiver | the next block, if it is full  | one ACK for each window         |

Anything else goes to the session unchanged: another block, a duplicate, an ERROR, the end of the
file. The session then takes the position back with `reclaim()`, handles the datagram, and may
lend the transfer again.
"""

import os
import select
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

_ACK = b"\x00\x04"
_DATA = b"\x00\x03"
_DATA_WORD = 3 << 16  # with the block number, the header of a block
_HEADER_BYTES = 4
_MAX_DATAGRAM_BYTES = 65536
_MAX_CONTROL_BYTES = 1024  # of the longest ERROR that is read completely
_MAX_BLOCK_NUMBER = 65535
_MAX_SOCKETS = 256  # in one round
_MAX_READS = 64  # of one socket in one round
_GRO_SIZE = struct.Struct("=i")  # the control message of UDP_GRO

Datagrams = Sequence[bytes] | None
"""Unexpected datagrams of a lent socket; empty if its buffer is used up; None if the socket is not
lent or has an ICMP error, so that it must be read."""

Event = tuple[int, int, Datagrams]
"""A descriptor, its events of epoll, and the datagrams."""

Position = tuple[int, int, float, float]
"""Position of a loan:

- the index of the last acknowledged block (sender), or the blocks in the buffer (receiver);
- how many of the latter have no ACK yet (receiver);
- the time of the last datagram that was served;
- the last round-trip time in seconds, negative before the first sample.
"""


class DataPlane:
    """The lent transfers of one epoll object. Only one thread may use a plane.

    All times are those of `time.monotonic()`.
    """

    def __init__(self, epoll: "select.epoll") -> None:
        """Initialize the plane with the epoll object that watches its sockets."""
        self._poll = epoll.poll
        self._loans: dict[int, _SenderLoan | _ReceiverLoan] = {}
        self._is_busy = False  # the last round has served a loan, and no loan has ended

    def lend_sender(
        self,
        fd: int,
        ring: bytearray,
        slot_bytes: int,
        windowsize: int,
        blocks: int,
        ready: int,
        last_bytes: int,
        moved_at: float,
    ) -> None:
        """Lend a sender. The whole window after block `blocks` is in flight and was sent once.

        Args:
            fd: Connected socket.
            ring: Ring of datagrams; block i is in slot (i - 1) modulo the number of slots.
            slot_bytes: Size of a slot, and of a full datagram.
            windowsize: Number of blocks for each ACK.
            blocks: Index of the last acknowledged block.
            ready: Index of the last block in the ring, greater than `blocks`.
            last_bytes: Size of datagram `ready` if it ends the file, else 0.
            moved_at: When the window in flight was sent.

        Raises:
            ValueError: The socket is lent already, or the position does not fit the ring.
        """
        self._check_free(fd)
        loan = _SenderLoan(fd, ring, slot_bytes, windowsize, blocks, moved_at)
        loan.refill(ready, last_bytes)
        self._loans[fd] = loan

    def lend_receiver(
        self,
        fd: int,
        buffer: bytearray,
        blksize: int,
        windowsize: int,
        number: int,
        moved_at: float,
    ) -> None:
        """Lend a receiver. All blocks that arrived are acknowledged, the last one once.

        Args:
            fd: Connected socket; with UDP_GRO if the window has more than one block.
            buffer: Takes as many blocks as fit. The plane starts at its begin.
            blksize: Size of a full block in bytes.
            windowsize: Number of blocks for each ACK.
            number: Number of the last block, at most 65535. The plane does not go beyond 65535.
            moved_at: When the last ACK was sent.

        Raises:
            ValueError: The socket is lent already, or an argument is out of its range.
        """
        self._check_free(fd)
        self._loans[fd] = _ReceiverLoan(fd, buffer, blksize, windowsize, number, moved_at)

    def refill(self, fd: int, ready: int = 0, last_bytes: int = 0) -> None:
        """Report that the ring of a sender has more blocks, or the buffer of a receiver is empty.

        Args:
            fd: Lent socket.
            ready: As for `lend_sender()`; any value for a receiver.
            last_bytes: The same.

        Raises:
            ValueError: The position does not fit the ring.
        """
        self._loans[fd].refill(ready, last_bytes)

    def look(self, fd: int) -> Position:
        """Return the position of a loan. KeyError: the socket is not lent."""
        loan = self._loans[fd]
        return loan.blocks, loan.unacknowledged, loan.moved_at, loan.round_trip

    def reclaim(self, fd: int) -> Position:
        """End a loan and return its position. Call this before the socket is closed."""
        position = self.look(fd)
        self._loans.pop(fd).close()
        self._is_busy = False
        return position

    def turn(
        self, seconds: float, linger: float, max_sockets: int
    ) -> tuple[list[Event], int, bool]:
        """Serve the lent sockets until another socket is ready, or a loan needs its session.

        Args:
            seconds: Time limit. The turn also ends when no socket is ready.
            linger: After a round that has served lent sockets, also in the last turn, wait so many
                seconds for the next datagram, at most 1 s. The answer of a client arrives in less
                time than the event loop needs to return here.
            max_sockets: Number of sockets in one round, at most 256.

        Returns:
            The sockets that need Python, the number of times that a lent socket was served, and
            True if more sockets may have been ready than were served in the last round.
        """
        poll, loans, error = self._poll, self._loans, select.EPOLLERR
        max_sockets = max(1, min(max_sockets, _MAX_SOCKETS))
        events: list[Event] = []
        served, until = 0, monotonic() + seconds
        while True:
            ready = poll(linger if self._is_busy else 0.0, max_sockets)
            now = monotonic()
            n_served = 0
            for fd, mask in ready:
                loan = None if mask & error else loans.get(fd)
                if loan is None:
                    events.append((fd, mask, None))
                    continue
                n_served += 1
                datagrams = loan.serve(now)
                if datagrams is not None:
                    events.append((fd, mask, datagrams))
            served += n_served
            self._is_busy = n_served > 0
            if events or not ready or now >= until:
                return events, served, len(ready) == max_sockets

    def _check_free(self, fd: int) -> None:
        if fd < 0 or fd in self._loans:
            raise ValueError(f"descriptor {fd} is lent already, or invalid")


class _SenderLoan:
    """A loan that sends the datagrams of a ring."""

    unacknowledged = 0

    def __init__(
        self,
        fd: int,
        ring: bytearray,
        slot_bytes: int,
        windowsize: int,
        blocks: int,
        moved_at: float,
    ) -> None:
        self._fd = fd
        self._ring = memoryview(ring)
        self._slot_bytes = slot_bytes
        self._slots = len(ring) // slot_bytes if slot_bytes >= _HEADER_BYTES else 0
        self._windowsize = windowsize
        self.blocks = blocks
        self.moved_at = moved_at
        self.round_trip = -1.0

    def refill(self, ready: int, last_bytes: int) -> None:
        """Take the index of the last block in the ring."""
        n_blocks = ready - self.blocks
        if not 0 < n_blocks <= self._slots or last_bytes > self._slot_bytes or not self._windowsize:
            raise ValueError("the position does not fit the buffer")
        self._ready, self._last_bytes = ready, last_bytes
        self._expect(min(self.blocks + self._windowsize, ready))

    def serve(self, now: float) -> Datagrams:
        """Read one datagram, and answer the expected ACK."""
        try:
            datagram = os.read(self._fd, _MAX_CONTROL_BYTES)
        except OSError:  # nothing is there
            return None
        if datagram != self._expected:
            return (datagram,)
        size, slots, acked = self._slot_bytes, self._slots, self._acked
        for index in range(acked, self._last):
            start = index % slots * size
            is_last = index + 1 == self._ready
            end = start + ((is_last and self._last_bytes) or size)
            try:
                os.write(self._fd, self._ring[start:end])
            except OSError:  # a lost datagram: the session's timer sends it again
                continue  # `suppress` takes 0.3 us
        self.blocks = acked
        self.round_trip, self.moved_at = now - self.moved_at, now
        self._expect(self._last)
        return None if self._expected or self._last_bytes else ()

    def close(self) -> None:
        """Release the ring."""
        self._ring.release()

    def _expect(self, acked: int) -> None:
        """Expect the ACK of this block, unless less than a window is ready behind it."""
        last = acked + self._windowsize
        if last > self._ready:
            last = self._ready if self._last_bytes else acked
        self._acked, self._last = acked, last
        start = (acked - 1) % self._slots * self._slot_bytes + 2
        self._expected = _ACK + self._ring[start : start + 2] if last > acked else None


class _ReceiverLoan:
    """A loan that collects blocks and acknowledges them."""

    def __init__(
        self,
        fd: int,
        buffer: bytearray,
        blksize: int,
        windowsize: int,
        number: int,
        moved_at: float,
    ) -> None:
        self._slots = len(buffer) // blksize if blksize else 0
        if not (self._slots and windowsize and number <= _MAX_BLOCK_NUMBER):
            raise ValueError("the position does not fit the buffer")
        self._fd = fd
        # Only recvmsg(2) tells the size of the datagrams of a burst.
        self._socket = socket.socket(fileno=os.dup(fd)) if windowsize > 1 else None
        self._buffer = memoryview(buffer)
        self._blksize = blksize
        self._full_bytes = blksize + _HEADER_BYTES
        self._max_bytes = self._full_bytes + _MAX_CONTROL_BYTES  # a longer block stays too long
        self._windowsize = windowsize
        self._number = number
        self.blocks = 0
        self.unacknowledged = 0
        self.moved_at = moved_at
        self.round_trip = -1.0

    def serve(self, now: float) -> Datagrams:
        """Read what has arrived of the window, and acknowledge it if it is complete."""
        if self._socket is None:
            return self._serve_block(now)
        for _ in range(_MAX_READS):
            datagrams = self._receive(self._socket)
            for index, datagram in enumerate(datagrams):
                if not self._accept(datagram, now):
                    return datagrams[index:]
                if self.blocks == self._slots:
                    return datagrams[index + 1 :]
            if not (datagrams and self.unacknowledged):
                break
        return None

    def refill(self, ready: int, last_bytes: int) -> None:
        """Start at the begin of the buffer again."""
        self.blocks = 0

    def close(self) -> None:
        """Release the second descriptor of the socket."""
        if self._socket is not None:
            self._socket.close()

    def _serve_block(self, now: float) -> Datagrams:
        """Do the same in lock-step, in half of the time."""
        try:
            datagram = os.read(self._fd, self._max_bytes)
        except OSError:  # nothing is there
            return None
        start, number = self.blocks * self._blksize, self._number + 1
        if (
            len(datagram) != self._full_bytes
            or datagram[:_HEADER_BYTES] != (_DATA_WORD | number).to_bytes(_HEADER_BYTES, "big")
            or number > _MAX_BLOCK_NUMBER
            or self.blocks == self._slots
        ):
            return (datagram,)
        self._buffer[start : start + self._blksize] = datagram[_HEADER_BYTES:]
        self.blocks += 1
        self._number = number
        self.round_trip, self.moved_at = now - self.moved_at, now
        result = () if self.blocks == self._slots else None
        try:  # `suppress` takes 0.3 us
            os.write(self._fd, _ACK + datagram[2:_HEADER_BYTES])
        except OSError:  # a lost ACK: the session's timer sends it again
            return result
        return result

    def _receive(self, sock: socket.socket) -> Sequence[bytes]:
        with suppress(OSError):
            data, ancillary, _, _ = sock.recvmsg(_MAX_DATAGRAM_BYTES, 64)
            if not ancillary:
                return (data,)
            (size,) = _GRO_SIZE.unpack(ancillary[0][2])
            return [data[start : start + size] for start in range(0, len(data), size)]
        return ()

    def _accept(self, datagram: bytes, now: float) -> bool:
        blksize, number = self._blksize, self._number + 1
        is_next = (
            len(datagram) == _HEADER_BYTES + blksize
            and number <= _MAX_BLOCK_NUMBER
            and self.blocks < self._slots
            and datagram.startswith(_DATA + number.to_bytes(2, "big"))
        )
        if not is_next:
            return False
        start = self.blocks * blksize
        self._buffer[start : start + blksize] = datagram[_HEADER_BYTES:]
        if not self.unacknowledged:
            self.round_trip = now - self.moved_at
        self.moved_at = now
        self.blocks += 1
        self._number = number
        self.unacknowledged += 1
        if self.unacknowledged == self._windowsize:
            self.unacknowledged = 0
            with suppress(OSError):  # a lost ACK: the session's timer sends it again
                os.write(self._fd, _ACK + number.to_bytes(2, "big"))
        return True
