"""A complete probe: the order of the checks, and the conditions under which it ends early."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.probe.checks import Checks
from tftpd.client.probe.firmware import FIRMWARE
from tftpd.client.probe.observations import (
    AnswerKind,
    AnswerOrigin,
    FirmwareAnswer,
    Observations,
    OptionObservation,
    OptionResult,
    RolloverResult,
    ThroughputSample,
)
from tftpd.client.probe.rollover import MAX_BLOCK_NUMBER, detect_rollover
from tftpd.client.probe.throughput import measure_throughput
from tftpd.net.interfaces import SessionRuntime
from tftpd.protocol import options as opt

BLKSIZES = (512, 1024, 1428, 1432, 1448, 1468, 2048, 4096, 8192, 16384, 65464)
WINDOWSIZES = (1, 2, 4, 8, 16, 32, 64)

_ETHERNET_BLKSIZE = 1468  # largest block in an Ethernet frame over IPv4
_SIMILAR_BLKSIZES = (1428, 1432, 1448)  # the throughput is that of 1468
_MAX_FAILURES = 2  # larger values are not tested after two failures in a row
_SHORT_TIMEOUT_SECONDS = 2.0  # for a server that has answered the first request
_EXTRA_WAIT_SECONDS = 1.5  # a retransmission interval of 5 s is common and must be seen
_TESTED_TIMEOUT = 3  # seconds; any value serves to test the option
_SMALL_BLKSIZE = 8  # bytes; shows several blocks of a small file
_SMALL_FILE_BYTES = 4 * opt.DEFAULT_BLKSIZE
_MAX_ROLLOVER_BYTES = 33 << 20
_MAX_ROLLOVER_SECONDS = 10.0
_ROLLOVER_WINDOWSIZE = 32


class Probe:
    """All checks of one file of a server.

    Args:
        runtime: Clock, ports and threads.
        server: The server.
        host: Host as the user gave it.
        name: Name of the file.
        idle_timeout: Maximum time to wait for the first answer, in seconds.
        on_step: Called with the description of each check before it starts.
    """

    def __init__(
        self,
        runtime: SessionRuntime,
        server: ServerEndpoint,
        host: str,
        name: bytes,
        idle_timeout: float,
        on_step: Callable[[str], None],
    ) -> None:
        self._runtime = runtime
        self._server = server
        self._host = host
        self._name = name
        self._idle_timeout = idle_timeout
        self._on_step = on_step
        self._checks = Checks(runtime, server, name, idle_timeout)

    async def run(self) -> Observations:
        """Run the checks and return their observations.

        Only the first check runs if the server does not answer it with a block.

        Raises:
            LocalError: No port can be opened.
        """
        self._on_step("request without options")
        answer = await self._checks.request_file()
        address, port = self._server.address[:2]
        name = self._name.decode("utf-8", "surrogateescape")
        observed = Observations(self._host, address, port, name, answer)
        if answer.kind is not AnswerKind.DATA:
            return observed
        self._checks.idle_timeout = min(self._idle_timeout, _SHORT_TIMEOUT_SECONDS)
        observed = await self._check_options(observed)
        observed = await self._check_firmware(observed)
        if answer.origin is not AnswerOrigin.OTHER_ADDRESS:  # our sessions ignore other addresses
            observed = await self._check_throughput(observed)
        observed = await self._check_repetition(observed)
        return await self._check_rollover(observed)

    async def _check_options(self, observed: Observations) -> Observations:
        self._on_step("options")
        checks = self._checks
        return replace(
            observed,
            tsize=await checks.check_option(opt.TSIZE, 0),
            other_options=(
                await checks.check_option(opt.TIMEOUT, _TESTED_TIMEOUT),
                await checks.check_option(opt.ROLLOVER, 0),
            ),
            blksizes=await self._check_values("blksize", BLKSIZES, checks.check_blksize),
            windowsizes=await self._check_values(
                "windowsize", WINDOWSIZES, checks.check_windowsize
            ),
        )

    async def _check_values(
        self,
        option: str,
        values: Sequence[int],
        check: Callable[[int], Awaitable[OptionObservation]],
    ) -> tuple[OptionObservation, ...]:
        """Check rising values until two in a row have failed."""
        done: list[OptionObservation] = []
        for value in values:
            self._on_step(f"{option} {value}")
            done.append(await check(value))
            if len(done) >= _MAX_FAILURES and all(map(_has_timed_out, done[-_MAX_FAILURES:])):
                break
        return tuple(done)

    async def _check_firmware(self, observed: Observations) -> Observations:
        answers = []
        for firmware in FIRMWARE:
            self._on_step(f"request of {firmware.name}")
            answer, size = await self._checks.request_first_block(firmware.options)
            answers.append(FirmwareAnswer(firmware.name, answer, size))
        return replace(observed, firmware_answers=tuple(answers))

    async def _check_throughput(self, observed: Observations) -> Observations:
        arriving = observed.arriving_blksizes or (opt.DEFAULT_BLKSIZE,)
        blksizes = {opt.DEFAULT_BLKSIZE, *arriving}
        if _ETHERNET_BLKSIZE in blksizes:
            blksizes.difference_update(_SIMILAR_BLKSIZES)
        common = max(size for size in blksizes if size <= _ETHERNET_BLKSIZE)
        usable = (entry for entry in observed.windowsizes if entry.is_usable)
        windowsizes = {entry.value for entry in usable if entry.value} - {1}
        samples: list[ThroughputSample] = []
        pairs = [(blksize, 1) for blksize in sorted(blksizes)]
        pairs += [(common, windowsize) for windowsize in sorted(windowsizes)]
        for blksize, windowsize in pairs:
            self._on_step(f"throughput with blksize {blksize}, windowsize {windowsize}")
            timeout = self._checks.idle_timeout
            samples.append(
                await measure_throughput(
                    self._runtime, self._server, self._name, blksize, windowsize, timeout
                )
            )
        size = next((sample.n_bytes for sample in samples if sample.is_complete), None)
        return replace(observed, samples=tuple(samples), size=size)

    async def _check_repetition(self, observed: Observations) -> Observations:
        self._on_step("repeated packets")
        size = observed.known_size
        is_small = size is not None and size < _SMALL_FILE_BYTES
        options: opt.Options = ((opt.BLKSIZE, b"%d" % _SMALL_BLKSIZE),) if is_small else ()
        max_wait = self._idle_timeout + _EXTRA_WAIT_SECONDS
        return replace(observed, repetition=await self._checks.check_repetition(options, max_wait))

    async def _check_rollover(self, observed: Observations) -> Observations:
        self._on_step("block number after 65535")
        smallest = await self._checks.check_option(opt.BLKSIZE, _SMALL_BLKSIZE)
        blksize = smallest.value if smallest.is_usable and smallest.value else opt.DEFAULT_BLKSIZE
        size = observed.known_size
        if size is not None and size < MAX_BLOCK_NUMBER * blksize:
            return replace(observed, rollover=RolloverResult.TOO_SMALL)
        if MAX_BLOCK_NUMBER * blksize > _MAX_ROLLOVER_BYTES:
            return replace(observed, rollover=RolloverResult.UNKNOWN)
        options: opt.Options = ()
        if blksize != opt.DEFAULT_BLKSIZE:
            options = ((opt.BLKSIZE, b"%d" % _SMALL_BLKSIZE),)
        usable = (entry for entry in observed.windowsizes if entry.is_usable)
        if any(entry.value == _ROLLOVER_WINDOWSIZE for entry in usable):
            # atftpd refuses both options together: its OACK is longer than such a block.
            windowed = (*options, (opt.WINDOWSIZE, b"%d" % _ROLLOVER_WINDOWSIZE))
            if (await self._checks.request_file(windowed)).kind is AnswerKind.OACK:
                options = windowed
        rollover = await detect_rollover(
            self._runtime, self._server, self._name, options, _MAX_ROLLOVER_SECONDS
        )
        return replace(observed, rollover=rollover)


def _has_timed_out(entry: OptionObservation) -> bool:
    """Return True if a check received no data."""
    has_no_data = entry.first_block_bytes is None and not entry.blocks
    return entry.result is OptionResult.SILENT or (entry.is_usable and has_no_data)
