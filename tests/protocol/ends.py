"""Both machines on a fake clock, for tests that read like packet traces."""

from collections.abc import Iterable, Sequence
from math import inf

from tftpd.protocol.block_numbers import BlockNumbering
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import Data, Packet, decode
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer
from tftpd.protocol.sender import Sender

TRANSIT = 0.001  # seconds that a packet is on its way between joined ends

OACK = ((b"blksize", b"4"), (b"tsize", b"0"))

# Ends that are joined here never ask again, so their first packets are
# repeated for as long as all others.
TIMING = RetransmitPolicy(
    min_interval=0.25,
    max_interval=8.0,
    initial_interval=1.0,
    idle_timeout=30.0,
    dally=12.0,
    max_unanswered_sends=None,
)


def cut(content: bytes, blksize: int) -> list[bytes]:
    """The blocks of `content`, the last of which is short or empty."""
    return [content[at : at + blksize] for at in range(0, len(content) + 1, blksize)]


def said(outbox: bytes | None) -> list[Packet]:
    """What an outbox gave that is no burst."""
    return [] if outbox is None else [decode(outbox)]


class SenderEnd:
    """A Sender with a file to feed on, and its clock."""

    def __init__(
        self, content: bytes, terms: TransferOptions, timing: RetransmitPolicy = TIMING
    ) -> None:
        self.now = 100.0
        self.machine = Sender(
            terms, RetransmitTimer(timing, terms.timeout, uniform=lambda: 0.0), self.now
        )
        self._blocks = cut(content, terms.blksize)
        self._fed = 0
        self.readable = inf  # blocks that the disk will have read
        self._numbering = BlockNumbering(terms.rollover)

    def sends(self) -> list[Packet]:
        """What leaves now, with the file fed as far as the machine wants."""
        more = min(
            self.machine.blocks_wanted, len(self._blocks) - self._fed, self.readable - self._fed
        )
        if more:
            more = int(more)
            self._fed += more
            whole = self._fed == len(self._blocks)
            self.machine.blocks_ready(more, len(self._blocks[-1]) if whole else None)
        outbox = self.machine.next_send(self.now)
        if not isinstance(outbox, tuple):
            return said(outbox)
        first, count = outbox
        indexes = range(first, first + count)
        assert indexes[-1] <= self._fed
        return [Data(self._numbering.to_wire(index), self._blocks[index - 1]) for index in indexes]

    def hears(self, packet: Packet, after: float = TRANSIT) -> list[Packet]:
        """What leaves once `packet` has come, `after` seconds later."""
        self.now += after
        self.machine.receive(packet, self.now)
        return self.sends()

    def waits(self, seconds: float) -> list[Packet]:
        """What leaves when time alone passes."""
        self.now += seconds
        self.machine.on_timeout(self.now)
        return self.sends()


class ReceiverEnd:
    """A Receiver whose file is stored at once, unless `slow`."""

    def __init__(
        self, terms: TransferOptions, timing: RetransmitPolicy = TIMING, slow: bool = False
    ) -> None:
        self.now = 100.0
        self.machine = Receiver(
            terms, RetransmitTimer(timing, terms.timeout, uniform=lambda: 0.0), self.now
        )
        self.content = b""
        self._slow = slow

    def sends(self) -> list[Packet]:
        """What leaves now."""
        self.content += b"".join(self.machine.take_payloads())
        if self.machine.complete and self.machine.outcome is None and not self._slow:
            self.machine.on_stored(self.now)
        return said(self.machine.next_send(self.now))

    def hears(self, *packets: Packet, after: float = TRANSIT) -> list[Packet]:
        """What leaves once `packets` have come one after the other."""
        sent = []
        for packet in packets:
            self.now += after
            self.machine.receive(packet, self.now)
            sent += self.sends()
        return sent

    def waits(self, seconds: float) -> list[Packet]:
        """What leaves when time alone passes."""
        self.now += seconds
        self.machine.on_timeout(self.now)
        return self.sends()


def window(first: int, *payloads: bytes) -> list[Packet]:
    """DATA packets numbered from `first`."""
    return [Data(first + at, payload) for at, payload in enumerate(payloads)]


class Joined:
    """Both ends back to back on a wire that loses, repeats or reorders.

    `lost`, `repeated` and `late` hold the ordinals of the packets, counted
    over both directions in the order in which they are sent.
    """

    def __init__(
        self,
        content: bytes,
        terms: TransferOptions,
        lost: Iterable[int] = (),
        repeated: Iterable[int] = (),
        late: Iterable[int] = (),
    ) -> None:
        self.sender = SenderEnd(content, terms)
        self.receiver = ReceiverEnd(
            TransferOptions(
                blksize=terms.blksize, windowsize=terms.windowsize, rollover=terms.rollover
            )
        )
        self.count = 0
        self.data = 0
        self._opened = not terms.oack
        self._lost, self._repeated, self._late = set(lost), set(repeated), set(late)
        self._wire: list[tuple[float, int, bool, Packet]] = []

    def run(self, steps: int = 5000) -> None:
        """Run until both ends are over; fails where that takes too many steps."""
        if self._opened:  # the request itself was the receiver's first packet
            self.receiver.sends()
        self._put(self.sender.sends(), to_receiver=True)
        for _ in range(steps):
            if self.sender.machine.closed and self.receiver.machine.closed:
                return
            self._step()
        raise AssertionError("the transfer does not end")

    def _step(self) -> None:
        ends = (self.sender, self.receiver)
        times = [at for at, *_ in self._wire]
        times += [end.machine.deadline for end in ends]
        now = min(times)
        for end in ends:
            end.now = max(end.now, now)
        arrived = sorted(entry for entry in self._wire if entry[0] <= now)
        self._wire = [entry for entry in self._wire if entry[0] > now]
        for _, _, to_receiver, packet in arrived:
            if to_receiver:
                self._put(self._received(packet), to_receiver=False)
            else:
                self._put(self.sender.hears(packet, after=0), to_receiver=True)
        self._put(self.sender.waits(0), to_receiver=True)
        self._put(self.receiver.waits(0), to_receiver=False)

    def _received(self, packet: Packet) -> list[Packet]:
        if isinstance(packet, Data):
            self.data += 1
            return self.receiver.hears(packet, after=0)
        return self.receiver.sends() or spelled_again(self.receiver)

    def _put(self, packets: Sequence[Packet], to_receiver: bool) -> None:
        for packet in packets:
            ordinal = self.count
            self.count += 1
            if ordinal in self._lost:
                continue
            transit = TRANSIT * (3.5 if ordinal in self._late else 1)
            copies = 2 if ordinal in self._repeated else 1
            for copy in range(copies):
                at = max(self.sender.now, self.receiver.now) + transit * (1 + copy)
                self._wire.append((at, ordinal, to_receiver, packet))


def spelled_again(receiver: ReceiverEnd) -> list[Packet]:
    """What a client answers to a repeated OACK: its ACK 0 again."""
    receiver.machine.on_request_repeated(receiver.now)
    return receiver.sends()
