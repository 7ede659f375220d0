"""The single trials of a probe: each asks for the file once, and looks at one thing.

A trial has a port of its own, and ends with an ERROR 0 to whatever still
sends. It gives what it saw; what that means is told elsewhere.
"""

from dataclasses import replace

from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.handshake import host
from tftpd.client.probe.exchange import RawExchange, ReceivedPacket, dialogue
from tftpd.client.probe.observations import (
    Answer,
    AnswerKind,
    AnswerOrigin,
    OptionObservation,
    Repeats,
)
from tftpd.net.interfaces import SessionRuntime
from tftpd.net.types import SocketAddress
from tftpd.protocol import options as opt
from tftpd.protocol.options import Options
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Packet, Rrq

ONCE_MORE = 1.0  # seconds to the first repeat of a request; doubled for each further one
_AGAIN = 0.7  # seconds to the repeat of an ACK whose block does not come

# Seconds that copies come within, on a network without delay, and what is
# added for one with: shorter than any server takes to repeat itself.
_COPIES = 0.15
_ROUNDTRIPS = 3
_LONGEST_COPIES = 0.7

_SECOND_TRANSFER = 0.5  # seconds in which a request that came twice is answered twice
_MOST_COPIES = 8
_TO_WATCH = (2, 3, 4)  # blocks whose copies are counted


class Checks:
    """Trials on one file of one server.

    `patience` is how many seconds an answer is waited for.
    """

    def __init__(
        self, runtime: SessionRuntime, server: ServerEndpoint, name: bytes, patience: float
    ) -> None:
        self.patience = patience
        self._runtime = runtime
        self._seconds = runtime.clock.seconds
        self._server = server
        self._name = name
        self._copies = _COPIES

    async def ask(self, options: Options = ()) -> Answer:
        """What a request for these options is answered with."""
        with dialogue(self._runtime, self._server) as talk:
            answer, _ = await self._ask(talk, options)
        if answer.seconds is not None and answer.requests == 1:
            self._copies = min(_COPIES + _ROUNDTRIPS * answer.seconds, _LONGEST_COPIES)
        return answer

    async def first_block(self, options: Options) -> tuple[Answer, int | None]:
        """The same, and how long the first block is that came after it."""
        with dialogue(self._runtime, self._server) as talk:
            answer, heard = await self._ask(talk, options)
            data = await self._block_1(talk, heard)
        return answer, None if data is None else len(_payload(data))

    async def blksize(self, asked: int) -> OptionObservation:
        """What becomes of `blksize`, and whether blocks of that size arrive."""
        answer, arrived = await self.first_block(_asking(opt.BLKSIZE, asked))
        granted = _granted(opt.BLKSIZE, asked, answer)
        ended = arrived is not None and arrived < (granted.value or opt.DEFAULT_BLKSIZE)
        return replace(granted, arrived=arrived, ended=ended)

    async def option(self, name: bytes, asked: int) -> OptionObservation:
        """What becomes of one option by itself."""
        return _granted(name, asked, await self.ask(_asking(name, asked)))

    async def windowsize(self, asked: int) -> OptionObservation:
        """What becomes of `windowsize`, and how many blocks then come at once."""
        with dialogue(self._runtime, self._server) as talk:
            answer, heard = await self._ask(talk, _asking(opt.WINDOWSIZE, asked))
            granted = _granted(opt.WINDOWSIZE, asked, answer)
            if heard is None or not granted.value:
                return granted
            first = await self._block_1(talk, heard)
            if first is None:
                return replace(granted, blocks=0)
            if len(_payload(first)) < opt.DEFAULT_BLKSIZE:
                return replace(granted, blocks=1, ended=True)
            blocks, ended = await self._window(talk, 2 * granted.value)
        return replace(granted, blocks=blocks, ended=ended)

    async def silence(self, waits: float) -> Repeats:
        """When a block is repeated that nobody acknowledges, waited for so long."""
        with dialogue(self._runtime, self._server) as talk:
            _, heard = await self._ask(talk, ())
            if heard is None or not _is_block(heard, 1):
                return Repeats()
            while again := await talk.receive(heard.at + waits):
                if _is_block(again, 1) and again.source == heard.source:
                    return Repeats(waits, again.at - heard.at)
            return Repeats(waits, garbled=talk.garbage > 0)

    async def copies(self, options: Options) -> tuple[int, ...]:
        """How often blocks 2, 3 and 4 come after an ACK of block 1 that is sent twice.

        Each copy is acknowledged, as the clients do of which RFC 1123
        s4.2.3.1 speaks. Shorter where the file is.
        """
        counts = []
        with dialogue(self._runtime, self._server) as talk:
            _, heard = await self._ask(talk, options)
            came = await self._block_1(talk, heard)
            if came is None:
                return ()
            usual = len(_payload(came))
            last, times = 1, 2
            for block in _TO_WATCH:
                for _ in range(times):
                    talk.send(Ack(last), came.source)
                came, times = await self._count(talk, block, came)
                if times == 0:
                    break
                counts.append(times)
                last = block
                if len(_payload(came)) < usual:
                    break
        return tuple(counts)

    async def ports(self) -> int | None:
        """From how many ports a request is answered that is sent twice from one."""
        with dialogue(self._runtime, self._server) as talk:
            _, heard = await self._ask(talk, ())
            if heard is None or not _is_block(heard, 1):
                return None
            sources = {heard.source}
            talk.send(self._request(()), self._server.address)
            until = self._seconds() + _SECOND_TRANSFER
            while heard := await talk.receive(until):
                if _is_block(heard, 1):
                    sources.add(heard.source)
        return len(sources)

    async def repeats(self, options: Options, waits: float) -> Repeats:
        """What the server does twice; `options` may ask for short blocks."""
        ports = await self.ports()
        copies = await self.copies(options)
        return replace(await self.silence(waits), copies=copies, ports=ports)

    def _request(self, options: Options) -> Rrq:
        return Rrq(self._name, b"octet", options)

    async def _ask(
        self, talk: RawExchange, options: Options
    ) -> tuple[Answer, ReceivedPacket | None]:
        """The answer, and the packet that it was; the request is repeated until there is one."""
        began = self._seconds()
        until = began + self.patience
        again, requests = ONCE_MORE, 0
        heard = None
        while heard is None and self._seconds() < until:
            talk.send(self._request(options), self._server.address)
            requests += 1
            heard = await _answering(talk, min(self._seconds() + again, until))
            again *= 2
        if heard is None:
            return Answer(options, requests=requests, garbage=talk.garbage), None
        return self._answer(options, heard, began, requests, talk.garbage), heard

    def _answer(
        self, options: Options, heard: ReceivedPacket, began: float, requests: int, garbage: int
    ) -> Answer:
        packet = heard.packet
        error = packet if isinstance(packet, ErrorPacket) else None
        return Answer(
            asked=options,
            kind=_kind(packet),
            options=packet.options if isinstance(packet, Oack) else (),
            code=error.code if error else None,
            text=error.message if error else "",
            address=str(heard.source[0]),
            port=int(heard.source[1]),
            origin=self._origin(heard.source),
            seconds=heard.at - began,
            requests=requests,
            garbage=garbage,
        )

    def _origin(self, source: SocketAddress) -> AnswerOrigin:
        if host(source) != host(self._server.address):
            return AnswerOrigin.OTHER_ADDRESS
        return (
            AnswerOrigin.SAME_PORT
            if source[1] == self._server.address[1]
            else AnswerOrigin.OWN_PORT
        )

    async def _block_1(
        self, talk: RawExchange, heard: ReceivedPacket | None
    ) -> ReceivedPacket | None:
        """The first block, after an OACK by way of an ACK 0, which may be lost as well."""
        if heard is None or isinstance(heard.packet, ErrorPacket):
            return None
        if isinstance(heard.packet, Data):
            return heard
        until = self._seconds() + self.patience
        while self._seconds() < until:
            talk.send(Ack(0), heard.source)
            turn = min(self._seconds() + _AGAIN, until)
            while came := await talk.receive(turn):
                if came.source == heard.source and _is_block(came, 1):
                    return came
                if came.source == heard.source and isinstance(came.packet, ErrorPacket):
                    return None
        return None

    async def _window(self, talk: RawExchange, most: int) -> tuple[int, bool]:
        """Blocks that come before the server waits, the first among them, and the file's end."""
        blocks, until = 1, self._seconds() + self._copies
        while blocks < most:
            heard = await talk.receive(until)
            if heard is None or isinstance(heard.packet, ErrorPacket):
                break
            if _is_block(heard, blocks + 1):
                blocks, until = blocks + 1, heard.at + self._copies
                if len(_payload(heard)) < opt.DEFAULT_BLKSIZE:
                    return blocks, True
        return blocks, False

    async def _count(
        self, talk: RawExchange, block: int, last: ReceivedPacket
    ) -> tuple[ReceivedPacket, int]:
        """The copies of `block` that come about the same time, and the first of them."""
        count, until = 0, self._seconds() + self.patience
        while count < _MOST_COPIES:
            heard = await talk.receive(until)
            if heard is None:
                break
            if heard.source == last.source and _is_block(heard, block):
                if count == 0:
                    last, until = heard, heard.at + self._copies
                count += 1
        return last, count


async def _answering(talk: RawExchange, until: float) -> ReceivedPacket | None:
    """The next packet that answers a request to read."""
    while heard := await talk.receive(until):
        if isinstance(heard.packet, Oack | ErrorPacket) or _is_block(heard, 1):
            return heard
    return None


def _asking(name: bytes, value: int) -> Options:
    return ((name, b"%d" % value),)


def _granted(name: bytes, asked: int, answer: Answer) -> OptionObservation:
    how = answer.how(name)
    said = answer.value(name)
    value = None if said is None else opt.parse_int(said, opt.TSIZE_RANGE)
    unasked = tuple(other.decode("ascii", "replace") for other in answer.unasked)
    return OptionObservation(name.decode(), asked, how, value, unasked)


def _is_block(heard: ReceivedPacket, block: int) -> bool:
    return isinstance(heard.packet, Data) and heard.packet.block == block


def _payload(heard: ReceivedPacket) -> bytes:
    return heard.packet.payload if isinstance(heard.packet, Data) else b""


def _kind(packet: Packet) -> AnswerKind:
    if isinstance(packet, Data):
        return AnswerKind.DATA
    return AnswerKind.OACK if isinstance(packet, Oack) else AnswerKind.ERROR
