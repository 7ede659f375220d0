"""What boot firmware asks for, and what it makes of the answer.

The requests are those that the programs were seen to send, the rules those
of their sources: EDK2's Mtftp4Dxe and PxeBcMtftp.c, U-Boot's net/tftp.c,
GRUB's net/tftp.c, syslinux's core/fs/pxe/tftp.c.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tftpd.client.probe.observations import Answer, AnswerKind, AnswerOrigin, Boot, OptionResult
from tftpd.protocol import options as opt
from tftpd.protocol.options import Options

Rule = Callable[[Answer], str | None]
"""Why the firmware gives up on the answer, None where it does not."""


@dataclass(frozen=True, slots=True)
class Firmware:
    """What it asks for, and the rules that it has beyond those of all."""

    name: str
    asks: Options
    rules: tuple[Rule, ...] = ()


def boot_failure_reason(boot: Boot) -> str | None:
    """Why this firmware cannot read the file; None where it can, as far as a probe tells."""
    answer = boot.answer
    if answer.kind is AnswerKind.NOTHING:
        return "this request is not answered"
    if answer.kind is AnswerKind.ERROR:
        return f"it is refused with ERROR {answer.code}"
    if answer.origin is AnswerOrigin.OTHER_ADDRESS:
        return "the answer comes from another address"
    for rule in _BY_NAME[boot.firmware].rules:
        why = rule(answer)
        if why is not None:
            return why
    if boot.arrived is None:
        return "the first block never arrives"
    return None


def _no_extras(answer: Answer) -> str | None:
    if answer.unasked:
        return f"answered with {answer.unasked[0].decode('ascii', 'replace')}, not asked for"
    return None


def _nothing_larger(answer: Answer) -> str | None:
    for name, asked in answer.asked:
        if name in (opt.BLKSIZE, opt.WINDOWSIZE) and answer.how(name) is OptionResult.ILLEGAL:
            return f"{name.decode()} is answered with more than {asked.decode()}"
    return None


def _timeout_as_asked(answer: Answer) -> str | None:
    asked = dict(answer.asked).get(opt.TIMEOUT)
    value = answer.value(opt.TIMEOUT)
    return None if value in (None, asked) else "timeout is answered with another value"


def _some_options(answer: Answer) -> str | None:
    return None if answer.kind is AnswerKind.OACK else "no OACK, without which it waits for ever"


def _size(answer: Answer) -> str | None:
    return "the size is not told (tsize)" if answer.value(opt.TSIZE) is None else None


def _lower_case(answer: Answer) -> str | None:
    changed = [name for name, _ in answer.options if name != name.lower()]
    return "options are not answered in lower case" if changed else None


def _options(text: str) -> Options:
    pairs = (pair.split("=") for pair in text.split())
    return tuple((name.encode(), value.encode()) for name, value in pairs)


FIRMWARE = (
    Firmware(
        "UEFI (EDK2)",
        _options("tsize=0 blksize=1468 windowsize=4"),
        (_no_extras, _nothing_larger, _timeout_as_asked, _size),
    ),
    Firmware("GRUB", _options("blksize=1024 tsize=0"), (_some_options, _lower_case, _size)),
    Firmware("iPXE", _options("blksize=1432 tsize=0")),
    Firmware("pxelinux", _options("tsize=0 blksize=1408"), (_no_extras,)),
    Firmware(
        "U-Boot", _options("timeout=5 tsize=0 blksize=1468"), (_timeout_as_asked, _nothing_larger)
    ),
)

_BY_NAME = {firmware.name: firmware for firmware in FIRMWARE}
