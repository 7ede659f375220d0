"""Report of a probe: a table for people, or an object for JSON."""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from enum import Enum

from tftpd.access.paths import printable_name
from tftpd.client.probe import observations as obs
from tftpd.client.probe.findings import Finding, Level
from tftpd.client.probe.runner import BLKSIZES
from tftpd.net.packet_text import describe_options
from tftpd.protocol import options as opt

MAX_LINE_COLUMNS = 79

_LABEL_COLUMNS = 18
_LEVEL_COLUMNS = 7
_LEVEL_WORDS = {Level.BREAKS: "FAILS", Level.RISK: "risk", Level.NOTE: "note"}
_MIN_RATE_SAMPLE_BYTES = 16 << 10  # the rate of a shorter transfer means nothing
_MAX_MILLISECONDS = 0.9995  # seconds; shorter times are printed in milliseconds
_ORIGIN_TEXTS = {
    obs.AnswerOrigin.OWN_PORT: "a new port for each transfer",
    obs.AnswerOrigin.SAME_PORT: "the port of the request",
    obs.AnswerOrigin.OTHER_ADDRESS: "NOT the address of the request",
    None: "",
}


def format_report(observed: obs.Observations, findings: tuple[Finding, ...]) -> str:
    """Return the report as text.

    The lines have at most `MAX_LINE_COLUMNS` columns, unless names or addresses are long.
    """
    sections = (_format_summary, _format_blksizes, _format_windowsizes, _format_firmware)
    parts = ["\n".join(section(observed)) for section in sections]
    parts.append("\n".join(_format_findings(findings)))
    return "\n\n".join(filter(None, parts))


def format_json(observed: obs.Observations, findings: tuple[Finding, ...], status: int) -> str:
    """Return the report as one JSON object.

    Its keys are the attributes of `Observations`, `findings`, and the exit status as `status`.
    """
    values = asdict(observed)
    for sample, converted in zip(observed.samples, values["samples"], strict=True):
        converted["bytes"] = converted.pop("n_bytes")
        converted["rate"] = sample.rate
    values |= {"findings": [asdict(finding) for finding in findings], "status": status}
    return json.dumps(values, default=_to_json)


def _format_summary(observed: obs.Observations) -> Iterator[str]:
    answer = observed.answer
    address = "" if observed.host == observed.address else f" ({observed.address})"
    name = printable_name(observed.name.encode("utf-8", "surrogateescape"))
    yield f"{name} on {observed.host}{address} port {observed.port}"
    yield ""
    if answer.kind is obs.AnswerKind.NOTHING:
        yield _format_line("answer", f"none to {answer.requests} requests")
        return
    yield _format_line("first answer", _format_answer(answer))
    if answer.kind is not obs.AnswerKind.DATA:
        return
    origin = _ORIGIN_TEXTS[answer.origin]
    yield _format_line("source", f"{answer.address} port {answer.port}, {origin}")
    yield _format_line("file size", _format_size(observed))
    for entry in observed.other_options:
        yield _format_line(entry.option, f"requested {entry.requested}: {_format_result(entry)}")
    if observed.repetition is not None:
        yield from _format_repetition(observed.repetition)
    rollover = observed.rollover
    if rollover is not None:
        is_unknown = rollover in (obs.RolloverResult.TOO_SMALL, obs.RolloverResult.UNKNOWN)
        text = rollover.value if is_unknown else f"followed by {rollover.value}"
        yield _format_line("block 65535", text)


def _format_answer(answer: obs.ServerAnswer) -> str:
    text = f"after {_format_seconds(answer.seconds or 0.0)}"
    if answer.kind is obs.AnswerKind.ERROR:
        message = printable_name(answer.text.encode("utf-8", "replace"))
        text = f"ERROR {answer.code}, {message}, {text}"
    return text if answer.requests == 1 else f"{text}, to request {answer.requests}"


def _format_size(observed: obs.Observations) -> str:
    size = observed.size
    tsize = None if observed.tsize is None else observed.tsize.value
    if tsize is None:
        return "unknown, no tsize" if size is None else f"{size:,} bytes, no tsize"
    if size is None:
        return f"{tsize:,} bytes (tsize{', not read to its end' if observed.samples else ''})"
    if tsize == size:
        return f"{size:,} bytes, equal to tsize"
    return f"{size:,} bytes, but tsize is {tsize:,} bytes (!)"


def _format_repetition(repetition: obs.Repetition) -> Iterator[str]:
    if repetition.waited:
        malformed = ", only a malformed packet" if repetition.is_malformed else ""
        text = f"the block is not sent again within {repetition.waited:g} s{malformed}"
        if repetition.interval is not None:
            text = f"the block is sent again after {_format_seconds(repetition.interval)}"
        yield _format_line("missing ACK", text)
    if repetition.copies:
        copies = ", ".join(map(str, repetition.copies))
        is_once = max(repetition.copies) == 1
        text = "the next block is sent once" if is_once else f"the next blocks: {copies} copies"
        yield _format_line("duplicate ACK", text)
    if repetition.transfers is not None:
        plural = "" if repetition.transfers == 1 else "s"
        text = f"starts {repetition.transfers} transfer{plural}"
        yield _format_line("duplicate request", text)


def _format_blksizes(observed: obs.Observations) -> Iterator[str]:
    if not observed.blksizes:
        return
    samples = {sample.blksize: sample for sample in observed.samples if sample.windowsize == 1}
    yield f"{'blksize':>9}  {'answer':<14}{'block arrives':<16}{'window of 1':>14}"
    for entry in observed.blksizes:
        sample = samples.get(entry.value or opt.DEFAULT_BLKSIZE)
        yield _format_row(entry, _format_arrival(entry), sample)
    if len(observed.blksizes) < len(BLKSIZES):
        yield f"{'larger':>9}  not tested"


def _format_windowsizes(observed: obs.Observations) -> Iterator[str]:
    entries = observed.windowsizes
    if not entries:
        return
    results = {_format_result(entry) for entry in entries}
    if len(results) == 1 and not any(entry.is_usable for entry in entries):
        values = f"{entries[0].requested} to {entries[-1].requested}"
        yield f"{'window':>9}  answer"
        yield f"{values:>9}  {results.pop()}"
        return
    blksize = next((s.blksize for s in observed.samples if s.windowsize > 1), None)
    samples = {s.windowsize: s for s in observed.samples if s.blksize == blksize}
    heading = "" if blksize is None else f"blksize {blksize}"
    yield f"{'window':>9}  {'answer':<14}{'blocks at once':<16}{heading:>14}".rstrip()
    for entry in entries:
        blocks = "" if entry.blocks is None else str(entry.blocks)
        whole_file = " (whole file)" if blocks and entry.file_ended else ""
        yield _format_row(entry, blocks + whole_file, samples.get(entry.value or 1))


def _format_row(
    entry: obs.OptionObservation, arrival: str, sample: obs.ThroughputSample | None
) -> str:
    rate = _format_rate(sample) if entry.is_usable else ""
    row = f"{entry.requested:>9}  {_format_result(entry):<14}{arrival:<16}{rate:>14}"
    return row.rstrip()


def _format_firmware(observed: obs.Observations) -> Iterator[str]:
    if not observed.firmware_answers:
        return
    yield f"{'firmware':<14}{'answer to its request':<50}boots"
    for entry in observed.firmware_answers:
        answer = entry.answer
        if answer.options:
            text = " ".join(describe_options(answer.options))
        elif answer.kind is obs.AnswerKind.DATA:
            text = "DATA without OACK"
        else:
            text = f"ERROR {answer.code}" if answer.kind is obs.AnswerKind.ERROR else "none"
        boots = "yes" if entry.failure_reason is None else "NO"
        yield f"{entry.firmware:<14}{text:<50}{boots}"


def _format_findings(findings: tuple[Finding, ...]) -> Iterator[str]:
    for finding in findings:
        yield from textwrap.wrap(
            finding.text,
            MAX_LINE_COLUMNS,
            initial_indent=f"{_LEVEL_WORDS[finding.level]:<{_LEVEL_COLUMNS}}",
            subsequent_indent=" " * _LEVEL_COLUMNS,
            break_on_hyphens=False,
        )


def _format_result(entry: obs.OptionObservation) -> str:
    if entry.result is obs.OptionResult.ILLEGAL and entry.value is not None:
        return f"{entry.value} (!)"
    return str(entry.value if entry.result is obs.OptionResult.LOWERED else entry.result.value)


def _format_arrival(entry: obs.OptionObservation) -> str:
    if not entry.is_usable:
        return ""
    if entry.first_block_bytes is None:
        return "NEVER"
    return f"{entry.first_block_bytes} (whole)" if entry.file_ended else "yes"


def _format_rate(sample: obs.ThroughputSample | None) -> str:
    if sample is None:
        return ""
    if sample.failure:
        return "failed"
    if sample.rate is None or sample.n_bytes < _MIN_RATE_SAMPLE_BYTES:
        return "-"
    return f"{sample.rate / 1e6:.1f} MB/s"


def _format_seconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < _MAX_MILLISECONDS else f"{seconds:.1f} s"


def _format_line(label: str, text: str) -> str:
    return f"{label:<{_LABEL_COLUMNS}}{text}"


def _to_json(value: Enum | bytes) -> object:
    return value.value if isinstance(value, Enum) else value.decode("ascii", "backslashreplace")
