"""Requests of boot firmware, and the answers that the firmware rejects.

The requests were recorded from the programs. The rules come from their sources: EDK2's Mtftp4Dxe
and PxeBcMtftp.c, U-Boot's net/tftp.c, GRUB's net/tftp.c, syslinux's core/fs/pxe/tftp.c.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tftpd.client.probe import observations as obs
from tftpd.protocol import options as opt


@dataclass(frozen=True, slots=True)
class Firmware:
    """A boot firmware.

    Attributes:
        name: Name and origin.
        options: Options of its request.
        rejects: Problems of an answer (see `_find_problems`) that end its boot, beyond those
            that end the boot of every firmware.
    """

    name: str
    options: opt.Options
    rejects: tuple[str, ...] = ()

    def failure_reason(self, answer: obs.ServerAnswer, first_block_bytes: int | None) -> str | None:
        """Return the reason why this firmware cannot read the file.

        Args:
            answer: Answer to the request of this firmware.
            first_block_bytes: Size of the first block; None if it did not arrive.

        Returns:
            The reason; None if the probe found none.
        """
        if answer.kind is obs.AnswerKind.NOTHING:
            return "the server does not answer this request"
        if answer.kind is obs.AnswerKind.ERROR:
            return f"the server refuses this request with ERROR {answer.code}"
        if answer.origin is obs.AnswerOrigin.OTHER_ADDRESS:
            return "the answer comes from another address"
        for problem, text in _find_problems(answer):
            if problem in self.rejects:
                return text
        return "the first block never arrives" if first_block_bytes is None else None


def _find_problems(answer: obs.ServerAnswer) -> Iterator[tuple[str, str]]:
    """Yield the problems that some firmware has with an answer, each with a sentence."""
    if answer.unrequested:
        option = answer.unrequested[0].decode("ascii", "replace")
        yield "unrequested", f"the OACK contains {option}, which was not requested"
    for name, requested in answer.requested:
        is_size = name in (opt.BLKSIZE, opt.WINDOWSIZE)
        if is_size and answer.option_result(name) is obs.OptionResult.ILLEGAL:
            text = f"the OACK has a larger {name.decode()} than the requested {requested.decode()}"
            yield "larger", text
    if answer.option_value(opt.TIMEOUT) not in (None, dict(answer.requested).get(opt.TIMEOUT)):
        yield "timeout", "the OACK has another timeout than the requested one"
    if answer.kind is not obs.AnswerKind.OACK:
        yield "no OACK", "the server sends no OACK, for which the firmware waits forever"
    if any(name != name.lower() for name, _ in answer.options):
        yield "upper case", "the option names in the OACK are not in lower case"
    if answer.option_value(opt.TSIZE) is None:
        yield "no tsize", "the server does not send the file size (tsize)"


def _parse_options(text: str) -> opt.Options:
    pairs = (pair.split("=") for pair in text.split())
    return tuple((name.encode(), value.encode()) for name, value in pairs)


FIRMWARE = (
    Firmware(
        "UEFI (EDK2)",
        _parse_options("tsize=0 blksize=1468 windowsize=4"),
        ("unrequested", "larger", "timeout", "no tsize"),
    ),
    Firmware("GRUB", _parse_options("blksize=1024 tsize=0"), ("no OACK", "upper case", "no tsize")),
    Firmware("iPXE", _parse_options("blksize=1432 tsize=0")),
    Firmware("pxelinux", _parse_options("tsize=0 blksize=1408"), ("unrequested",)),
    Firmware("U-Boot", _parse_options("timeout=5 tsize=0 blksize=1468"), ("timeout", "larger")),
)
