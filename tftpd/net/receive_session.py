"""A session that receives a file: a Receiver, and the Sink that it fills."""

from collections.abc import Callable, Sequence
from typing import Protocol

from tftpd.net.session import Session
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.packets import HEADER_BYTES, Opcode, decode
from tftpd.protocol.receiver import Receiver

_DATA = Opcode.DATA.to_bytes(2, "big")


class UploadSink(Protocol):
    """What takes the octets, most often a `Sink`. All but `discard` raise `Refused`."""

    def append(self, payloads: Sequence[bytes], /) -> None: ...

    def flush_if_full(self) -> None: ...

    def commit(self) -> None: ...

    def discard(self) -> None: ...


class ReceiveSession(Session[Receiver]):
    """Writes what comes in order; stores the file before the last ACK leaves.

    `fsync` and the rename take their time, in a thread; meanwhile a peer
    that repeats its last block hears nothing, then the ACK.
    """

    def attach(self, sink: UploadSink) -> None:
        """The file to fill, which this session closes. Comes before the port starts."""
        self._sink = sink

    @property
    def size(self) -> int | None:
        """What the other end announced by `tsize`."""
        return self.machine.options.tsize

    def _take(self, datagram: bytes, now: float) -> None:
        if datagram.startswith(_DATA) and len(datagram) >= HEADER_BYTES:
            if self._held:
                return  # a peer that does not wait for its ACK
            number = int.from_bytes(datagram[2:HEADER_BYTES], "big")
            self.machine.receive_data(number, datagram[HEADER_BYTES:], now)
        else:
            self.machine.receive(decode(datagram), now)

    def _expects_more(self) -> bool:
        # The timer need not be set: a deadline only moves away meanwhile.
        return self.machine.mid_window

    def _advance(self, now: float) -> None:
        payloads = self.machine.take_payloads()
        if payloads:
            self._store(self._sink.append, payloads)
            if self._shaper is not None:
                self._shaper.spend(sum(map(len, payloads)))
            # The ACK leaves first: while the peer is at work on the next
            # window, there is time to write.
            self._transmit(now)
            if not self.machine.closed:
                self._store(self._sink.flush_if_full)
        self._transmit(now)
        if self.machine.complete and self.running and not self._in_thread:
            self._run_in_thread(self._sink.commit, self._have_stored)
        self._finish_turn(now)

    def _transmit(self, now: float) -> None:
        if self.machine.mid_window:
            return  # a window comes whole: its ACK is what waits
        if self._shaper is not None and self._throttled(self._shaper, now):
            return
        datagram = self.machine.next_send(now)
        if datagram is not None:
            self.transport.writeBurst(datagram, len(datagram), self.peer)

    def _store(self, step: Callable[..., None], *arguments: list[bytes]) -> None:
        try:
            step(*arguments)
        except RequestRefused as refused:
            self.machine.abort(refused)

    def _have_stored(self, _: None) -> None:
        self.machine.on_stored(self._seconds())

    def _close_file(self) -> None:
        self._sink.discard()
