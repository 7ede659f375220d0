"""The single checks of a probe. Each requests the file at least once and observes one property.

Each check has a port of its own, and ends open transfers with ERROR 0. A check returns what it
observed; `findings` interprets it.
"""

from dataclasses import replace

from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.handshake import host_of
from tftpd.client.probe.exchange import RawExchange, ReceivedPacket, open_exchange
from tftpd.client.probe.observations import (
    AnswerKind,
    AnswerOrigin,
    OptionObservation,
    Repetition,
    ServerAnswer,
)
from tftpd.net.interfaces import SessionRuntime
from tftpd.net.types import SocketAddress
from tftpd.protocol import options as opt
from tftpd.protocol.options import Options
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Packet, Rrq

FIRST_RETRY_SECONDS = 1.0  # doubled for each further retransmission of the request
_ACK_RETRY_SECONDS = 0.7  # retransmission interval of ACK 0 while block 1 does not arrive

# Time in which further packets of a window and copies of a block arrive: 0.15 s and three
# round trips. At most 0.7 s, which is shorter than the retransmission interval of any server.
_COPY_SECONDS = 0.15
_COPY_ROUND_TRIPS = 3
_MAX_COPY_SECONDS = 0.7

_SECOND_TRANSFER_SECONDS = 0.5  # time for the answer to a repeated request
_MAX_COPIES = 8
_COUNTED_BLOCKS = (2, 3, 4)


class Checks:
    """Checks of one file of one server. All of them raise `LocalError` if no port can be opened.

    Args:
        runtime: Clock, ports and threads.
        server: The server.
        name: Name of the file.
        idle_timeout: Maximum time to wait for an answer, in seconds.
    """

    def __init__(
        self, runtime: SessionRuntime, server: ServerEndpoint, name: bytes, idle_timeout: float
    ) -> None:
        self.idle_timeout = idle_timeout
        self._runtime = runtime
        self._seconds = runtime.clock.seconds
        self._server = server
        self._name = name
        self._copy_seconds = _COPY_SECONDS

    async def request_file(self, options: Options = ()) -> ServerAnswer:
        """Return the answer to a request with these options."""
        with open_exchange(self._runtime, self._server) as exchange:
            answer, _ = await self._request(exchange, options)
        if answer.seconds is not None and answer.requests == 1:
            seconds = _COPY_SECONDS + _COPY_ROUND_TRIPS * answer.seconds
            self._copy_seconds = min(seconds, _MAX_COPY_SECONDS)
        return answer

    async def request_first_block(self, options: Options) -> tuple[ServerAnswer, int | None]:
        """Return the answer and the size of the first block; None if no block arrives."""
        with open_exchange(self._runtime, self._server) as exchange:
            answer, received = await self._request(exchange, options)
            block = await self._receive_first_block(exchange, received)
        return answer, None if block is None else len(_payload(block))

    async def check_blksize(self, requested: int) -> OptionObservation:
        """Request a block size in bytes, and observe whether such a block arrives."""
        answer, size = await self.request_first_block(_option(opt.BLKSIZE, requested))
        observation = _observe_option(opt.BLKSIZE, requested, answer)
        blksize = observation.value or opt.DEFAULT_BLKSIZE
        file_ended = size is not None and size < blksize
        return replace(observation, first_block_bytes=size, file_ended=file_ended)

    async def check_option(self, name: bytes, requested: int) -> OptionObservation:
        """Request one option, and observe the answer."""
        answer = await self.request_file(_option(name, requested))
        return _observe_option(name, requested, answer)

    async def check_windowsize(self, requested: int) -> OptionObservation:
        """Request a window size in blocks, and count the blocks before the server waits."""
        with open_exchange(self._runtime, self._server) as exchange:
            answer, received = await self._request(exchange, _option(opt.WINDOWSIZE, requested))
            observation = _observe_option(opt.WINDOWSIZE, requested, answer)
            if received is None or not observation.value:
                return observation
            first = await self._receive_first_block(exchange, received)
            if first is None:
                return replace(observation, blocks=0)
            if len(_payload(first)) < opt.DEFAULT_BLKSIZE:
                return replace(observation, blocks=1, file_ended=True)
            blocks, file_ended = await self._count_window(exchange, 2 * observation.value)
        return replace(observation, blocks=blocks, file_ended=file_ended)

    async def check_repetition(self, options: Options, max_wait: float) -> Repetition:
        """Observe which packets the server sends more than once.

        Args:
            options: Options that request small blocks, if the file is small.
            max_wait: Time to wait for a retransmission, in seconds.
        """
        transfers = await self._count_transfers()
        copies = await self._count_copies(options)
        repetition = await self._measure_retransmission(max_wait)
        return replace(repetition, copies=copies, transfers=transfers)

    async def _measure_retransmission(self, max_wait: float) -> Repetition:
        with open_exchange(self._runtime, self._server) as exchange:
            _, first = await self._request(exchange, ())
            if first is None or not _is_block(first, 1):
                return Repetition()
            while packet := await exchange.receive(first.received_at + max_wait):
                if _is_block(packet, 1) and packet.source == first.source:
                    return Repetition(max_wait, packet.received_at - first.received_at)
            return Repetition(max_wait, is_malformed=exchange.malformed > 0)

    async def _count_copies(self, options: Options) -> tuple[int, ...]:
        """Return the number of copies of blocks 2, 3 and 4 after a duplicate ACK of block 1.

        Each copy is acknowledged, as by the clients in RFC 1123 section 4.2.3.1. The result is
        shorter if the file has fewer blocks.
        """
        counts = []
        with open_exchange(self._runtime, self._server) as exchange:
            _, received = await self._request(exchange, options)
            block = await self._receive_first_block(exchange, received)
            if block is None:
                return ()
            blksize = len(_payload(block))
            last, n_acks = 1, 2
            for number in _COUNTED_BLOCKS:
                for _ in range(n_acks):
                    exchange.send(Ack(last), block.source)
                block, n_acks = await self._receive_copies(exchange, number, block)
                if n_acks == 0:
                    break
                counts.append(n_acks)
                last = number
                if len(_payload(block)) < blksize:
                    break
        return tuple(counts)

    async def _count_transfers(self) -> int | None:
        """Return the number of ports that answer a request that is sent twice from one port."""
        with open_exchange(self._runtime, self._server) as exchange:
            _, packet = await self._request(exchange, ())
            if packet is None or not _is_block(packet, 1):
                return None
            sources = {packet.source}
            exchange.send(self._rrq(()), self._server.address)
            until = self._seconds() + _SECOND_TRANSFER_SECONDS
            while packet := await exchange.receive(until):
                if _is_block(packet, 1):
                    sources.add(packet.source)
        return len(sources)

    def _rrq(self, options: Options) -> Rrq:
        return Rrq(self._name, b"octet", options)

    async def _request(
        self, exchange: RawExchange, options: Options
    ) -> tuple[ServerAnswer, ReceivedPacket | None]:
        """Send the request until it is answered; return the answer and its packet."""
        started = self._seconds()
        until = started + self.idle_timeout
        interval, requests = FIRST_RETRY_SECONDS, 0
        received = None
        while received is None and self._seconds() < until:
            exchange.send(self._rrq(options), self._server.address)
            requests += 1
            received = await _receive_answer(exchange, min(self._seconds() + interval, until))
            interval *= 2
        if received is None:
            return ServerAnswer(options, requests=requests, malformed=exchange.malformed), None
        packet = received.packet
        error = packet if isinstance(packet, ErrorPacket) else None
        answer = ServerAnswer(
            requested=options,
            kind=_answer_kind(packet),
            options=packet.options if isinstance(packet, Oack) else (),
            code=error.code if error else None,
            text=error.message if error else "",
            address=str(received.source[0]),
            port=int(received.source[1]),
            origin=self._origin(received.source),
            seconds=received.received_at - started,
            requests=requests,
            malformed=exchange.malformed,
        )
        return answer, received

    def _origin(self, source: SocketAddress) -> AnswerOrigin:
        if host_of(source) != host_of(self._server.address):
            return AnswerOrigin.OTHER_ADDRESS
        is_same_port = source[1] == self._server.address[1]
        return AnswerOrigin.SAME_PORT if is_same_port else AnswerOrigin.OWN_PORT

    async def _receive_first_block(
        self, exchange: RawExchange, answer: ReceivedPacket | None
    ) -> ReceivedPacket | None:
        """Return block 1. After an OACK, send ACK 0 until the block arrives."""
        if answer is None or isinstance(answer.packet, ErrorPacket):
            return None
        if isinstance(answer.packet, Data):
            return answer
        until = self._seconds() + self.idle_timeout
        while self._seconds() < until:
            exchange.send(Ack(0), answer.source)
            retry_at = min(self._seconds() + _ACK_RETRY_SECONDS, until)
            while received := await exchange.receive(retry_at):
                if received.source == answer.source and _is_block(received, 1):
                    return received
                is_error = isinstance(received.packet, ErrorPacket)
                if received.source == answer.source and is_error:
                    return None
        return None

    async def _count_window(self, exchange: RawExchange, max_blocks: int) -> tuple[int, bool]:
        """Count the blocks after the first one until the server waits for an ACK.

        Returns:
            The number of blocks, including the first one, and True if the file ended.
        """
        blocks, until = 1, self._seconds() + self._copy_seconds
        while blocks < max_blocks:
            received = await exchange.receive(until)
            if received is None or isinstance(received.packet, ErrorPacket):
                break
            if _is_block(received, blocks + 1):
                blocks, until = blocks + 1, received.received_at + self._copy_seconds
                if len(_payload(received)) < opt.DEFAULT_BLKSIZE:
                    return blocks, True
        return blocks, False

    async def _receive_copies(
        self, exchange: RawExchange, block: int, previous: ReceivedPacket
    ) -> tuple[ReceivedPacket, int]:
        """Return the first copy of `block`, or `previous`, and the number of copies."""
        first, count, until = previous, 0, self._seconds() + self.idle_timeout
        while count < _MAX_COPIES:
            received = await exchange.receive(until)
            if received is None:
                break
            if received.source == previous.source and _is_block(received, block):
                if count == 0:
                    first, until = received, received.received_at + self._copy_seconds
                count += 1
        return first, count


async def _receive_answer(exchange: RawExchange, until: float) -> ReceivedPacket | None:
    """Return the next packet that can answer a read request."""
    while received := await exchange.receive(until):
        if isinstance(received.packet, Oack | ErrorPacket) or _is_block(received, 1):
            return received
    return None


def _option(name: bytes, value: int) -> Options:
    return ((name, b"%d" % value),)


def _observe_option(name: bytes, requested: int, answer: ServerAnswer) -> OptionObservation:
    text = answer.option_value(name)
    value = None if text is None else opt.parse_int(text, opt.TSIZE_RANGE)
    unrequested = tuple(other.decode("ascii", "replace") for other in answer.unrequested)
    result = answer.option_result(name)
    return OptionObservation(name.decode(), requested, result, value, unrequested)


def _is_block(received: ReceivedPacket, block: int) -> bool:
    return isinstance(received.packet, Data) and received.packet.block == block


def _payload(received: ReceivedPacket) -> bytes:
    return received.packet.payload if isinstance(received.packet, Data) else b""


def _answer_kind(packet: Packet) -> AnswerKind:
    if isinstance(packet, Data):
        return AnswerKind.DATA
    return AnswerKind.OACK if isinstance(packet, Oack) else AnswerKind.ERROR
