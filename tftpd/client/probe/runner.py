"""A whole probe: the order of its trials, and where it stops early."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.probe.checks import Checks
from tftpd.client.probe.firmware import FIRMWARE
from tftpd.client.probe.observations import (
    AnswerKind,
    AnswerOrigin,
    Boot,
    Observations,
    OptionObservation,
    OptionResult,
    RolloverResult,
    ThroughputSample,
)
from tftpd.client.probe.rollover import LAST, after_last
from tftpd.client.probe.throughput import sample
from tftpd.net.interfaces import SessionRuntime
from tftpd.protocol import options as opt

PATIENCE = 5.0  # seconds
BLKSIZES = (512, 1024, 1428, 1432, 1448, 1468, 2048, 4096, 8192, 16384, 65464)
WINDOWSIZES = (1, 2, 4, 8, 16, 32, 64)

_ALIKE = (1428, 1432, 1448)  # as fast as 1468
_WHOLE = 1468  # what Ethernet takes whole over IPv4
_IN_VAIN = 2  # failures in a row after which larger values are not tried
_BRIEF = 2.0  # seconds for an answer of a server that has answered before
_LONGER = 1.5  # seconds beyond patience: a repeat after 5 s is usual, and is to be seen
_TIMEOUT = 3  # seconds to ask for; any other number would do
_SHORT = 8  # octets of a block, to see several blocks of a small file
_FEW = 4 * opt.DEFAULT_BLKSIZE
_ROLLOVER_OCTETS = 33 << 20
_ROLLOVER_SECONDS = 10.0
_ROLLOVER_WINDOW = 32

Step = Callable[[str], None]
"""Told what is looked at next."""


class Probe:
    """All trials on one file of a server; `seen` is what came of them so far."""

    def __init__(
        self,
        runtime: SessionRuntime,
        server: ServerEndpoint,
        host: str,
        name: bytes,
        patience: float,
        step: Step,
    ) -> None:
        self._runtime = runtime
        self._server = server
        self._name = name
        self._patience = patience
        self._step = step
        self._trials = Checks(runtime, server, name, patience)
        self._host = host

    async def run(self) -> Observations:
        """Do them. Only the first trial is done where it brings no block. Raises `LocalError`."""
        self._step("a plain read")
        answer = await self._trials.ask()
        address, port = self._server.address[:2]
        name = self._name.decode("utf-8", "surrogateescape")
        seen = Observations(self._host, address, port, name, answer)
        if answer.kind is not AnswerKind.DATA:
            return seen
        self._trials.patience = min(self._patience, _BRIEF)
        seen = await self._options(seen)
        seen = await self._boots(seen)
        if (
            answer.origin is not AnswerOrigin.OTHER_ADDRESS
        ):  # or our own machines would hear nothing
            seen = await self._samples(seen)
        seen = await self._repeats(seen)
        return await self._rollover(seen)

    async def _options(self, seen: Observations) -> Observations:
        self._step("options")
        trials = self._trials
        tsize = await trials.option(opt.TSIZE, 0)
        others = [
            await trials.option(opt.TIMEOUT, _TIMEOUT),
            await trials.option(opt.ROLLOVER, 0),
        ]
        blksizes = await self._climb(BLKSIZES, trials.blksize, "blksize")
        windowsizes = await self._climb(WINDOWSIZES, trials.windowsize, "windowsize")
        return replace(
            seen,
            tsize=tsize, others=tuple(others), blksizes=blksizes, windowsizes=windowsizes,
        )  # fmt: skip

    async def _climb(
        self, values: Sequence[int], trial: Callable[[int], Awaitable[OptionObservation]], name: str
    ) -> tuple[OptionObservation, ...]:
        """One trial after the other, until nothing comes of them any more."""
        done: list[OptionObservation] = []
        for value in values:
            self._step(f"{name} {value}")
            done.append(await trial(value))
            if len(done) >= _IN_VAIN and all(map(_in_vain, done[-_IN_VAIN:])):
                break
        return tuple(done)

    async def _boots(self, seen: Observations) -> Observations:
        boots = []
        for firmware in FIRMWARE:
            self._step(f"as {firmware.name} asks")
            answer, arrived = await self._trials.first_block(firmware.asks)
            boots.append(Boot(firmware.name, answer, arrived))
        return replace(seen, boots=tuple(boots))

    async def _samples(self, seen: Observations) -> Observations:
        passable = seen.passable or (opt.DEFAULT_BLKSIZE,)
        lockstep = {opt.DEFAULT_BLKSIZE, *passable}
        if _WHOLE in lockstep:
            lockstep.difference_update(_ALIKE)
        usual = max(size for size in lockstep if size <= _WHOLE)
        windows = {one.value for one in seen.windowsizes if one.usable and one.value} - {1}
        samples: list[ThroughputSample] = []
        patience = self._trials.patience
        terms = [(size, 1) for size in sorted(lockstep)]
        terms += [(usual, window) for window in sorted(windows)]
        for blksize, windowsize in terms:
            self._step(f"speed with blksize {blksize}, windowsize {windowsize}")
            one = await sample(
                self._runtime, self._server, self._name, blksize, windowsize, patience
            )
            samples.append(one)
        size = next((one.octets for one in samples if one.whole), None)
        return replace(seen, samples=tuple(samples), size=size)

    async def _repeats(self, seen: Observations) -> Observations:
        self._step("what it does twice")
        few = seen.length is not None and seen.length < _FEW
        options: opt.Options = ((opt.BLKSIZE, b"%d" % _SHORT),) if few else ()
        waits = self._patience + _LONGER
        return replace(seen, repeats=await self._trials.repeats(options, waits))

    async def _rollover(self, seen: Observations) -> Observations:
        self._step("what comes after block 65535")
        smallest = await self._trials.option(opt.BLKSIZE, _SHORT)
        granted = smallest.value if smallest.usable and smallest.value else opt.DEFAULT_BLKSIZE
        if seen.length is not None and seen.length < LAST * granted:
            return replace(seen, rollover=RolloverResult.TOO_SMALL)
        if LAST * granted > _ROLLOVER_OCTETS:
            return replace(seen, rollover=RolloverResult.UNTOLD)
        options: opt.Options = ()
        if granted != opt.DEFAULT_BLKSIZE:
            options = ((opt.BLKSIZE, b"%d" % _SHORT),)
        if any(one.value == _ROLLOVER_WINDOW and one.usable for one in seen.windowsizes):
            # atftpd refuses both at once, as its OACK is longer than such a block.
            windowed = (*options, (opt.WINDOWSIZE, b"%d" % _ROLLOVER_WINDOW))
            if (await self._trials.ask(windowed)).kind is AnswerKind.OACK:
                options = windowed
        after = await after_last(
            self._runtime, self._server, self._name, options, _ROLLOVER_SECONDS
        )
        return replace(seen, rollover=after)


def _in_vain(granted: OptionObservation) -> bool:
    """Whether it brought nothing but waiting."""
    nothing_came = granted.arrived is None and not granted.blocks
    return granted.how is OptionResult.SILENT or (granted.usable and nothing_came)
