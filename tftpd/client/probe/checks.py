"""The single checks of a probe. Each requests the file at least once and observes one property.

Each check has a port of its own, and ends open transfers with ERROR 0. A check returns what it
observed; `findings` interprets it. Two of them read the file with the client's own transfers:
`measure_throughput` and `detect_rollover`.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from threading import Event

from tftpd.client.probe import observations as obs
from tftpd.client.probe.exchange import ProbeTarget, RawExchange, ReceivedPacket, open_exchange
from tftpd.client.transfer import DownloadTransfer, host_of
from tftpd.net.interfaces import Clock
from tftpd.net.types import SocketAddress
from tftpd.protocol import options as opt
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.negotiation import Direction, TransferOptions
from tftpd.protocol.packets import DATA_PREFIX, HEADER_BYTES, Ack, ErrorPacket, Oack
from tftpd.protocol.request import TransferRequest
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy

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

MAX_SAMPLE_BYTES = 8 << 20
MAX_SAMPLE_SECONDS = 1.0

_MAX_ROLLOVER_SECONDS = 10.0
_MAX_SILENCE_SECONDS = 2.5  # after block 65535; most servers retransmit within 2 s

_ENDED_BY_PROBE = (Outcome.STOPPED, Outcome.FAILED)


class Checks:
    """Checks of one file of one server. All of them raise `LocalError` if no port can be opened.

    Args:
        target: The server and the file.
        idle_timeout: Maximum time to wait for an answer, in seconds.
    """

    def __init__(self, target: ProbeTarget, idle_timeout: float) -> None:
        self.idle_timeout = idle_timeout
        self._target = target
        self._seconds = target.runtime.clock.seconds
        self._copy_seconds = _COPY_SECONDS

    async def request_file(self, options: opt.Options = ()) -> obs.ServerAnswer:
        """Return the answer to a request with these options."""
        with open_exchange(self._target) as exchange:
            answer, _ = await self._request(exchange, options)
        if answer.seconds is not None and answer.requests == 1:
            seconds = _COPY_SECONDS + _COPY_ROUND_TRIPS * answer.seconds
            self._copy_seconds = min(seconds, _MAX_COPY_SECONDS)
        return answer

    async def request_first_block(
        self, options: opt.Options
    ) -> tuple[obs.ServerAnswer, int | None]:
        """Return the answer and the size of the first block; None if no block arrives."""
        with open_exchange(self._target) as exchange:
            answer, received = await self._request(exchange, options)
            block = await self._receive_first_block(exchange, received)
        return answer, None if block is None else len(block.payload)

    async def check_blksize(self, requested: int) -> obs.OptionObservation:
        """Request a block size in bytes, and observe whether such a block arrives."""
        answer, size = await self.request_first_block(encode_option(opt.BLKSIZE, requested))
        observation = _observe_option(opt.BLKSIZE, requested, answer)
        blksize = observation.value or opt.DEFAULT_BLKSIZE
        file_ended = size is not None and size < blksize
        return replace(observation, first_block_bytes=size, file_ended=file_ended)

    async def check_option(self, name: bytes, requested: int) -> obs.OptionObservation:
        """Request one option, and observe the answer."""
        answer = await self.request_file(encode_option(name, requested))
        return _observe_option(name, requested, answer)

    async def check_windowsize(self, requested: int) -> obs.OptionObservation:
        """Request a window size in blocks, and count the blocks before the server waits."""
        options = encode_option(opt.WINDOWSIZE, requested)
        with open_exchange(self._target) as exchange:
            answer, received = await self._request(exchange, options)
            observation = _observe_option(opt.WINDOWSIZE, requested, answer)
            if not observation.value:
                return observation
            block = await self._receive_first_block(exchange, received)
            blocks, file_ended = await self._count_window(exchange, block, 2 * observation.value)
        return replace(observation, blocks=blocks, file_ended=file_ended)

    async def check_repetition(self, options: opt.Options, max_wait: float) -> obs.Repetition:
        """Observe which packets the server sends more than once.

        Args:
            options: Options that request small blocks, if the file is small.
            max_wait: Time to wait for a retransmission, in seconds.
        """
        transfers = await self._count_transfers()
        copies = await self._count_copies(options)
        repetition = await self._measure_retransmission(max_wait)
        return replace(repetition, copies=copies, transfers=transfers)

    async def _measure_retransmission(self, max_wait: float) -> obs.Repetition:
        with open_exchange(self._target) as exchange:
            _, first = await self._request(exchange, ())
            if first is None or not first.is_block(1):
                return obs.Repetition()
            until = first.received_at + max_wait
            second = await exchange.receive_block(1, first.source, until)
        if second is None or not second.is_block(1):
            return obs.Repetition(max_wait, is_malformed=exchange.malformed > 0)
        return obs.Repetition(max_wait, second.received_at - first.received_at)

    async def _count_copies(self, options: opt.Options) -> tuple[int, ...]:
        """Return the number of copies of blocks 2, 3 and 4 after a duplicate ACK of block 1.

        Each copy is acknowledged, as by the clients in RFC 1123 section 4.2.3.1. The result is
        shorter if the file has fewer blocks.
        """
        counts = []
        with open_exchange(self._target) as exchange:
            _, received = await self._request(exchange, options)
            first = await self._receive_first_block(exchange, received)
            if first is None:
                return ()
            n_acks = 2
            for number in _COUNTED_BLOCKS:
                for _ in range(n_acks):
                    exchange.send(Ack(number - 1), first.source)
                n_acks, size = await self._count_block(exchange, number, first.source)
                if n_acks:
                    counts.append(n_acks)
                if not n_acks or size < len(first.payload):
                    break
        return tuple(counts)

    async def _count_transfers(self) -> int | None:
        """Return the number of ports that answer a request that is sent twice from one port."""
        with open_exchange(self._target) as exchange:
            _, packet = await self._request(exchange, ())
            if packet is None or not packet.is_block(1):
                return None
            sources = {packet.source}
            exchange.send_request(())
            until = self._seconds() + _SECOND_TRANSFER_SECONDS
            while packet := await exchange.receive(until):
                if packet.is_block(1):
                    sources.add(packet.source)
        return len(sources)

    async def _request(
        self, exchange: RawExchange, options: opt.Options
    ) -> tuple[obs.ServerAnswer, ReceivedPacket | None]:
        """Send the request until it is answered; return the answer and its packet."""
        started = self._seconds()
        until = started + self.idle_timeout
        interval, requests = FIRST_RETRY_SECONDS, 0
        received = None
        while received is None and self._seconds() < until:
            exchange.send_request(options)
            requests += 1
            received = await _receive_answer(exchange, min(self._seconds() + interval, until))
            interval *= 2
        answer = obs.ServerAnswer(options, requests=requests, malformed=exchange.malformed)
        if received is None:
            return answer, None
        address, port = received.source[:2]
        origin, seconds = self._origin(received.source), received.received_at - started
        answer = replace(answer, address=address, port=port, origin=origin, seconds=seconds)
        match received.packet:
            case Oack(granted):
                answer = replace(answer, kind=obs.AnswerKind.OACK, options=granted)
            case ErrorPacket(code, text):
                answer = replace(answer, kind=obs.AnswerKind.ERROR, code=code, text=text)
            case _:
                answer = replace(answer, kind=obs.AnswerKind.DATA)
        return answer, received

    def _origin(self, source: SocketAddress) -> obs.AnswerOrigin:
        server = self._target.server.address
        if host_of(source) != host_of(server):
            return obs.AnswerOrigin.OTHER_ADDRESS
        return obs.AnswerOrigin.SAME_PORT if source[1] == server[1] else obs.AnswerOrigin.OWN_PORT

    async def _receive_first_block(
        self, exchange: RawExchange, answer: ReceivedPacket | None
    ) -> ReceivedPacket | None:
        """Return block 1. After an OACK, send ACK 0 until the block arrives."""
        if answer is None or not isinstance(answer.packet, Oack):
            return answer if answer and answer.is_block(1) else None
        until = self._seconds() + self.idle_timeout
        while self._seconds() < until:
            exchange.send(Ack(0), answer.source)
            retry_at = min(self._seconds() + _ACK_RETRY_SECONDS, until)
            received = await exchange.receive_block(1, answer.source, retry_at)
            if received is not None:
                return received if received.is_block(1) else None
        return None

    async def _count_window(
        self, exchange: RawExchange, block: ReceivedPacket | None, max_blocks: int
    ) -> tuple[int, bool]:
        """Count the blocks until the server waits for an ACK.

        Args:
            exchange: The exchange.
            block: The first block; None if it did not arrive.
            max_blocks: Number of blocks that are counted at most.

        Returns:
            The number of blocks, and True if the file ended.
        """
        blocks = 0
        while block is not None and block.is_block(blocks + 1) and blocks < max_blocks:
            blocks += 1
            if len(block.payload) < opt.DEFAULT_BLKSIZE:
                return blocks, True
            until = block.received_at + self._copy_seconds
            block = await exchange.receive_block(blocks + 1, block.source, until)
        return blocks, False

    async def _count_block(
        self, exchange: RawExchange, number: int, source: SocketAddress
    ) -> tuple[int, int]:
        """Return the number of copies of a block, and the size of the block in bytes."""
        count, size, until = 0, 0, self._seconds() + self.idle_timeout
        while count < _MAX_COPIES:
            received = await exchange.receive_block(number, source, until)
            if received is None or not received.is_block(number):
                break
            if count == 0:
                size, until = len(received.payload), received.received_at + self._copy_seconds
            count += 1
        return count, size


async def _receive_answer(exchange: RawExchange, until: float) -> ReceivedPacket | None:
    """Return the next packet that can answer a read request."""
    while received := await exchange.receive(until):
        if isinstance(received.packet, Oack | ErrorPacket) or received.is_block(1):
            return received
    return None


def encode_option(name: bytes, value: int) -> opt.Options:
    """Return the options of a request with one option."""
    return ((name, b"%d" % value),)


def _observe_option(name: bytes, requested: int, answer: obs.ServerAnswer) -> obs.OptionObservation:
    text = answer.option_value(name)
    value = None if text is None else opt.parse_int(text, opt.RANGES[opt.TSIZE])
    result = answer.option_result(name)
    return obs.OptionObservation(name.decode(), requested, result, value, answer.unrequested)


class CountingSink:
    """Sink that counts the received bytes and discards them.

    Args:
        clock: Clock for `seconds`.
        max_bytes: Number of bytes after which the transfer is ended.

    Attributes:
        n_bytes: Number of bytes received.
        seconds: Time from the negotiation to the last block.
    """

    sha256 = ""
    blocking_device: int | None = None
    is_full = False

    def __init__(self, clock: Clock, max_bytes: float) -> None:
        self.n_bytes = 0
        self.seconds = 0.0
        self._now = clock.seconds
        self._started = 0.0
        self._max_bytes = max_bytes

    def open(self, _: TransferOptions) -> "CountingSink":
        """Return the sink, after the options were negotiated."""
        self._started = self._now()
        return self

    def append(self, payloads: Sequence[bytes]) -> None:
        """Count blocks; raise `RequestRefused` when `max_bytes` is reached."""
        self.n_bytes += sum(map(len, payloads))
        self.seconds = self._now() - self._started
        if self.n_bytes >= self._max_bytes:
            raise RequestRefused(ErrorCode.NOT_DEFINED, text=ErrorText.CLIENT_DONE)

    def commit(self) -> None:
        """Do nothing: no data is stored."""

    flush = discard = commit


class RolloverTransfer(DownloadTransfer):
    """A download that ends with the block after block 65535.

    Attributes:
        next_block: Number of that block; None if it has not arrived.
    """

    next_block: int | None = None

    def _receive_data(self, datagrams: Sequence[bytes], now: float) -> None:
        """Handle datagrams one by one: one of them may be the block after block 65535."""
        for datagram in datagrams:
            is_block = datagram.startswith(DATA_PREFIX) and len(datagram) >= HEADER_BYTES
            if is_block and self.machine.blocks == obs.MAX_BLOCK_NUMBER:
                block = int.from_bytes(datagram[2:HEADER_BYTES], "big")
                # A block of the last window may be late.
                if block < obs.MAX_BLOCK_NUMBER - self.machine.options.windowsize:
                    self.next_block = block
                    self.cancel()
                    return
            super()._receive_data((datagram,), now)


async def measure_throughput(
    target: ProbeTarget, blksize: int, windowsize: int, idle_timeout: float
) -> obs.ThroughputSample:
    """Read the beginning of a file and return the throughput.

    Args:
        target: The server and the file.
        blksize: Requested block size in bytes.
        windowsize: Requested window size in blocks.
        idle_timeout: Time without an answer, in seconds, after which the transfer fails.

    Raises:
        LocalError: No port can be opened.
    """
    request = TransferRequest(Direction.READ, target.name, blksize=blksize, windowsize=windowsize)
    policy = RetransmitPolicy(idle_timeout=idle_timeout)
    sink = CountingSink(target.runtime.clock, MAX_SAMPLE_BYTES)
    transfer = DownloadTransfer(request, target.server, policy, sink.open)
    result = await _run_for(MAX_SAMPLE_SECONDS, transfer, target)
    is_ended_by_probe = result.code == ErrorCode.NOT_DEFINED and result.outcome in _ENDED_BY_PROBE
    has_failed = result.outcome is not Outcome.DONE and not is_ended_by_probe
    # A transfer that failed may have no negotiated options: report the requested ones.
    options = request if has_failed else result
    return obs.ThroughputSample(
        blksize=options.blksize,
        windowsize=options.windowsize,
        n_bytes=sink.n_bytes,
        seconds=sink.seconds,
        retransmits=result.retransmits,
        is_complete=result.outcome is Outcome.DONE,
        failure=(result.detail or result.outcome.value) if has_failed else "",
    )


async def detect_rollover(target: ProbeTarget, blksize: int, windowsize: int) -> obs.RolloverResult:
    """Read a file until the block after 65535, and return that block's number.

    Args:
        target: The server and the file.
        blksize: Requested block size in bytes.
        windowsize: Requested window size in blocks.

    Raises:
        LocalError: No port can be opened.
    """
    request = TransferRequest(Direction.READ, target.name, blksize=blksize, windowsize=windowsize)
    policy = RetransmitPolicy(idle_timeout=_MAX_SILENCE_SECONDS)
    sink = CountingSink(target.runtime.clock, inf)
    # As for a broadcast, the answer may come from another address of the server.
    server = replace(target.server, broadcast=True)
    transfer = RolloverTransfer(request, server, policy, sink.open)
    result = await _run_for(_MAX_ROLLOVER_SECONDS, transfer, target)
    if transfer.next_block is not None:
        results = {0: obs.RolloverResult.ZERO, 1: obs.RolloverResult.ONE}
        return results.get(transfer.next_block, obs.RolloverResult.OTHER)
    if result.outcome is Outcome.DONE:
        return obs.RolloverResult.TOO_SMALL
    if result.blocks < obs.MAX_BLOCK_NUMBER:
        return obs.RolloverResult.UNKNOWN
    if result.outcome is Outcome.TIMED_OUT:
        return obs.RolloverResult.NOTHING
    has_error = result.outcome is Outcome.ABORTED
    return obs.RolloverResult.ERROR if has_error else obs.RolloverResult.UNKNOWN


async def _run_for(
    max_seconds: float, transfer: DownloadTransfer, target: ProbeTarget
) -> TransferResult:
    """Run a transfer, end it after `max_seconds`, and return its result."""
    transfer.cancelled, transfer.cancel_text = Event(), ErrorText.CLIENT_DONE
    timer = target.runtime.clock.callLater(max_seconds, transfer.cancelled.set)
    try:
        await target.run(transfer)
    finally:
        transfer.cancelled.set()  # if the probe was cancelled
        if timer.active():
            timer.cancel()
    return transfer.make_result()
