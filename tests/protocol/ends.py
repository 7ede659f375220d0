"""Sender and receiver on a fake clock, for tests that read like packet traces."""

from collections.abc import Iterable, Sequence
from math import inf

from tftpd.protocol.block_numbers import BlockNumbering
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import Data, Packet, decode
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer
from tftpd.protocol.sender import Sender

TRANSIT_SECONDS = 0.001  # time of a packet from one end to the other

OACK = ((b"blksize", b"4"), (b"tsize", b"0"))

# The ends in these tests never repeat their request. Therefore the first packet is repeated as
# long as all others.
POLICY = RetransmitPolicy(
    min_interval=0.25,
    max_interval=8.0,
    initial_interval=1.0,
    idle_timeout=30.0,
    dally=12.0,
    max_unanswered_sends=None,
)


def split_blocks(content: bytes, blksize: int) -> list[bytes]:
    """Return the blocks of `content`, the last of which is short or empty."""
    return [content[at : at + blksize] for at in range(0, len(content) + 1, blksize)]


def decode_output(output: bytes | None) -> list[Packet]:
    """Return the packet of a `next_send()` that returned no range of blocks."""
    return [] if output is None else [decode(output)]


class SenderEnd:
    """A `Sender` with a file and a clock."""

    def __init__(
        self, content: bytes, options: TransferOptions, policy: RetransmitPolicy = POLICY
    ) -> None:
        self.now = 100.0
        self.machine = Sender(
            options, RetransmitTimer(policy, options.timeout, uniform=lambda: 0.0), self.now
        )
        self.readable: float = inf  # number of blocks that the disk can deliver
        self._blocks = split_blocks(content, options.blksize)
        self._read = 0
        self._numbering = BlockNumbering(options.rollover, self.machine.first_block)

    def send(self) -> list[Packet]:
        """Read the wanted blocks and return the packets that are sent now."""
        count = int(
            min(
                self.machine.blocks_wanted,
                len(self._blocks) - self._read,
                self.readable - self._read,
            )
        )
        if count:
            self._read += count
            at_end = self._read == len(self._blocks)
            self.machine.blocks_ready(count, len(self._blocks[-1]) if at_end else None)
        output = self.machine.next_send(self.now)
        if not isinstance(output, tuple):
            return decode_output(output)
        first, count = output
        indexes = range(first, first + count)
        assert indexes[-1] <= self._read
        return [Data(self._numbering.to_wire(index), self._blocks[index - 1]) for index in indexes]

    def receive(self, packet: Packet, after: float = TRANSIT_SECONDS) -> list[Packet]:
        """Receive a packet `after` seconds and return the packets that are sent then."""
        self.now += after
        self.machine.receive(packet, self.now)
        return self.send()

    def advance(self, seconds: float) -> list[Packet]:
        """Advance the clock and return the packets that are sent then."""
        self.now += seconds
        self.machine.on_timeout(self.now)
        return self.send()


class ReceiverEnd:
    """A `Receiver` with a clock. Its file is stored at once, unless `slow` is True."""

    def __init__(
        self, options: TransferOptions, policy: RetransmitPolicy = POLICY, slow: bool = False
    ) -> None:
        self.now = 100.0
        self.machine = Receiver(
            options, RetransmitTimer(policy, options.timeout, uniform=lambda: 0.0), self.now
        )
        self.content = b""
        self._slow = slow

    def send(self) -> list[Packet]:
        """Return the packets that are sent now."""
        self.content += b"".join(self.machine.take_payloads())
        if self.machine.complete and self.machine.outcome is None and not self._slow:
            self.machine.on_stored(self.now)
        return decode_output(self.machine.next_send(self.now))

    def receive(self, *packets: Packet, after: float = TRANSIT_SECONDS) -> list[Packet]:
        """Receive packets, each `after` seconds, and return the packets that are sent then."""
        sent = []
        for packet in packets:
            self.now += after
            self.machine.receive(packet, self.now)
            sent += self.send()
        return sent

    def advance(self, seconds: float) -> list[Packet]:
        """Advance the clock and return the packets that are sent then."""
        self.now += seconds
        self.machine.on_timeout(self.now)
        return self.send()

    def answer_repeated_oack(self) -> list[Packet]:
        """Return the answer of a client to a repeated OACK: its ACK 0 again."""
        self.machine.on_request_repeated(self.now)
        return self.send()


def data_packets(first: int, *payloads: bytes) -> list[Packet]:
    """Return DATA packets with consecutive block numbers."""
    return [Data(first + at, payload) for at, payload in enumerate(payloads)]


class ConnectedEnds:
    """A sender and a receiver on a link that loses, duplicates or delays packets.

    `lost`, `duplicated` and `delayed` contain packet numbers, counted from 0 over both
    directions in the order of sending.
    """

    def __init__(
        self,
        content: bytes,
        options: TransferOptions,
        lost: Iterable[int] = (),
        duplicated: Iterable[int] = (),
        delayed: Iterable[int] = (),
    ) -> None:
        self.sender = SenderEnd(content, options)
        self.receiver = ReceiverEnd(
            TransferOptions(
                blksize=options.blksize, windowsize=options.windowsize, rollover=options.rollover
            )
        )
        self.packet_count = 0
        self.received_data_count = 0
        self._has_oack = bool(options.oack)
        self._lost, self._duplicated, self._delayed = set(lost), set(duplicated), set(delayed)
        self._in_flight: list[tuple[float, int, bool, Packet]] = []

    def run(self, max_steps: int = 5000) -> None:
        """Run until both ends are closed. Fail after `max_steps`."""
        if not self._has_oack:  # the request was the first packet of the receiver
            self.receiver.send()
        self._put(self.sender.send(), to_receiver=True)
        for _ in range(max_steps):
            if self.sender.machine.closed and self.receiver.machine.closed:
                return
            self._step()
        raise AssertionError("the transfer does not end")

    def _step(self) -> None:
        ends = (self.sender, self.receiver)
        times = [at for at, *_ in self._in_flight]
        times += [end.machine.deadline for end in ends]
        now = min(times)
        for end in ends:
            end.now = max(end.now, now)
        arrived = sorted(entry for entry in self._in_flight if entry[0] <= now)
        self._in_flight = [entry for entry in self._in_flight if entry[0] > now]
        for _, _, to_receiver, packet in arrived:
            if to_receiver:
                self._put(self._deliver_to_receiver(packet), to_receiver=False)
            else:
                self._put(self.sender.receive(packet, after=0), to_receiver=True)
        self._put(self.sender.advance(0), to_receiver=True)
        self._put(self.receiver.advance(0), to_receiver=False)

    def _deliver_to_receiver(self, packet: Packet) -> list[Packet]:
        if isinstance(packet, Data):
            self.received_data_count += 1
            return self.receiver.receive(packet, after=0)
        return self.receiver.send() or self.receiver.answer_repeated_oack()

    def _put(self, packets: Sequence[Packet], to_receiver: bool) -> None:
        for packet in packets:
            number = self.packet_count
            self.packet_count += 1
            if number in self._lost:
                continue
            transit = TRANSIT_SECONDS * (3.5 if number in self._delayed else 1)
            copies = 2 if number in self._duplicated else 1
            for copy in range(copies):
                at = max(self.sender.now, self.receiver.now) + transit * (1 + copy)
                self._in_flight.append((at, number, to_receiver, packet))
