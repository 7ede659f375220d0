"""The client: its server says what it likes, and what comes of it is whole or an exception.

The blocks of each port of the server tell which one sent them, so that a file
of two senders shows.
"""

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from fuzz.choices import Choices
from fuzz.faults import none_logged
from fuzz.places import place
from fuzz.scene import Watched, Wire
from fuzz.uploads import PERIOD, Sent, payload
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryNet
from tftpd.client.client import Client
from tftpd.client.errors import TransferError
from tftpd.client.settings import ClientSettings
from tftpd.net.types import SocketAddress
from tftpd.protocol.negotiation import Mode
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, decode

_PORTS: tuple[SocketAddress, ...] = ((SERVER, 3000), (SERVER, 3001), ("192.0.2.66", 3000))
_TIMES = (0.0, 0.06, 0.3, 1.0, 3.1, 9.0, 31.0)
_STATED = (
    *((b"blksize", value) for value in (b"8", b"16", b"512", b"513", b"7", b"")),
    *((b"windowsize", value) for value in (b"1", b"2", b"4", b"5", b"0")),
    *((b"tsize", value) for value in (b"0", b"20", b"700", b"9" * 19, b"-1")),
    *((b"timeout", b"1"), (b"timeout", b"2"), (b"rollover", b"0"), (b"rollover", b"1")),
    (b"multicast", b""),
)
_SIZES = (512, 16, 8)  # of blocks, that are asked for or agreed
_LONGEST = 2000.0  # seconds
_CONTENT = bytes(range(256)) * 3


class _Talk:
    """One transfer and its hostile server."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.net = MemoryNet()
        self.clock = Watched()
        self.net.clock = self.clock
        wire = self.net.sent = Wire()
        wire.hear = self.hear
        self.to = place() / "client"
        self.to.mkdir(exist_ok=True)
        self.gets = choices.flag()
        self.mode = choices.one((Mode.OCTET, Mode.NETASCII))
        self.blksize = choices.one(_SIZES)
        self.number = 0
        self.results: list[Any] = []
        self.sent: dict[tuple[SocketAddress, int], Sent] = {}
        self._erring: SocketAddress | None = None
        settings = ClientSettings(
            self.mode,
            self.blksize,
            choices.one((1, 2, 4)),
            choices.one((None, 1)),
            choices.one((None, 0, 1)),
        )
        client = Client(self.net.runtime, settings)
        path = self.to / "file"
        doing = (
            client.get(SERVER, "f", path, max_size=choices.one((None, 600)))
            if self.gets
            else client.put(SERVER, "f", _CONTENT[: choices.number(len(_CONTENT))])
        )
        self.done: Deferred[Any] = Deferred.fromCoroutine(doing)
        self.done.addBoth(self.results.append)

    def hear(self, source: SocketAddress, to: SocketAddress | None, datagram: bytes) -> None:
        """The client says this."""
        packet = decode(datagram)
        known = to in (*_PORTS, (SERVER, WELL_KNOWN))
        assert known, f"nobody has said anything at {to}"
        assert to != self._erring, "an ERROR is answered"
        if to == _PORTS[2]:
            assert isinstance(packet, ErrorPacket), "a stranger is answered"
        elif isinstance(packet, Data | Ack):
            self.number = packet.block

    def says(self) -> None:
        """The server says something, from one of its ports."""
        choices = self.choices
        kind, source = choices.number(7), choices.one((*_PORTS[:1] * 5, *_PORTS))
        match kind:
            case 0 | 1 | 2:
                datagram = self._data(source)
            case 3 | 4:
                datagram = self._ack()
            case 5:
                stated = tuple(choices.one(_STATED) for _ in range(choices.number(4)))
                datagram = Oack(stated).encode()
            case 6:
                datagram = ErrorPacket(choices.number(9), "no\x1b").encode()
            case _:
                datagram = bytes((0, choices.number(9))) + choices.octets(30)
                datagram = datagram if datagram[1] != 3 else datagram[:3]
        if datagram[:2] == b"\0\5":
            self._erring = source
        for port in list(self.net.ports):
            self.net.deliver(datagram, source, port)
        self._erring = None

    def _data(self, source: SocketAddress) -> bytes:
        choices = self.choices
        number = (self.number + choices.one((1, 1, 1, 0, 2, 3, choices.number(0xFFFF)))) % PERIOD
        blksize = choices.one((self.blksize, 512))
        size = blksize if choices.flag() else choices.number(blksize + 1)
        if choices.flag():
            self.number = number
        whose = _PORTS.index(source) + 1
        for each in _SIZES:
            if size <= each:
                sent = self.sent.setdefault((source, each), Sent(whose, each))
                sent.add(number, size)
        return Data(number, payload(whose, number, size)).encode()

    def _ack(self) -> bytes:
        number = self.number + self.choices.one((0, 0, 1, -1, self.choices.number(0xFFFF)))
        return Ack(number % PERIOD).encode()


def check(octets: bytes) -> None:
    """Play the server's part, then wait: it has ended, and there is a file or none."""
    choices = Choices(octets)
    before = _descriptors()
    with none_logged():
        talk = _Talk(choices)
        while choices:
            _step(choices, talk)
        talk.net.hold_threads = False
        talk.net.run_threads()
        talk.clock.waits(_LONGEST)
    _check_end(talk)
    assert _descriptors() == before, "a descriptor is left"


def _step(choices: Choices, talk: _Talk) -> None:
    match choices.number(11):
        case 9:
            talk.clock.waits(choices.one(_TIMES))
        case 10:
            talk.net.hold_threads = choices.flag()
            talk.net.run_threads()
        case 11:
            if choices.number(7) == 7:
                talk.done.cancel()
        case _:
            talk.says()
    talk.clock.waits(0.0)


def _check_end(talk: _Talk) -> None:
    assert talk.results, "it never ends"
    (result,) = talk.results
    failed = isinstance(result, Failure)
    if failed:
        assert result.check(TransferError, CancelledError), f"{result.value!r} is none of ours"
    assert talk.net.ports == {}, "a port is left"
    assert not talk.clock.getDelayedCalls(), "a timer is left"
    there: list[Path] = list(talk.to.iterdir())
    contents = {path.name: path.read_bytes() for path in there}
    for path in there:
        path.unlink()
    if talk.gets and not failed:
        assert list(contents) == ["file"], f"not the file but {list(contents)}"
        content = contents["file"]
        assert any(sent.is_whole(content) for sent in talk.sent.values()), "not what was sent"
        assert len(content) == result.bytes_transferred
    else:
        assert not result_is_kept(contents, result), f"{list(contents)} is left"


def result_is_kept(contents: dict[str, bytes], result: Any) -> bool:
    """Whether a file is there in spite of the result.

    One is, rightly, where it was stored while somebody cancelled.
    """
    cancelled = isinstance(result, Failure) and result.check(CancelledError) is not None
    return bool(contents) and not (cancelled and list(contents) == ["file"])


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
