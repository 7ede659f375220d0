"""Clients whose packets a fuzzer chooses: right ones, wrong ones, at right and wrong places."""

from dataclasses import dataclass

from fuzz.choices import Choices
from fuzz.scene import FILES, HERE, IN, OVER
from fuzz.uploads import PERIOD, Sent, payload
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import MalformedPacket
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Packet, Request, Rrq, Wrq, decode

ADDRESSES: tuple[SocketAddress, ...] = (
    ("192.0.2.7", 2070),
    ("192.0.2.7", 2071),
    ("192.0.2.8", 2070),
    ("198.51.100.9", 69),
)
_NEW = (IN + b"/new", IN + b"/other", OVER + b"/same", b"in\\new", b"/over//same", b"in/../in/new")
_READ = (
    *FILES,
    b"mine",
    IN + b"/new",
    b"missing",
    b"../seven",
    b"C:\\SEVEN",
    b"upper\xff",
    b"old/kilo",
)
_NAMES = _READ + _NEW
_MODES = (b"octet", b"octet", b"netascii", b"OCTET", b"mail", b"")
_OPTIONS = (
    *((b"blksize", value) for value in (b"8", b"16", b"512", b"1468", b"65464", b"7")),
    *((b"windowsize", value) for value in (b"1", b"2", b"4", b"64", b"65535", b"0")),
    *((b"timeout", value) for value in (b"1", b"255", b"0")),
    *((b"tsize", value) for value in (b"0", b"5", b"9999999", b"-1")),
    *((b"rollover", b"0"), (b"rollover", b"1"), (b"utimeout", b"10000"), (b"blksize2", b"1000")),
    (b"multicast", b""),
)
_SIZES = (1, 0, 7, -1)  # of a block, beside the whole one; -1 is one octet too many


@dataclass
class Peer:
    """One address: what it has sent and heard, as far as the next packet depends on it."""

    address: SocketAddress
    tid: SocketAddress = HERE  # where the server spoke from last
    request: Request | None = None
    heard: bytes = b""  # the last datagram
    number: int = 0  # the block number in it
    uploads: Sent | None = None
    requests: int = 0
    only_asked: bool = True  # it has sent nothing else
    octets: int = 0  # of its requests
    got: int = 0  # octets that were sent to it
    got_packets: int = 0

    def asks(self, choices: Choices) -> bytes:
        """A request."""
        if self.request is not None and choices.flag():
            return self.request.encode()
        reads = not choices.flag()
        name = choices.one(_NAMES if reads else _NEW + _READ)
        options = tuple(choices.one(_OPTIONS) for _ in range(choices.number(4)))
        mode = choices.one(_MODES)
        self.request = Rrq(name, mode, options) if reads else Wrq(name, mode, options)
        return self.request.encode()

    def acknowledges(self, choices: Choices) -> bytes:
        """An ACK, most often of what came last."""
        number = self.number + choices.one((0, 0, 0, 1, -1, 2, 40, choices.number(0xFFFF)))
        return Ack(number % PERIOD).encode()

    def sends(self, choices: Choices) -> bytes:
        """A block, most often the next one, whole or as the last."""
        number = self.number + choices.one((1, 1, 1, 2, 3, 0, -1, choices.number(0xFFFF)))
        blksize = self.uploads.blksize if self.uploads else 512
        whose = self.uploads.whose if self.uploads else 0
        size = blksize if choices.flag() else choices.one(_SIZES)
        size = blksize + 1 if size < 0 else min(size, blksize)
        if choices.flag():
            self.number = number % PERIOD  # it goes on without an ACK
        if self.uploads is not None and size <= blksize:
            self.uploads.add(number, size)
        return Data(number % PERIOD, payload(whose, number, size)).encode()

    def fails(self, choices: Choices) -> bytes:
        """An ERROR."""
        return ErrorPacket(choices.number(9), choices.one(("stop", "", "\x1b[31m"))).encode()

    def agrees(self, choices: Choices) -> bytes:
        """An OACK, which no client sends."""
        return Oack((choices.one(_OPTIONS),)).encode()

    def babbles(self, choices: Choices) -> bytes:
        """Octets of any kind, but for blocks: what these hold is told by their numbers."""
        octets = bytes((0, choices.number(9))) + choices.octets(40)
        return octets[:1] if octets[:2] == b"\0\3" else octets

    def hears(self, source: SocketAddress, datagram: bytes) -> None:
        """It remembers what came."""
        self.got += len(datagram)
        self.got_packets += 1
        if datagram[:2] == b"\0\5":
            return
        self.heard, self.tid = datagram, source
        packet = read(datagram)
        self.number = packet.block if isinstance(packet, Data | Ack) else 0


def read(datagram: bytes) -> Packet | None:
    """The packet, None where it is none."""
    try:
        return decode(datagram)
    except MalformedPacket:
        return None
