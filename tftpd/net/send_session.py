"""A session that sends a file: a Sender, and the frames that a Source fills."""

from tftpd.net.session import Session
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.negotiation import Mode
from tftpd.protocol.packets import HEADER_BYTES, Opcode, decode
from tftpd.protocol.sender import Sender
from tftpd.storage.block_ring import BlockRing, NetasciiBlockRing
from tftpd.storage.source import FileLike

_ACK = Opcode.ACK.to_bytes(2, "big")


class SendSession(Session[Sender]):
    """Reads a window ahead, so that an ACK is answered from memory.

    Blocks in the page cache are read here and now; a cold page is waited
    for in a thread, and the other sessions go on.
    """

    def attach(self, source: FileLike) -> None:
        """The file to send, which this session closes. Comes before the port starts."""
        machine, terms = self.machine, self.machine.options
        kind = NetasciiBlockRing if terms.mode is Mode.NETASCII else BlockRing
        self._source = source
        self._frames = kind(source, terms.blksize, machine.buffer_blocks, terms.rollover)

    @property
    def size(self) -> int | None:
        """That of the file; netascii makes it longer by what nobody has counted."""
        return self._source.size if self.machine.options.mode is Mode.OCTET else None

    def _take(self, datagram: bytes, now: float) -> None:
        if datagram.startswith(_ACK) and len(datagram) >= HEADER_BYTES:
            self.machine.receive_ack(int.from_bytes(datagram[2:HEADER_BYTES], "big"), now)
        else:
            self.machine.receive(decode(datagram), now)

    def _advance(self, now: float) -> None:
        # What is in memory leaves first: while it is on its way and the
        # peer at work on it, there is time to read on.
        self._transmit(now)
        wants = self.machine.blocks_wanted
        if wants and not self._in_thread and not self.machine.closed:
            self._feed(wants)
            self._transmit(now)
        self._finish_turn(now)

    def _transmit(self, now: float) -> None:
        if self._shaper is not None and self._throttled(self._shaper, now):
            return
        said = self.machine.next_send(now)
        if said is None:
            return
        if isinstance(said, bytes):
            self.transport.writeBurst(said, len(said), self.peer)
            return
        frames = self._frames
        for octets in frames.datagrams(*said):
            self.transport.writeBurst(octets, frames.size, self.peer)
            if self._shaper is not None:
                self._shaper.spend(len(octets) * (1 + self.profile.duplicates))

    def _feed(self, wants: int) -> None:
        try:
            self._have_read(self._frames.fill(wants, wait=False))
        except BlockingIOError:
            self._run_in_thread(lambda: self._frames.fill(wants, wait=True), self._have_read)
        except RequestRefused as refused:
            self.machine.abort(refused)

    def _have_read(self, count: int) -> None:
        self.machine.blocks_ready(count, self._frames.last)

    def _close_file(self) -> None:
        self._source.close()
