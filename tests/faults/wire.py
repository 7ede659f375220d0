"""A bad wire: what becomes of datagrams, on top of a link's losses, rate and queue."""

from dataclasses import dataclass, fields, replace

from tests.support.relay import Link, LinkDirection, Send
from tftpd.protocol.errors import MalformedPacket
from tftpd.protocol.packets import HEADER_BYTES, Opcode, decode

_BURST = (0.01, 0.5)  # seconds in which all of one direction get lost
_LATE = (0.3, 1.0)  # seconds: longer than the timers that send again
_FLIPPED = 15  # bits from the first that is flipped to the last; the checksum tells up to these
_NUMBERED = (Opcode.DATA.to_bytes(2, "big"), Opcode.ACK.to_bytes(2, "big"))
_DATA = _NUMBERED[0]


@dataclass(frozen=True, slots=True)
class Faults:
    """Faults of a link. Each value is a share of the datagrams unless stated otherwise.

    At such a share of them a `burst` begins, in which all get lost for a while.
    `corrupt` flips bits as links do, and who receives drops what UDP's
    checksum tells; `garble` flips bits of the header that no checksum tells:
    those of the opcode, and of a block number so that it lies beyond any
    window. `truncate` leaves too little of a packet to be one, and `shorten`
    a part of a block; `swap` has two words of a block change places, which
    no checksum of UDP's tells. `stray` is what seems to come from another port. What
    is `reorder`ed is overtaken by some, what is `late` by very many; `delay`
    is the most seconds that any of them takes, in their order. At one of the
    first `silence` datagrams nothing passes any more for `silent` seconds;
    at one of the first `rebind` an end is given another port. `rate` and `queue` are as of a
    `Link`, and `disk` is how many seconds it takes to store or open a file.
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

    def beside(self, other: "Faults") -> "Faults":
        """Both at once; where both say something, what the other says."""
        said = {
            field.name: getattr(other, field.name)
            for field in fields(other)
            if getattr(other, field.name) != field.default
        }
        return replace(self, **said)

    def link(self, delay: float) -> Link:
        """Return the loss, rate and queue as a link with `delay` seconds one way."""
        return Link(self.drop, self.drop, rate=self.rate, queue=self.queue, delay=delay)


class Outage:
    """A time in which nothing passes, either way."""

    def __init__(self, at: int, seconds: float) -> None:
        """It begins with datagram `at`; with 0 never."""
        self._left = at
        self._ends = -1.0
        self._seconds = seconds

    def holds(self, now: float) -> bool:
        """Return True if this fault drops the current datagram."""
        if self._left:
            self._left -= 1
            if not self._left:
                self._ends = now + self._seconds
        return now < self._ends


class Wire(LinkDirection):
    """One direction of a bad wire."""

    def __init__(
        self,
        link: Link,
        drop: float,
        seed: str,
        faults: Faults = Faults(),
        outage: Outage | None = None,
    ) -> None:
        super().__init__(link, drop, seed)
        self.discarded = 0  # told by the checksum
        self._faults = faults
        self._outage = outage or Outage(0, 0.0)
        self._burst_ends = -1.0
        self._last = 0.0  # when what came last will arrive

    def offer(self, datagram: bytes, send: Send, now: float, extra_delay: float = 0.0) -> bool:
        """Take a datagram, and do to it what the faults have in store."""
        faults, happens = self._faults, self._happens
        if self._outage.holds(now) or self._bursts(now):
            return False
        if happens(faults.corrupt):
            sent = checksum(datagram)
            datagram = self._flipped(datagram)
            if checksum(datagram) != sent:
                self.discarded += 1
                return False
        if happens(faults.garble):
            datagram = self._garbled(datagram)
        if happens(faults.truncate):
            datagram = self._truncated(datagram)
        if happens(faults.shorten) and datagram[:2] == _DATA and len(datagram) > HEADER_BYTES:
            datagram = datagram[: self._random.randrange(HEADER_BYTES, len(datagram) + 1)]
        if happens(faults.swap) and datagram[:2] == _DATA:
            first, second = datagram[4:6], datagram[6:8]
            datagram = datagram[:4] + second + first + datagram[8:]
        if happens(faults.duplicate):
            super().offer(datagram, send, now, extra_delay + self._held(now))
        return super().offer(datagram, send, now, extra_delay + self._held(now))

    def _happens(self, share: float) -> bool:
        return share > 0.0 and self._random.random() < share

    def _bursts(self, now: float) -> bool:
        if now >= self._burst_ends and self._happens(self._faults.burst):
            self._burst_ends = now + self._random.uniform(*_BURST)
        return now < self._burst_ends

    def _held(self, now: float) -> float:
        """Seconds that this datagram takes longer than others."""
        faults, held = self._faults, 0.0
        if faults.delay:
            self._last = max(self._last, now + self._random.uniform(0.0, faults.delay))
            held = self._last - now
        if self._happens(faults.reorder):
            held += self._link.delay * self._random.uniform(0.5, 5.0)
        if self._happens(faults.late):
            held += self._random.uniform(*_LATE)
        return held

    def _flipped(self, datagram: bytes) -> bytes:
        """Some bits that are near to each other are others."""
        bits = len(datagram) * 8
        pattern = self._random.randrange(1, 1 << min(_FLIPPED, bits))
        at = self._random.randrange(bits - pattern.bit_length() + 1)
        number = int.from_bytes(datagram, "big") ^ pattern << at
        return number.to_bytes(len(datagram), "big")

    def _garbled(self, datagram: bytes) -> bytes:
        """One bit of the opcode is another, or one of the upper octet of the block number."""
        bit = self._random.randrange(24 if datagram[:2] in _NUMBERED else 16)
        damaged = bytearray(datagram)
        damaged[bit // 8] ^= 1 << bit % 8
        return bytes(damaged)

    def _truncated(self, datagram: bytes) -> bytes:
        """So little of it that it is no packet."""
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
