"""What a probe saw and found, as a table for people or an object for programs."""

import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from tftpd.access.paths import printable_name
from tftpd.client.probe.findings import Finding, Level
from tftpd.client.probe.firmware import boot_failure_reason
from tftpd.client.probe.observations import (
    Answer,
    AnswerKind,
    AnswerOrigin,
    Observations,
    OptionObservation,
    OptionResult,
    Repeats,
    RolloverResult,
    ThroughputSample,
)
from tftpd.client.probe.runner import BLKSIZES
from tftpd.protocol import options as opt

WIDTH = 79

_LABEL = 14  # columns of the labels
_MARKS = {Level.BREAKS: "FAILS", Level.RISK: "risk", Level.NOTE: "note"}
_MARK = 7  # columns of the marks


def table(seen: Observations, found: tuple[Finding, ...]) -> str:
    """Lines of at most `WIDTH` columns, if names and addresses are not long."""
    parts = [
        _head(seen),
        _blksizes(seen),
        _windowsizes(seen),
        _boots(seen),
        _findings(found),
    ]
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part)))


def plain(seen: Observations, found: tuple[Finding, ...], status: int) -> dict[str, Any]:
    """The same as an object of JSON."""
    said = _plain(seen)
    said["boots"] = [
        {"firmware": boot.firmware, "objection": boot_failure_reason(boot)} | _plain(boot)
        for boot in seen.boots
    ]
    for sample, numbers in zip(seen.samples, said["samples"], strict=True):
        numbers["rate"] = sample.rate
    return {**said, "findings": [_plain(one) for one in found], "status": status}


def _head(seen: Observations) -> Iterator[str]:
    answer = seen.answer
    yield f"{printable_name(seen.name.encode('utf-8', 'surrogateescape'))} on {_place(seen)}"
    yield ""
    if answer.kind is AnswerKind.NOTHING:
        yield _line("answer", f"none to {answer.requests} requests")
        return
    yield _line("first answer", _answer(answer))
    if answer.kind is not AnswerKind.DATA:
        return
    yield _line("comes from", f"{answer.address} port {answer.port}, {_ORIGINS[answer.origin]}")
    yield _line("size", _size(seen))
    for one in seen.others:
        yield _line(one.option, f"{one.asked} asked: {_outcome(one)}")
    if seen.repeats is not None:
        yield from _repeats(seen.repeats)
    after = seen.rollover
    if after is not None:
        untold = after in (RolloverResult.TOO_SMALL, RolloverResult.UNTOLD)
        yield _line("block 65535", after.value if untold else f"followed by {after.value}")


def _answer(answer: Answer) -> str:
    if answer.seconds is None:
        return ""
    tries = "" if answer.requests == 1 else f", to request {answer.requests}"
    if answer.kind is AnswerKind.ERROR:
        text = printable_name(answer.text.encode("utf-8", "replace"))
        return f"ERROR {answer.code}, {text}, after {_time(answer.seconds)}{tries}"
    return f"after {_time(answer.seconds)}{tries}"


def _size(seen: Observations) -> str:
    tsize = seen.tsize
    if tsize is None or tsize.value is None:
        return "not told (tsize)" if seen.size is None else f"{seen.size:,} octets; tsize: not told"
    told = f"{tsize.value:,} octets"
    if seen.size is None:
        return f"{told} (tsize{'; not read to its end' if seen.samples else ''})"
    if tsize.value == seen.size:
        return f"{told}, and tsize says so"
    return f"{seen.size:,} octets; tsize: {told} (!)"


def _repeats(repeats: Repeats) -> Iterator[str]:
    if repeats.after is not None:
        yield _line("no ACK", f"the block comes again after {_time(repeats.after)}")
    elif repeats.waited:
        instead = ", only what is no TFTP" if repeats.garbled else ""
        text = f"the block does not come again within {repeats.waited:g} s{instead}"
        yield _line("no ACK", text)
    if repeats.copies:
        times = ", ".join(map(str, repeats.copies))
        once = max(repeats.copies) == 1
        said = "the next block comes once" if once else f"the next blocks come {times} times"
        yield _line("ACK twice", said)
    if repeats.ports is not None:
        count = "one transfer" if repeats.ports == 1 else f"{repeats.ports} transfers"
        yield _line("request twice", count)


def _blksizes(seen: Observations) -> Iterator[str]:
    if not seen.blksizes:
        return
    rates = {one.blksize: one for one in seen.samples if one.windowsize == 1}
    yield f"{'blksize':>9}  {'answer':<14}{'arrives':<16}{'in lock-step':>14}"
    for one in seen.blksizes:
        rate = _rate(rates.get(one.value or opt.DEFAULT_BLKSIZE)) if one.usable else ""
        yield f"{one.asked:>9}  {_outcome(one):<14}{_arrives(one):<16}{rate:>14}".rstrip()
    if len(seen.blksizes) < len(BLKSIZES):
        yield f"{'larger':>9}  not tried"


def _windowsizes(seen: Observations) -> Iterator[str]:
    if not seen.windowsizes:
        return
    outcomes = {_outcome(one) for one in seen.windowsizes}
    if len(outcomes) == 1 and not any(one.usable for one in seen.windowsizes):
        asked = f"{seen.windowsizes[0].asked} to {seen.windowsizes[-1].asked}"
        yield f"{'window':>9}  answer"
        yield f"{asked:>9}  {outcomes.pop()}"
        return
    windowed = [one for one in seen.samples if one.windowsize > 1]
    blksize = windowed[0].blksize if windowed else None
    rates = {one.windowsize: one for one in seen.samples if one.blksize == blksize}
    head = "" if blksize is None else f"blksize {blksize}"
    yield f"{'window':>9}  {'answer':<14}{'at once':<16}{head:>14}".rstrip()
    for one in seen.windowsizes:
        rate = _rate(rates.get(one.value or 1)) if one.usable else ""
        blocks = "" if one.blocks is None else f"{one.blocks}{' (all)' if one.ended else ''}"
        yield f"{one.asked:>9}  {_outcome(one):<14}{blocks:<16}{rate:>14}".rstrip()


def _boots(seen: Observations) -> Iterator[str]:
    if not seen.boots:
        return
    yield f"{'asked as by':<14}{'answer':<50}reads it"
    for boot in seen.boots:
        answer = boot.answer
        said = " ".join(
            f"{printable_name(name)}={printable_name(value)}" for name, value in answer.options
        )
        said = said or {
            AnswerKind.DATA: "no OACK, DATA",
            AnswerKind.ERROR: f"ERROR {answer.code}",
        }.get(answer.kind, "none")
        yield f"{boot.firmware:<14}{said:<50}{'yes' if boot_failure_reason(boot) is None else 'NO'}"


def _findings(found: tuple[Finding, ...]) -> Iterator[str]:
    for one in found:
        yield from textwrap.wrap(
            one.text,
            WIDTH,
            initial_indent=f"{_MARKS[one.level]:<{_MARK}}",
            subsequent_indent=" " * _MARK,
            break_on_hyphens=False,
        )


def _outcome(one: OptionObservation) -> str:
    if one.how is OptionResult.LOWERED or (
        one.how is OptionResult.ILLEGAL and one.value is not None
    ):
        return f"{one.value}{' (!)' if one.how is OptionResult.ILLEGAL else ''}"
    return str(one.how.value)


def _arrives(one: OptionObservation) -> str:
    if not one.usable:
        return ""
    if one.arrived is None:
        return "NEVER"
    return f"{one.arrived}, all of it" if one.ended else "yes"


def _rate(sample: ThroughputSample | None) -> str:
    if sample is None:
        return ""
    if sample.problem:
        return "broke off"
    if sample.rate is None or sample.octets < _TELLING:
        return "-"
    return f"{sample.rate / 1e6:.1f} MB/s"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < _ONE else f"{seconds:.1f} s"


def _line(label: str, text: str) -> str:
    return f"{label:<{_LABEL}}{text}"


def _place(seen: Observations) -> str:
    address = "" if seen.host == seen.address else f" ({seen.address})"
    return f"{seen.host}{address} port {seen.port}"


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.decode("ascii", "backslashreplace")
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


_ONE = 0.9995  # seconds; what is less is told in milliseconds
_TELLING = 16 << 10  # octets; a shorter transfer has no speed to speak of
_ORIGINS = {
    AnswerOrigin.OWN_PORT: "a port of its own for each transfer",
    AnswerOrigin.SAME_PORT: "the port that was asked",
    AnswerOrigin.OTHER_ADDRESS: "NOT the address that was asked",
    None: "",
}
