"""Peers of the server and client targets: the fuzzer chooses valid and invalid packets for them."""

from dataclasses import dataclass, field

from tests.fuzz.choices import Choices
from tests.fuzz.server_files import READ_NAMES, SERVER_ADDRESS, WRITTEN_NAMES
from tftpd.net.types import SocketAddress
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Request, Rrq, Wrq, decode

BLOCK_NUMBERS = 65536
MODES = (b"octet", b"octet", b"netascii", b"OCTET", b"mail", b"")
OPTIONS = (
    *((b"blksize", value) for value in (b"8", b"16", b"512", b"1468", b"65464", b"7", b"")),
    *((b"windowsize", value) for value in (b"1", b"2", b"4", b"5", b"64", b"65535", b"0")),
    *((b"timeout", value) for value in (b"1", b"2", b"255", b"0")),
    *((b"tsize", value) for value in (b"0", b"5", b"700", b"9" * 19, b"-1")),
    *((b"rollover", b"0"), (b"rollover", b"1"), (b"utimeout", b"10000"), (b"blksize2", b"1000")),
    (b"multicast", b""),
)
_ERROR_TEXTS = ("stop", "", "\x1b[31m")


@dataclass
class SentBlocks:
    """The blocks that a peer has sent in one transfer; their data shows the peer and the block."""

    sender: int
    blksize: int = 512
    sizes: set[tuple[int, int]] = field(default_factory=set)  # (block number, size)

    def send(self, block: int, size: int) -> bytes:
        """Return a DATA packet; shorter data is the beginning of longer data."""
        block %= BLOCK_NUMBERS
        self.sizes.add((block, size))
        return Data(block, self._data(block, size)).encode()

    def ends_at(self, block: int) -> bool:
        """Return True if a block with this number can only be the last one."""
        sizes = {size for number, size in self.sizes if number == block}
        return self.blksize not in sizes and any(size < self.blksize for size in sizes)

    def is_complete(self, content: bytes, blksize: int = 0) -> bool:
        """Return True if the content is a file of these blocks, from block 1 or 0 to a last one."""
        blksize = blksize or self.blksize
        full_blocks, rest = divmod(len(content), blksize)
        sizes = [*[blksize] * full_blocks, rest]
        for blocks in (list(enumerate(sizes, first)) for first in (1, 0)):
            data = b"".join(self._data(block, size) for block, size in blocks)
            if self.sizes.issuperset(blocks) and content == data:
                return True
        return False

    def _data(self, block: int, size: int) -> bytes:
        mark = b"%d.%d " % (self.sender, block)
        return (mark * (size // len(mark) + 1))[:size]


@dataclass
class Peer:
    """One address and what its next packet depends on."""

    address: SocketAddress
    sent: SentBlocks
    tid: SocketAddress = SERVER_ADDRESS  # source of the last datagram from the other side
    request: Request | None = None
    last_datagram: bytes = b""
    block: int = 0  # the last block number of the other side, or of this peer
    requests: int = 0
    request_bytes: int = 0
    has_only_sent_requests: bool = True
    received_packets: int = 0
    received_bytes: int = 0

    def choose_request(self, choices: Choices) -> bytes:
        """Return a new request or repeat the last one."""
        if self.request is None or not choices.flag():
            is_write = choices.flag()
            names = WRITTEN_NAMES + READ_NAMES if is_write else READ_NAMES + WRITTEN_NAMES
            name, mode = choices.one(names), choices.one(MODES)
            self.request = (Wrq if is_write else Rrq)(name, mode, _choose_options(choices))
        return self.request.encode()

    def choose_reply(self, choices: Choices) -> bytes:
        """Return a datagram that is not a request."""
        match choices.number(6):
            case 0 | 1:
                block = self.block + choices.one((0, 0, 0, 1, -1, 2, 40, choices.number(0xFFFF)))
                return Ack(block % BLOCK_NUMBERS).encode()
            case 2 | 3:
                return self._choose_data(choices)
            case 4 if choices.flag():
                return ErrorPacket(choices.number(9), choices.one(_ERROR_TEXTS)).encode()
            case 4:
                return Oack(_choose_options(choices)).encode()
            case 5:
                datagram = bytes((0, choices.number(9))) + choices.data(40)
            case _:
                datagram = self.last_datagram
        # All data must show its sender and number.
        return datagram if datagram[:2] != b"\0\3" else b"\0\3"

    def receive(self, source: SocketAddress, datagram: bytes) -> None:
        """Remember a datagram of the other side."""
        self.received_bytes += len(datagram)
        self.received_packets += 1
        packet = decode(datagram)
        if not isinstance(packet, ErrorPacket):
            self.last_datagram, self.tid = datagram, source
            self.block = packet.block if isinstance(packet, Data | Ack) else 0

    def _choose_data(self, choices: Choices) -> bytes:
        block = self.block + choices.one((1, 1, 1, 2, 3, 0, -1, choices.number(0xFFFF)))
        blksize = self.sent.blksize
        size = blksize if choices.flag() else choices.one((1, 0, 7, 512, blksize - 1, blksize + 1))
        if choices.flag():
            self.block = block % BLOCK_NUMBERS  # the next block follows without an ACK
        return self.sent.send(block, size)


def _choose_options(choices: Choices) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(choices.one(OPTIONS) for _ in range(choices.number(4)))
