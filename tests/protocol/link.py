"""Simulated link with random loss, a bottleneck and a queue before it, in simulated time."""

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
_TIMER_RESOLUTION_SECONDS = 0.001  # as precise as the timers of a reactor
_CLIENT_TIMEOUT_SECONDS = 1.0


@dataclass(frozen=True)
class LinkResult:
    """Result of a transfer: bytes per second, packets sent per block, and the outcome."""

    goodput: float
    sends_per_block: float
    outcome: Outcome | None


class Link:
    """A link between a `Sender` and a client, which is a `Receiver` with a slow timer.

    Args:
        loss: Share of packets that are lost, in both directions.
        rate: Rate of the bottleneck in bytes per second.
        queue: Number of packets that fit into the queue before the bottleneck.
        rtt: Round-trip time in seconds.
        max_delay: Maximum of the client's random delay in seconds.
        seed: Seed of the random numbers.
    """

    def __init__(
        self,
        loss: float = 0.0,
        rate: float = 100e6,
        queue: float = inf,
        rtt: float = 0.001,
        max_delay: float = 0.0,
        seed: int = 1,
    ) -> None:
        self._loss, self._rate, self._queue = loss, rate, queue
        self._transit = rtt / 2
        self._max_delay = max_delay
        self._random = random.Random(seed)
        self._now = 0.0
        self._busy_until = 0.0  # end of the bottleneck's current work
        self._in_flight: list[tuple[float, int, bool, bytes]] = []
        self._sent = 0
        self._order = 0
        self._numbering = BlockNumbering()

    def transfer(self, size: int, windowsize: int) -> LinkResult:
        """Send a file of `size` bytes. The transfer ends at the latest by a timeout."""
        options = TransferOptions(blksize=BLKSIZE, windowsize=windowsize)
        timer = RetransmitTimer(RetransmitPolicy(), None, windowsize, self._random.random)
        timer.on_rtt_sample(2 * self._transit)  # as from the ACK of an OACK
        sender = Sender(options, timer, 0.0)
        client_timer = RetransmitTimer(RetransmitPolicy(), _CLIENT_TIMEOUT_SECONDS)
        receiver = Receiver(options, client_timer, 0.0)
        receiver.next_send(0.0)  # stands for the request
        full_blocks, self._last_size = divmod(size, BLKSIZE)
        self._blocks = full_blocks + 1
        sender.blocks_ready(self._blocks, self._last_size)
        self._send_blocks(sender)
        while not sender.closed:
            self._step(sender, receiver)
        return LinkResult(size / self._now, self._sent / self._blocks, sender.outcome)

    def _step(self, sender: Sender, receiver: Receiver) -> None:
        arrival = self._in_flight[0][0] if self._in_flight else inf
        resolution = _TIMER_RESOLUTION_SECONDS
        timeout = min((sender.deadline // resolution + 1) * resolution, receiver.deadline)
        self._now = max(self._now, min(arrival, timeout))
        if arrival <= timeout:
            _, _, to_receiver, datagram = heapq.heappop(self._in_flight)
            (receiver if to_receiver else sender).receive(decode(datagram), self._now)
        else:
            sender.on_timeout(self._now)
            receiver.on_timeout(self._now)
        receiver.take_payloads()
        if receiver.complete and receiver.outcome is None:
            receiver.on_stored(self._now)
        ack = receiver.next_send(self._now)
        if ack is not None:
            delay = self._random.random() * self._max_delay if self._max_delay else 0.0
            self._put(ack, self._now + self._transit + delay, to_receiver=False)
        self._send_blocks(sender)

    def _send_blocks(self, sender: Sender) -> None:
        block_range = sender.next_send(self._now)
        if not isinstance(block_range, tuple):
            return
        first, count = block_range
        for index in range(first, first + count):
            payload = bytes(self._last_size if index == self._blocks else BLKSIZE)
            datagram = Data(self._numbering.to_wire(index), payload).encode()
            self._sent += 1
            queued = max(0.0, self._busy_until - self._now) * self._rate / len(datagram)
            if queued < self._queue:
                self._busy_until = max(self._busy_until, self._now) + len(datagram) / self._rate
                self._put(datagram, self._busy_until + self._transit, to_receiver=True)

    def _put(self, datagram: bytes, at: float, to_receiver: bool) -> None:
        if self._random.random() >= self._loss:
            self._order += 1
            heapq.heappush(self._in_flight, (at, self._order, to_receiver, datagram))
