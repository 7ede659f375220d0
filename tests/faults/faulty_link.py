"""Link with faults: it damages, duplicates and delays datagrams, besides loss, rate and queue."""

from dataclasses import dataclass, fields, replace

from tests.support.relay import Link, LinkDirection, Send
from tftpd.protocol.errors import MalformedPacket
from tftpd.protocol.packets import HEADER_BYTES, Opcode, decode

_BURST_SECONDS = (0.01, 0.5)  # all datagrams of one direction are lost
_LATE_SECONDS = (0.3, 1.0)  # longer than a retransmission timer
_MAX_FLIPPED_BITS = 15  # length of an error burst; the checksum detects all of up to 15 bits
_NUMBERED = (Opcode.DATA.to_bytes(2, "big"), Opcode.ACK.to_bytes(2, "big"))
_DATA = _NUMBERED[0]


@dataclass(frozen=True, slots=True)
class Faults:
    """Faults of a link. Each value is a share of the datagrams unless stated otherwise.

    Attributes:
        drop: Lost datagrams.
        burst: Datagrams at which a loss of all datagrams begins, for a while.
        duplicate: Datagrams that arrive twice.
        reorder: Datagrams that a few others overtake.
        late: Datagrams that very many others overtake.
        delay: Maximum delay in seconds; the order does not change.
        corrupt: Datagrams with flipped bits. The receiver drops them if the UDP checksum
            detects the error.
        garble: Datagrams with a flipped bit in the opcode or, beyond any window, in the block
            number. The checksum does not detect it.
        truncate: Datagrams that are too short for a packet.
        shorten: Blocks that lose a part of their payload.
        swap: Blocks in which two 16-bit words change places. The checksum cannot detect it.
        stray: Datagrams that appear to come from another port.
        rebind: One end gets new port numbers at one of so many first datagrams.
        silence: No datagram passes after one of so many first datagrams.
        silent: Duration of the silence, in seconds.
        rate: As in `Link`.
        queue: As in `Link`.
        disk: Time to open or store a file, in seconds.
    """

    drop: float = 0.0
    burst: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    late: float = 0.0
    delay: float = 0.0
    corrupt: float = 0.0
    garble: float = 0.0
    truncate: float = 0.0
    shorten: float = 0.0
    swap: float = 0.0
    stray: float = 0.0
    rebind: int = 0
    silence: int = 0
    silent: float = 0.0
    rate: float | None = None
    queue: int = 64
    disk: float = 0.0

    def combine(self, other: "Faults") -> "Faults":
        """Return the faults of both; a value that both have is that of `other`."""
        changes = {
            field.name: getattr(other, field.name)
            for field in fields(other)
            if getattr(other, field.name) != field.default
        }
        return replace(self, **changes)

    def link(self, delay: float) -> Link:
        """Return the loss, rate and queue as a link with `delay` seconds one way."""
        return Link(self.drop, self.drop, rate=self.rate, queue=self.queue, delay=delay)


class Outage:
    """Time in which no datagram passes in either direction."""

    def __init__(self, first_datagram: int, seconds: float) -> None:
        """Begin the outage with a datagram, counted from 1; with 0 it never begins."""
        self._datagrams_left = first_datagram
        self._end = -1.0
        self._seconds = seconds

    def drops_next(self, now: float) -> bool:
        """Count a datagram; return True if the outage drops it."""
        if self._datagrams_left:
            self._datagrams_left -= 1
            if not self._datagrams_left:
                self._end = now + self._seconds
        return now < self._end


class FaultyLink(LinkDirection):
    """One direction of a link with faults.

    Attributes:
        discarded: Number of datagrams that the receiver dropped because of the checksum.
    """

    def __init__(
        self,
        link: Link,
        drop: float,
        seed: str,
        faults: Faults = Faults(),
        outage: Outage | None = None,
    ) -> None:
        super().__init__(link, drop, seed)
        self.discarded = 0
        self._faults = faults
        self._outage = outage or Outage(0, 0.0)
        self._burst_end = -1.0
        self._last_arrival = 0.0  # keeps the order of delayed datagrams

    def offer(self, datagram: bytes, send: Send, now: float, extra_delay: float = 0.0) -> bool:
        """Send a datagram over the link; return False if it is lost."""
        faults, happens = self._faults, self._happens
        if self._outage.drops_next(now) or self._is_in_burst(now):
            return False
        if happens(faults.corrupt):
            sent = checksum(datagram)
            datagram = self._flip_bits(datagram)
            if checksum(datagram) != sent:
                self.discarded += 1
                return False
        if happens(faults.garble):
            datagram = self._garble(datagram)
        if happens(faults.truncate):
            datagram = self._truncate(datagram)
        if happens(faults.shorten) and datagram[:2] == _DATA and len(datagram) > HEADER_BYTES:
            datagram = datagram[: self._random.randrange(HEADER_BYTES, len(datagram) + 1)]
        if happens(faults.swap) and datagram[:2] == _DATA:
            first, second = datagram[4:6], datagram[6:8]
            datagram = datagram[:4] + second + first + datagram[8:]
        if happens(faults.duplicate):
            super().offer(datagram, send, now, extra_delay + self._delay(now))
        return super().offer(datagram, send, now, extra_delay + self._delay(now))

    def _happens(self, share: float) -> bool:
        return share > 0.0 and self._random.random() < share

    def _is_in_burst(self, now: float) -> bool:
        if now >= self._burst_end and self._happens(self._faults.burst):
            self._burst_end = now + self._random.uniform(*_BURST_SECONDS)
        return now < self._burst_end

    def _delay(self, now: float) -> float:
        """Return the additional delay of this datagram, in seconds."""
        faults, delay = self._faults, 0.0
        if faults.delay:
            arrival = now + self._random.uniform(0.0, faults.delay)
            self._last_arrival = max(self._last_arrival, arrival)
            delay = self._last_arrival - now
        if self._happens(faults.reorder):
            delay += self._link.delay * self._random.uniform(0.5, 5.0)
        if self._happens(faults.late):
            delay += self._random.uniform(*_LATE_SECONDS)
        return delay

    def _flip_bits(self, datagram: bytes) -> bytes:
        """Flip some bits that are close to each other."""
        bits = len(datagram) * 8
        pattern = self._random.randrange(1, 1 << min(_MAX_FLIPPED_BITS, bits))
        position = self._random.randrange(bits - pattern.bit_length() + 1)
        number = int.from_bytes(datagram, "big") ^ pattern << position
        return number.to_bytes(len(datagram), "big")

    def _garble(self, datagram: bytes) -> bytes:
        """Flip one bit of the opcode or of the upper byte of the block number."""
        bit = self._random.randrange(24 if datagram[:2] in _NUMBERED else 16)
        damaged = bytearray(datagram)
        damaged[bit // 8] ^= 1 << bit % 8
        return bytes(damaged)

    def _truncate(self, datagram: bytes) -> bytes:
        """Cut a datagram so short that it is malformed."""
        for _ in range(8):
            short = datagram[: self._random.randrange(len(datagram))]
            try:
                decode(short)
            except MalformedPacket:
                return short
        return datagram[: HEADER_BYTES - 1]


def checksum(datagram: bytes) -> int:
    """Return the sum of the words of a payload, as in the UDP checksum (RFC 1071)."""
    return int.from_bytes(datagram + b"\0" * (len(datagram) % 2), "big") % 0xFFFF
