"""Findings of a probe: problems that prevent boots, risks, and notes.

Pure functions of the observations. Each finding has a `kind` for programs, which stays the same
if the text changes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from tftpd.access.paths import printable_name
from tftpd.client.probe import observations as obs
from tftpd.protocol.errors import ErrorCode
from tftpd.protocol.options import DEFAULT_BLKSIZE, DEFAULT_WINDOWSIZE

_SHORT_FILE_BYTES = 65536  # a shorter file fits into one block of the largest size, or nearly
_SLOW_ANSWER_SECONDS = 1.0
_EARLY_RETRANSMISSION_SECONDS = 0.2
_ETHERNET_BLKSIZE = 1468  # bytes; the largest block in an Ethernet frame over IPv4
_ETHERNET_BLKSIZE_IPV6 = 1448
_RASPBERRY_PI_BLKSIZE = 1024  # of the boot loader, which cannot count beyond block 65535
_MAX_LISTED = 3
_MAX_RANDOM_RETRANSMITS = 3  # more of them in one sample are not chance
_MIN_RATE_SAMPLE_BYTES = 64 << 10  # the rate of a shorter transfer means nothing
_MIN_SPEEDUP = 1.2

_OPTION_FAILURES = {
    obs.OptionResult.REFUSED: "refuses a request with {} (ERROR 8), instead of ignoring it",
    obs.OptionResult.FAILED: "answers a request with {} with an ERROR",
    obs.OptionResult.SILENT: "does not answer a request with {}",
}


class Level(Enum):
    """Severity of a finding."""

    BREAKS = "breaks"  # some common firmware cannot boot
    RISK = "risk"  # some firmware fails, or boots fail sometimes
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement about the server, in one or two sentences."""

    level: Level
    kind: str
    text: str


def derive_findings(observed: obs.Observations) -> tuple[Finding, ...]:
    """Return all findings, the most severe first."""
    found = [finding for rule in _RULES for finding in rule(observed)]
    is_healthy = all(finding.level is Level.NOTE for finding in found)
    if observed.answer.kind is obs.AnswerKind.DATA and is_healthy:
        found.append(Finding(Level.NOTE, "healthy", "no problem was found that prevents boots"))
    return tuple(sorted(found, key=lambda finding: list(Level).index(finding.level)))


def _check_answer(observed: obs.Observations) -> Iterator[Finding]:
    answer = observed.answer
    if answer.kind is obs.AnswerKind.NOTHING and answer.malformed:
        text = f"the server's answers are not TFTP packets ({answer.malformed} datagrams)"
        yield Finding(Level.BREAKS, "not-tftp", text)
    elif answer.kind is obs.AnswerKind.NOTHING:
        text = f"no answer from {observed.address} port {observed.port}: no TFTP server listens "
        text += "there, or a firewall drops the answers, which come from a port other than "
        yield Finding(Level.BREAKS, "silent", text + str(observed.port))
    elif answer.kind is obs.AnswerKind.ERROR:
        error = f"ERROR {answer.code}: {printable_name(answer.text.encode())}"
        if answer.code == ErrorCode.FILE_NOT_FOUND:
            yield Finding(Level.BREAKS, "missing", f"the file does not exist ({error})")
        else:
            yield Finding(Level.BREAKS, "refused", f"the server refuses the request ({error})")
    elif answer.kind is obs.AnswerKind.OACK:
        text = "the server answers a request without options with an OACK, which clients reject"
        yield Finding(Level.BREAKS, "oack-unasked", text)
    if answer.origin is obs.AnswerOrigin.OTHER_ADDRESS:
        text = f"answers come from {answer.address} instead of {observed.address}: most firmware "
        text += "drops them. Let the server listen on the address that clients use, or check "
        text += "the address translation (NAT) between client and server"
        yield Finding(Level.BREAKS, "other-address", text)
    elif answer.origin is obs.AnswerOrigin.SAME_PORT:
        text = f"answers come from port {observed.port} (single-port mode), which passes firewalls"
        yield Finding(Level.NOTE, "single-port", text)


def _check_delay(observed: obs.Observations) -> Iterator[Finding]:
    answer = observed.answer
    if answer.kind in (obs.AnswerKind.NOTHING, obs.AnswerKind.ERROR) or answer.seconds is None:
        return
    if answer.requests > 1:
        text = f"the server answered only request number {answer.requests}: packets are lost"
        yield Finding(Level.RISK, "lost-request", text)
    elif answer.seconds > _SLOW_ANSWER_SECONDS:
        text = f"the first answer took {answer.seconds:.1f} s: firmware repeats its request after "
        text += "0.1 to 1 s, which may start a second transfer"
        yield Finding(Level.RISK, "slow-answer", text)


def _check_tsize(observed: obs.Observations) -> Iterator[Finding]:
    tsize, size = observed.tsize, observed.size
    if tsize and tsize.result is obs.OptionResult.GRANTED and size not in (None, tsize.value):
        text = f"tsize is wrong: the server announced {tsize.value} bytes, but sent {size} bytes"
        yield Finding(Level.BREAKS, "tsize-wrong", text)
    elif tsize and tsize.result is obs.OptionResult.IGNORED:
        text = "the server does not announce the file size (tsize), which GRUB and UEFI need"
        yield Finding(Level.BREAKS, "tsize-missing", text)


def _check_options(observed: obs.Observations) -> Iterator[Finding]:
    tsize = [] if observed.tsize is None else [observed.tsize]
    entries = [*tsize, *observed.other_options, *observed.blksizes, *observed.windowsizes]
    for option in dict.fromkeys(entry.option for entry in entries):
        yield from _check_option(option, [entry for entry in entries if entry.option == option])
    unrequested = list(dict.fromkeys(name for entry in entries for name in entry.unrequested))
    if unrequested:
        names = ", ".join(map(printable_name, unrequested))
        text = f"the OACK contains options that were not requested ({names}): UEFI and "
        yield Finding(Level.BREAKS, "options-unasked", text + "pxelinux then end the transfer")


def _check_option(option: str, entries: list[obs.OptionObservation]) -> Iterator[Finding]:
    illegal = [entry for entry in entries if entry.result is obs.OptionResult.ILLEGAL]
    if illegal:
        entry = illegal[0]
        value = "an invalid value" if entry.value is None else entry.value
        text = f"the server answers {option} {entry.requested} with {value}, which is not allowed: "
        yield Finding(Level.BREAKS, f"{option}-illegal", text + "clients end the transfer")
    for result, text in _OPTION_FAILURES.items():
        n_failed = sum(entry.result is result for entry in entries)
        if option != "rollover" and n_failed:
            adverb = "" if n_failed == len(entries) else "sometimes "
            sentence = f"the server {adverb}{text.format(option)}"
            yield Finding(Level.RISK, f"{option}-{result.name.lower()}", sentence)


def _check_lost_blocks(observed: obs.Observations) -> Iterator[Finding]:
    lost = observed.lost_blksizes
    if not lost or observed.answer.origin is obs.AnswerOrigin.OTHER_ADDRESS:
        return  # with a wrong address translation, the ACKs may not reach the server
    smallest = lost[0]
    limit = max((size for size in observed.arriving_blksizes if size < smallest), default=None)
    sizes = f"{smallest} bytes or more" if lost[-1] > smallest else f"{smallest} bytes"
    if limit is None:
        text = f"the server grants blocks of {sizes}, but none arrives"
        yield Finding(Level.BREAKS, "black-hole", text)
        return
    ethernet_blksize = _ETHERNET_BLKSIZE_IPV6 if ":" in observed.address else _ETHERNET_BLKSIZE
    fits_ethernet = smallest <= ethernet_blksize
    dropped = "large packets" if fits_ethernet else "IP fragments or jumbo frames"
    text = f"the server grants blocks of {sizes}, but they never arrive: the network drops "
    text += f"{dropped}. Limit blksize to {limit}"
    yield Finding(Level.BREAKS if fits_ethernet else Level.RISK, "black-hole", text)


def _check_windows(observed: obs.Observations) -> Iterator[Finding]:
    windows = [
        (entry.value, entry.blocks, entry.file_ended)
        for entry in observed.windowsizes
        if entry.blocks is not None and entry.value and entry.value > 1
    ]
    if not windows and any(e.result is obs.OptionResult.IGNORED for e in observed.windowsizes):
        text = "the server ignores windowsize: every block waits for its ACK, which is slow"
        yield Finding(Level.NOTE, "windowsize-none", text)
    short = [(size, blocks) for size, blocks, ended in windows if blocks < size and not ended]
    for size, blocks in short[:1]:
        text = f"only {blocks} of the {size} blocks of a window arrived: "
        yield Finding(Level.RISK, "window-short", text + "blocks are lost, or were not sent")
    long = [size for size, blocks, _ in windows if blocks > size]
    for size in long[:1]:
        text = f"the server sends more than the {size} blocks of a window without an ACK"
        yield Finding(Level.BREAKS, "window-long", text)


def _check_firmware(observed: obs.Observations) -> Iterator[Finding]:
    if observed.answer.origin is obs.AnswerOrigin.OTHER_ADDRESS:
        return  # "other-address" reports the same for all of them
    reasons: dict[str, list[str]] = {}
    for entry in observed.firmware_answers:
        if entry.failure_reason is not None:
            reasons.setdefault(entry.failure_reason, []).append(entry.firmware)
    for reason, names in reasons.items():
        text = f"{_join_words(names)} cannot read the file: {reason}"
        yield Finding(Level.BREAKS, "firmware", text)


def _check_repetition(observed: obs.Observations) -> Iterator[Finding]:
    repetition = observed.repetition
    if repetition is None:
        return
    if repetition.waited and repetition.interval is None:
        text = f"the server does not retransmit a lost block within {repetition.waited:g} s"
        if repetition.is_malformed:
            text += ", but sends a malformed packet"
        yield Finding(Level.RISK, "no-repeat", text)
    elif repetition.interval is not None and repetition.interval < _EARLY_RETRANSMISSION_SECONDS:
        text = f"the server retransmits a block after only {repetition.interval:.2f} s: duplicate "
        yield Finding(Level.RISK, "hasty-repeat", text + "blocks break boots of the Raspberry Pi")
    copies = repetition.copies
    if len(copies) > 1 and min(copies) > 1:
        text = "after a duplicate ACK, the server sends all following blocks twice (Sorcerer's "
        yield Finding(Level.RISK, "apprentice", text + "Apprentice Syndrome)")
    elif copies and max(copies) > 1:
        text = "after a duplicate ACK, the server sends one block twice"
        yield Finding(Level.NOTE, "copy", text)
    if repetition.transfers is not None and repetition.transfers > 1:
        number = {2: "two", 3: "three"}.get(repetition.transfers, "several")
        text = f"a repeated request starts {number} transfers, as with most servers"
        yield Finding(Level.NOTE, "second-transfer", text)


def _check_rollover(observed: obs.Observations) -> Iterator[Finding]:
    result = observed.rollover
    if result is obs.RolloverResult.ONE:
        text = "block number 1 follows block 65535: most clients expect 0"
        yield Finding(Level.RISK, "rollover", text)
    elif result in (obs.RolloverResult.NOTHING, obs.RolloverResult.ERROR, obs.RolloverResult.OTHER):
        text = f"{result.value} follows block 65535: files with more blocks cannot be read"
        yield Finding(Level.RISK, "rollover", text)
    size = observed.known_size
    if size is not None and size // _RASPBERRY_PI_BLKSIZE > obs.MAX_BLOCK_NUMBER:
        text = f"the file has more than 65,535 blocks of {_RASPBERRY_PI_BLKSIZE} bytes: "
        yield Finding(Level.NOTE, "long-file", text + "a Raspberry Pi 5 cannot read it")


def _check_throughput(observed: obs.Observations) -> Iterator[Finding]:
    failed: dict[str, list[str]] = {}
    for sample in observed.samples:
        if sample.failure:
            failed.setdefault(sample.failure, []).append(f"{sample.blksize}/{sample.windowsize}")
    for reason, pairs in failed.items():
        listed = pairs[:_MAX_LISTED]
        if len(pairs) > _MAX_LISTED:
            listed.append(f"{len(pairs) - _MAX_LISTED} more")
        text = f"transfers failed (blksize/windowsize {_join_words(listed)}): "
        yield Finding(Level.RISK, "broken-transfer", text + printable_name(reason.encode()))
    worst = max(observed.samples, key=lambda sample: sample.retransmits, default=None)
    if worst is not None and worst.retransmits > _MAX_RANDOM_RETRANSMITS:
        text = f"with blksize {worst.blksize} and windowsize {worst.windowsize}, the client had to "
        text += f"repeat {worst.retransmits} ACKs: blocks are lost"
        yield Finding(Level.RISK, "loss", text)


def _check_fastest(observed: obs.Observations) -> Iterator[Finding]:
    rates = {
        (sample.blksize, sample.windowsize): sample.rate
        for sample in observed.samples
        if sample.rate and sample.n_bytes >= _MIN_RATE_SAMPLE_BYTES
    }
    default = rates.get((DEFAULT_BLKSIZE, DEFAULT_WINDOWSIZE))
    if default is None:
        return
    blksize, windowsize = max(rates, key=lambda options: rates[options])
    factor = rates[blksize, windowsize] / default
    if factor >= _MIN_SPEEDUP:
        text = f"blksize {blksize} with windowsize {windowsize} is fastest: {factor:.1f} times "
        yield Finding(Level.NOTE, "fastest", text + "the rate of a client without options")


def _check_file_size(observed: obs.Observations) -> Iterator[Finding]:
    size = observed.known_size
    if size is not None and size < _SHORT_FILE_BYTES and observed.blksizes:
        text = f"the file is too small ({size} bytes) to test large blocks, windows and block 65535"
        yield Finding(Level.NOTE, "short-file", text + ": use a file of several MiB")


def _join_words(words: list[str]) -> str:
    *all_but_last, last = words
    return f"{', '.join(all_but_last)} and {last}" if all_but_last else last


_RULES: tuple[Callable[[obs.Observations], Iterator[Finding]], ...] = (
    _check_answer,
    _check_delay,
    _check_firmware,
    _check_tsize,
    _check_options,
    _check_lost_blocks,
    _check_windows,
    _check_repetition,
    _check_rollover,
    _check_throughput,
    _check_fastest,
    _check_file_size,
)
