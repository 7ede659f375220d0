"""A complete probe: the order of the checks, and the conditions under which it ends early."""

from collections.abc import Awaitable, Callable, Sequence

from tftpd.client.probe import observations as obs
from tftpd.client.probe.checks import Checks, detect_rollover, encode_option, measure_throughput
from tftpd.client.probe.exchange import ProbeTarget
from tftpd.client.probe.firmware import FIRMWARE
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
_ROLLOVER_WINDOWSIZE = 32

OptionCheck = Callable[[int], Awaitable[obs.OptionObservation]]
"""Checks an option with the value that it requests."""


class Probe:
    """All checks of one file of a server.

    Args:
        target: The server and the file.
        host: Host as the user gave it.
        idle_timeout: Maximum time to wait for the first answer, in seconds.
        on_step: Called with the description of each check before it starts.
    """

    def __init__(
        self, target: ProbeTarget, host: str, idle_timeout: float, on_step: Callable[[str], None]
    ) -> None:
        self._target = target
        self._host = host
        self._idle_timeout = idle_timeout
        self._on_step = on_step
        self._checks = Checks(target, idle_timeout)

    async def run(self) -> obs.Observations:
        """Run the checks and return their observations.

        Only the first check runs if the server does not answer it with a block.

        Raises:
            LocalError: No port can be opened.
        """
        self._on_step("request without options")
        answer = await self._checks.request_file()
        address, port = self._target.server.address[:2]
        name = self._target.name.decode("utf-8", "surrogateescape")
        observed = obs.Observations(self._host, address, port, name, answer)
        if answer.kind is obs.AnswerKind.DATA:
            self._checks.idle_timeout = min(self._idle_timeout, _SHORT_TIMEOUT_SECONDS)
            await self._check_options(observed)
            await self._check_firmware(observed)
            if answer.origin is not obs.AnswerOrigin.OTHER_ADDRESS:  # which our sessions ignore
                await self._check_throughput(observed)
            await self._check_repetition(observed)
            await self._check_rollover(observed)
        return observed

    async def _check_options(self, observed: obs.Observations) -> None:
        self._on_step("options")
        checks = self._checks
        observed.tsize = await checks.check_option(opt.TSIZE, 0)
        observed.other_options = (
            await checks.check_option(opt.TIMEOUT, _TESTED_TIMEOUT),
            await checks.check_option(opt.ROLLOVER, 0),
        )
        observed.blksizes = await self._check_values("blksize", BLKSIZES, checks.check_blksize)
        observed.windowsizes = await self._check_values(
            "windowsize", WINDOWSIZES, checks.check_windowsize
        )

    async def _check_values(
        self, option: str, values: Sequence[int], check: OptionCheck
    ) -> tuple[obs.OptionObservation, ...]:
        """Check rising values until two in a row have failed."""
        done: list[obs.OptionObservation] = []
        for value in values:
            self._on_step(f"{option} {value}")
            done.append(await check(value))
            if len(done) >= _MAX_FAILURES and all(map(_has_timed_out, done[-_MAX_FAILURES:])):
                break
        return tuple(done)

    async def _check_firmware(self, observed: obs.Observations) -> None:
        for firmware in FIRMWARE:
            self._on_step(f"request of {firmware.name}")
            answer, size = await self._checks.request_first_block(firmware.options)
            reason = firmware.failure_reason(answer, size)
            observed.firmware_answers += (obs.FirmwareAnswer(firmware.name, answer, size, reason),)

    async def _check_throughput(self, observed: obs.Observations) -> None:
        blksizes = {opt.DEFAULT_BLKSIZE, *observed.arriving_blksizes}
        if _ETHERNET_BLKSIZE in blksizes:
            blksizes.difference_update(_SIMILAR_BLKSIZES)
        common = max(size for size in blksizes if size <= _ETHERNET_BLKSIZE)
        pairs = [(blksize, 1) for blksize in sorted(blksizes)]
        pairs += [(common, size) for size in observed.granted_windowsizes if size > 1]
        timeout = self._checks.idle_timeout
        for blksize, windowsize in pairs:
            self._on_step(f"throughput with blksize {blksize}, windowsize {windowsize}")
            sample = await measure_throughput(self._target, blksize, windowsize, timeout)
            observed.samples += (sample,)
            if sample.is_complete and observed.size is None:
                observed.size = sample.n_bytes

    async def _check_repetition(self, observed: obs.Observations) -> None:
        self._on_step("repeated packets")
        size = observed.known_size
        is_small = size is not None and size < _SMALL_FILE_BYTES
        options = encode_option(opt.BLKSIZE, _SMALL_BLKSIZE) if is_small else ()
        max_wait = self._idle_timeout + _EXTRA_WAIT_SECONDS
        observed.repetition = await self._checks.check_repetition(options, max_wait)

    async def _check_rollover(self, observed: obs.Observations) -> None:
        self._on_step("block number after 65535")
        smallest = await self._checks.check_option(opt.BLKSIZE, _SMALL_BLKSIZE)
        blksize = smallest.value if smallest.is_usable and smallest.value else opt.DEFAULT_BLKSIZE
        size = observed.known_size
        if size is not None and size < obs.MAX_BLOCK_NUMBER * blksize:
            observed.rollover = obs.RolloverResult.TOO_SMALL
            return
        windowsize = opt.DEFAULT_WINDOWSIZE
        if _ROLLOVER_WINDOWSIZE in observed.granted_windowsizes:
            # atftpd refuses both options together: its OACK is longer than such a block.
            options = encode_option(opt.WINDOWSIZE, _ROLLOVER_WINDOWSIZE)
            if smallest.is_usable:
                options = (*encode_option(opt.BLKSIZE, _SMALL_BLKSIZE), *options)
            if (await self._checks.request_file(options)).kind is obs.AnswerKind.OACK:
                windowsize = _ROLLOVER_WINDOWSIZE
        observed.rollover = await detect_rollover(self._target, blksize, windowsize)


def _has_timed_out(entry: obs.OptionObservation) -> bool:
    """Return True if a check received no data."""
    has_no_data = entry.first_block_bytes is None and not entry.blocks
    return entry.result is obs.OptionResult.SILENT or (entry.is_usable and has_no_data)
