"""A link in simulated time: seeded loss, a bottleneck, and the queue before it."""

import heapq
import random
from dataclasses import dataclass
from math import inf

from tftpd.protocol.block_numbers import BlockNumbering
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import Data, decode
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer
from tftpd.protocol.sender import Sender

BLKSIZE = 1468
_TICK = 0.001  # seconds: what a reactor's timers are good for
_PATIENCE = 1.0  # seconds: the timer of the client


@dataclass(frozen=True)
class Measured:
    """How a transfer went: octets per second, and packets sent for each block."""

    goodput: float
    sent: float
    outcome: Outcome | None


class Link:
    """Between a Sender and a client that is a Receiver with a slow timer.

    `loss` is the share of packets lost either way, `rate` the octets per
    second of the bottleneck and `queue` the packets that wait before it.
    The client answers up to `late` seconds late, by chance.
    """

    def __init__(
        self,
        loss: float = 0.0,
        rate: float = 100e6,
        queue: float = inf,
        roundtrip: float = 0.001,
        late: float = 0.0,
        seed: int = 1,
    ) -> None:
        self._loss, self._rate, self._queue = loss, rate, queue
        self._transit = roundtrip / 2
        self._late = late
        self._dice = random.Random(seed)
        self._now = 0.0
        self._busy = 0.0  # until when the bottleneck is
        self._packets: list[tuple[float, int, bool, bytes]] = []
        self._sent = 0
        self._order = 0
        self._numbering = BlockNumbering()

    def transfer(self, octets: int, windowsize: int) -> Measured:
        """Send a file; ends in any case, by the patience of both."""
        terms = TransferOptions(blksize=BLKSIZE, windowsize=windowsize)
        timer = RetransmitTimer(RetransmitPolicy(), None, windowsize, self._dice.random)
        timer.on_rtt_sample(2 * self._transit)  # as the OACK's ACK would have shown
        sender = Sender(terms, timer, 0.0)
        receiver = Receiver(terms, RetransmitTimer(RetransmitPolicy(), _PATIENCE), 0.0)
        receiver.next_send(0.0)  # stands for the request
        whole, self._last = divmod(octets, BLKSIZE)
        self._blocks = whole + 1
        sender.blocks_ready(self._blocks, self._last)
        self._carry(sender)
        while not sender.closed:
            self._step(sender, receiver)
        return Measured(octets / self._now, self._sent / self._blocks, sender.outcome)

    def _step(self, sender: Sender, receiver: Receiver) -> None:
        arrival = self._packets[0][0] if self._packets else inf
        alarm = min((sender.deadline // _TICK + 1) * _TICK, receiver.deadline)
        self._now = max(self._now, min(arrival, alarm))
        if arrival <= alarm:
            _, _, to_receiver, datagram = heapq.heappop(self._packets)
            (receiver if to_receiver else sender).receive(decode(datagram), self._now)
        else:
            sender.on_timeout(self._now)
            receiver.on_timeout(self._now)
        receiver.take_payloads()
        if receiver.complete and receiver.outcome is None:
            receiver.on_stored(self._now)
        datagram = receiver.next_send(self._now)
        if datagram is not None:
            late = self._dice.random() * self._late if self._late else 0.0
            self._put(datagram, self._now + self._transit + late, to_receiver=False)
        self._carry(sender)

    def _carry(self, sender: Sender) -> None:
        burst = sender.next_send(self._now)
        if not isinstance(burst, tuple):
            return
        first, count = burst
        for index in range(first, first + count):
            payload = bytes(self._last if index == self._blocks else BLKSIZE)
            datagram = Data(self._numbering.to_wire(index), payload).encode()
            self._sent += 1
            waiting = max(0.0, self._busy - self._now) * self._rate / len(datagram)
            if waiting < self._queue:
                self._busy = max(self._busy, self._now) + len(datagram) / self._rate
                self._put(datagram, self._busy + self._transit, to_receiver=True)

    def _put(self, datagram: bytes, at: float, to_receiver: bool) -> None:
        if self._dice.random() >= self._loss:
            self._order += 1
            heapq.heappush(self._packets, (at, self._order, to_receiver, datagram))
