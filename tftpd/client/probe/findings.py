"""What was seen of a server, in plain words: what breaks boots, what may, what is good to know.

Pure functions of what a probe observed. Each finding has a `kind` for
programs, which stays the same when the words do not.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from tftpd.access.paths import printable_name
from tftpd.client.probe.firmware import boot_failure_reason
from tftpd.client.probe.observations import (
    AnswerKind,
    AnswerOrigin,
    Observations,
    OptionObservation,
    OptionResult,
    RolloverResult,
    ThroughputSample,
)
from tftpd.protocol.errors import ErrorCode


class Level(Enum):
    """How bad it is."""

    BREAKS = "breaks"  # firmware that is in use cannot boot
    RISK = "risk"  # some cannot, or not always
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know, in a sentence or two."""

    level: Level
    kind: str
    text: str


def findings(seen: Observations) -> tuple[Finding, ...]:
    """All that there is to say, the worst first."""
    found = [finding for look in _LOOKS for finding in look(seen)]
    if seen.answer.kind is AnswerKind.DATA and all(one.level is Level.NOTE for one in found):
        found.append(Finding(Level.NOTE, "healthy", "nothing was found that should break a boot"))
    return tuple(sorted(found, key=lambda one: _ORDER.index(one.level)))


def _reaching(seen: Observations) -> Iterator[Finding]:
    answer = seen.answer
    if answer.kind is AnswerKind.NOTHING and answer.garbage:
        text = f"something answers, but not in TFTP ({answer.garbage} datagrams)"
        yield Finding(Level.BREAKS, "not-tftp", text)
    elif answer.kind is AnswerKind.NOTHING:
        yield Finding(
            Level.BREAKS, "silent",
            f"nothing answers at {seen.address} port {seen.port}: there is no TFTP server, or a "
            f"firewall drops its answers, which come from another port than {seen.port}",
        )  # fmt: skip
    elif answer.kind is AnswerKind.ERROR:
        what = f"ERROR {answer.code}: {printable_name(answer.text.encode())}"
        missing = answer.code == ErrorCode.FILE_NOT_FOUND
        said = "the server answers, but has no such file" if missing else "the server refuses it"
        yield Finding(Level.BREAKS, "missing" if missing else "refused", f"{said} ({what})")
    elif answer.kind is AnswerKind.OACK:
        text = "a request without options is answered with an OACK, which no client expects"
        yield Finding(Level.BREAKS, "oack-unasked", text)


def _origin(seen: Observations) -> Iterator[Finding]:
    answer = seen.answer
    if answer.origin is AnswerOrigin.OTHER_ADDRESS:
        yield Finding(
            Level.BREAKS, "other-address",
            f"answers come from {answer.address}, not from {seen.address} that was asked: most "
            "firmware drops them. Have the server listen on the address that clients ask, or "
            "look at the address translation on the way",
        )  # fmt: skip
    elif answer.origin is AnswerOrigin.SAME_PORT:
        text = f"answers come from port {seen.port} itself (single port), which passes firewalls"
        yield Finding(Level.NOTE, "single-port", text)


def _haste(seen: Observations) -> Iterator[Finding]:
    answer = seen.answer
    if answer.kind in (AnswerKind.NOTHING, AnswerKind.ERROR) or answer.seconds is None:
        return
    if answer.requests > 1:
        text = f"the request was answered only when sent {answer.requests} times: packets get lost"
        yield Finding(Level.RISK, "lost-request", text)
    elif answer.seconds > _SLOW:
        text = (
            f"the first answer took {answer.seconds:.1f} s: firmware repeats its request after "
            "0.1 to 1 s, and may then meet two transfers"
        )
        yield Finding(Level.RISK, "slow-answer", text)


def _sizes(seen: Observations) -> Iterator[Finding]:
    tsize = seen.tsize
    if tsize is None:
        return
    if tsize.how is OptionResult.GRANTED and seen.size is not None and tsize.value != seen.size:
        text = f"tsize says {tsize.value} octets, and {seen.size} come: the size is not true"
        yield Finding(Level.BREAKS, "tsize-wrong", text)
    elif tsize.how is OptionResult.IGNORED:
        text = "the size is not told (tsize): GRUB and UEFI need it"
        yield Finding(Level.BREAKS, "tsize-missing", text)


def _options(seen: Observations) -> Iterator[Finding]:
    asked = [one for one in (seen.tsize, *seen.others, *seen.blksizes, *seen.windowsizes) if one]
    for option in dict.fromkeys(one.option for one in asked):
        yield from _option(option, [one for one in asked if one.option == option])
    unasked = dict.fromkeys(name for one in asked for name in one.unasked)
    if unasked:
        text = f"it answers options that were not asked for ({_listed(list(unasked))}): UEFI and "
        yield Finding(Level.BREAKS, "options-unasked", text + "pxelinux then end the transfer")


def _option(option: str, asked: list[OptionObservation]) -> Iterator[Finding]:
    illegal = [one for one in asked if one.how is OptionResult.ILLEGAL]
    if illegal:
        one = illegal[0]
        value = "nonsense" if one.value is None else one.value
        text = f"{option} {one.asked} is answered with {value}: a client must end the transfer"
        yield Finding(Level.BREAKS, f"{option}-illegal", text)
    for how, kind, words in _NOT_TAKEN:
        if option != "rollover" and any(one.how is how for one in asked):
            some = "" if all(one.how is how for one in asked) else "sometimes "
            text = f"a request for {option} is {some}{words}"
            yield Finding(Level.RISK, f"{option}-{kind}", text)


def _arrival(seen: Observations) -> Iterator[Finding]:
    lost, passable = seen.lost, seen.passable
    if not lost or seen.answer.origin is AnswerOrigin.OTHER_ADDRESS:
        return  # behind a translation that goes wrong our ACKs may not arrive
    first = lost[0]
    cap = max((size for size in passable if size < first), default=None)
    more = " and more" if lost[-1] > first else ""
    if cap is None:
        text = f"blocks of {first} octets{more} are granted, but none arrives"
        yield Finding(Level.BREAKS, "black-hole", text)
        return
    whole = first <= (_ETHERNET_6 if ":" in seen.address else _ETHERNET)
    text = (
        f"blocks of {first} octets{more} are granted, but never arrive: something on the way "
        f"drops {'large packets' if whole else 'fragments or long frames'}. "
        f"Cap blksize at {cap}"
    )
    yield Finding(Level.BREAKS if whole else Level.RISK, "black-hole", text)


def _windows(seen: Observations) -> Iterator[Finding]:
    offered = [one for one in seen.windowsizes if one.value and one.value > 1]
    if not offered:
        if any(one.how is OptionResult.IGNORED for one in seen.windowsizes):
            text = "windowsize is not granted: each block waits for its ACK, which costs speed"
            yield Finding(Level.NOTE, "windowsize-none", text)
        return
    for one in offered:
        if one.value and one.blocks is not None and not one.ended and one.blocks < one.value:
            text = f"of a window of {one.value} blocks only {one.blocks} came"
            yield Finding(Level.RISK, "window-short", text + ": some are lost, or never sent")
            break
    for one in offered:
        if one.value and one.blocks is not None and one.blocks > one.value:
            text = f"a window of {one.value} blocks was agreed, and more came without an ACK"
            yield Finding(Level.BREAKS, "window-long", text)
            break


def _boots(seen: Observations) -> Iterator[Finding]:
    if seen.answer.origin is AnswerOrigin.OTHER_ADDRESS:
        return  # said already, and of all of them
    reasons: dict[str, list[str]] = {}
    for boot in seen.boots:
        why = boot_failure_reason(boot)
        if why is not None:
            reasons.setdefault(why, []).append(boot.firmware)
    for why, names in reasons.items():
        yield Finding(Level.BREAKS, "firmware", f"not read by {_joined(names)}: {why}")


def _repeats(seen: Observations) -> Iterator[Finding]:
    repeats = seen.repeats
    if repeats is None:
        return
    if repeats.waited and repeats.after is None:
        text = f"a block that got lost is not sent again within {repeats.waited:g} s"
        if repeats.garbled:
            text += ", but something that is no TFTP packet"
        yield Finding(Level.RISK, "no-repeat", text)
    elif repeats.after is not None and repeats.after < _HASTY:
        text = f"a block is sent again after {repeats.after:.2f} s already: Raspberry Pis break"
        yield Finding(Level.RISK, "hasty-repeat", text + " on copies")
    if len(repeats.copies) > 1 and min(repeats.copies) > 1:
        text = "an ACK that comes twice has all the rest sent twice (Sorcerer's Apprentice)"
        yield Finding(Level.RISK, "apprentice", text)
    elif repeats.copies and max(repeats.copies) > 1:
        text = "an ACK that comes twice has a block sent twice"
        yield Finding(Level.NOTE, "copy", text)
    if repeats.ports is not None and repeats.ports > 1:
        text = f"a request that is repeated starts {_NUMBERS.get(repeats.ports, 'several')} "
        yield Finding(Level.NOTE, "second-transfer", text + "transfers, as with most servers")


def _rollover(seen: Observations) -> Iterator[Finding]:
    after = seen.rollover
    if after is RolloverResult.ONE:
        text = "after block 65535 comes 1: most clients wait for 0"
        yield Finding(Level.RISK, "rollover", text)
    elif after in (RolloverResult.NOTHING, RolloverResult.ERROR, RolloverResult.OTHER):
        text = f"after block 65535 comes {after.value}: no file may have more blocks"
        yield Finding(Level.RISK, "rollover", text)
    length = seen.length
    if length is not None and length // _PI > _LAST:
        text = f"the file has more than 65,535 blocks of {_PI}: a Raspberry Pi 5 cannot read it"
        yield Finding(Level.NOTE, "long-file", text)


def _speed(seen: Observations) -> Iterator[Finding]:
    broken: dict[str, list[str]] = {}
    for one in seen.samples:
        if one.problem:
            broken.setdefault(one.problem, []).append(f"{one.blksize}/{one.windowsize}")
    for problem, terms in broken.items():
        some = terms if len(terms) <= _TOLD else [*terms[:_TOLD], f"{len(terms) - _TOLD} more"]
        text = f"transfers broke off (blksize/windowsize {_joined(some)}): "
        yield Finding(Level.RISK, "broken-transfer", text + printable_name(problem.encode()))
    worst = max(seen.samples, key=lambda one: one.retransmits, default=None)
    if worst is not None and worst.retransmits > _LOSSES:
        text = (
            f"blksize {worst.blksize}, windowsize {worst.windowsize} needed {worst.retransmits} "
            "ACKs again: blocks get lost"
        )
        yield Finding(Level.RISK, "loss", text)
    yield from _fastest(seen.samples)


def _fastest(samples: tuple[ThroughputSample, ...]) -> Iterator[Finding]:
    told = {one: one.rate for one in samples if one.rate and one.octets >= _TELLING}
    plain = next((one for one in told if (one.blksize, one.windowsize) == (512, 1)), None)
    if plain is None or len(told) < _COMPARED:
        return
    best = max(told, key=lambda one: told[one] or 0.0)
    factor = (told[best] or 0.0) / (told[plain] or 1.0)
    if factor >= _FASTER:
        text = (
            f"blksize {best.blksize} with windowsize {best.windowsize} is fastest: "
            f"{factor:.1f} times what a client without options gets"
        )
        yield Finding(Level.NOTE, "fastest", text)


def _shortness(seen: Observations) -> Iterator[Finding]:
    if seen.length is not None and seen.length < _ENOUGH and seen.blksizes:
        text = (
            f"the file is short ({seen.length} octets), and does not show all: larger blocks, "
            "windows, block 65535. One of some MiB would"
        )
        yield Finding(Level.NOTE, "short-file", text)


def _joined(names: list[str]) -> str:
    *all_but_last, last = names
    return f"{', '.join(all_but_last)} and {last}" if all_but_last else last


def _listed(names: list[str]) -> str:
    return ", ".join(printable_name(name.encode()) for name in names)


_LOOKS: tuple[Callable[[Observations], Iterator[Finding]], ...] = (
    _reaching, _origin, _haste, _boots, _sizes, _options, _arrival, _windows, _repeats, _rollover,
    _speed,
    _shortness,
)  # fmt: skip

_ORDER = list(Level)
_ENOUGH = 65536  # octets, which even the largest block does not take whole
_SLOW = 1.0  # seconds
_HASTY = 0.2  # seconds
_ETHERNET = 1468  # octets of a block that need no fragments over IPv4
_ETHERNET_6 = 1448
_PI = 1024  # blksize of its loader, which cannot count beyond 65535
_LAST = 65535
_TOLD = 3  # of a list
_LOSSES = 3  # that chance explains
_TELLING = 64 << 10  # octets; what is shorter says nothing of speed
_COMPARED = 2
_FASTER = 1.2
_NUMBERS = {2: "two", 3: "three"}

_NOT_TAKEN = (
    (OptionResult.REFUSED, "refused", "refused with ERROR 8, where it should go on without"),
    (OptionResult.FAILED, "failed", "answered with an ERROR"),
    (OptionResult.SILENT, "silent", "not answered at all"),
)
