"""Requests of boot firmware, and the answers that the firmware rejects.

The requests were recorded from the programs. The rules come from their sources: EDK2's Mtftp4Dxe
and PxeBcMtftp.c, U-Boot's net/tftp.c, GRUB's net/tftp.c, syslinux's core/fs/pxe/tftp.c.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tftpd.client.probe.observations import AnswerKind, AnswerOrigin, OptionResult, ServerAnswer
from tftpd.protocol import options as opt
from tftpd.protocol.options import Options

AnswerRule = Callable[[ServerAnswer], str | None]
"""Returns the reason why a firmware rejects an answer, or None."""


@dataclass(frozen=True, slots=True)
class Firmware:
    """A boot firmware: the options it requests, and its rules beyond those of all firmware."""

    name: str
    options: Options
    rules: tuple[AnswerRule, ...] = ()

    def failure_reason(self, answer: ServerAnswer, first_block_bytes: int | None) -> str | None:
        """Return the reason why this firmware cannot read the file.

        Args:
            answer: Answer to the request of this firmware.
            first_block_bytes: Size of the first block; None if it did not arrive.

        Returns:
            The reason; None if the probe found none.
        """
        if answer.kind is AnswerKind.NOTHING:
            return "the server does not answer this request"
        if answer.kind is AnswerKind.ERROR:
            return f"the server refuses this request with ERROR {answer.code}"
        if answer.origin is AnswerOrigin.OTHER_ADDRESS:
            return "the answer comes from another address"
        for rule in self.rules:
            if reason := rule(answer):
                return reason
        return "the first block never arrives" if first_block_bytes is None else None


def _reject_unrequested(answer: ServerAnswer) -> str | None:
    if answer.unrequested:
        name = answer.unrequested[0].decode("ascii", "replace")
        return f"the OACK contains {name}, which was not requested"
    return None


def _reject_larger_values(answer: ServerAnswer) -> str | None:
    for name, requested in answer.requested:
        is_size = name in (opt.BLKSIZE, opt.WINDOWSIZE)
        if is_size and answer.option_result(name) is OptionResult.ILLEGAL:
            return f"the OACK has a larger {name.decode()} than the requested {requested.decode()}"
    return None


def _reject_other_timeout(answer: ServerAnswer) -> str | None:
    requested = dict(answer.requested).get(opt.TIMEOUT)
    value = answer.option_value(opt.TIMEOUT)
    if value in (None, requested):
        return None
    return "the OACK has another timeout than the requested one"


def _require_oack(answer: ServerAnswer) -> str | None:
    if answer.kind is AnswerKind.OACK:
        return None
    return "the server sends no OACK, for which the firmware waits forever"


def _require_tsize(answer: ServerAnswer) -> str | None:
    if answer.option_value(opt.TSIZE) is None:
        return "the server does not send the file size (tsize)"
    return None


def _require_lower_case(answer: ServerAnswer) -> str | None:
    if any(name != name.lower() for name, _ in answer.options):
        return "the option names in the OACK are not in lower case"
    return None


def _parse_options(text: str) -> Options:
    pairs = (pair.split("=") for pair in text.split())
    return tuple((name.encode(), value.encode()) for name, value in pairs)


FIRMWARE = (
    Firmware(
        "UEFI (EDK2)",
        _parse_options("tsize=0 blksize=1468 windowsize=4"),
        (_reject_unrequested, _reject_larger_values, _reject_other_timeout, _require_tsize),
    ),
    Firmware(
        "GRUB",
        _parse_options("blksize=1024 tsize=0"),
        (_require_oack, _require_lower_case, _require_tsize),
    ),
    Firmware("iPXE", _parse_options("blksize=1432 tsize=0")),
    Firmware("pxelinux", _parse_options("tsize=0 blksize=1408"), (_reject_unrequested,)),
    Firmware(
        "U-Boot",
        _parse_options("timeout=5 tsize=0 blksize=1468"),
        (_reject_other_timeout, _reject_larger_values),
    ),
)
