"""What firmware makes of answers, and what became of the options of an OACK."""

import pytest

from tftpd.client.probe.firmware import FIRMWARE, boot_failure_reason
from tftpd.client.probe.observations import Answer, AnswerKind, AnswerOrigin, Boot, OptionResult

ASKS = {firmware.name: firmware.asks for firmware in FIRMWARE}
ALL = set(ASKS)
EDK2, GRUB, IPXE, PXELINUX, U_BOOT = ASKS


def objecting(change=None, arrived=512, **answer):
    """Who objects to an OACK that is as it should be but for `change`."""
    who = set()
    for name, asked in ASKS.items():
        granted = {spelled: b"9" if spelled == b"tsize" else value for spelled, value in asked}
        options = tuple((change or dict)(granted).items())
        said = {
            "kind": AnswerKind.OACK,
            "options": options,
            "origin": AnswerOrigin.OWN_PORT,
        } | answer
        if boot_failure_reason(Boot(name, Answer(asked=asked, **said), arrived)) is not None:
            who.add(name)
    return who


def changed(name, value):
    def change(granted):
        return {key: value if key == name else old for key, old in granted.items()}

    return change


def without(name):
    return lambda granted: {key: value for key, value in granted.items() if key != name}


@pytest.mark.parametrize(
    ("change", "who"),
    [
        (None, set()),
        (lambda granted: granted | {b"blksize2": b"512"}, {EDK2, PXELINUX}),
        (changed(b"blksize", b"512"), set()),
        (changed(b"blksize", b"9000"), {EDK2, U_BOOT}),
        (changed(b"windowsize", b"64"), {EDK2}),
        (changed(b"timeout", b"6"), {U_BOOT}),
        (without(b"timeout"), set()),
        (without(b"tsize"), {EDK2, GRUB}),
        (lambda granted: {key.upper(): value for key, value in granted.items()}, {GRUB}),
    ],
)
def test_who_gives_up_on_an_oack(change, who):
    assert objecting(change) == who


def test_without_an_oack_only_those_that_need_one_give_up():
    assert objecting(kind=AnswerKind.DATA, options=()) == {EDK2, GRUB}


def test_nobody_reads_what_does_not_come():
    assert objecting(arrived=None) == ALL
    assert objecting(kind=AnswerKind.NOTHING, options=()) == ALL
    assert objecting(kind=AnswerKind.ERROR, code=8, options=()) == ALL
    assert objecting(origin=AnswerOrigin.OTHER_ADDRESS) == ALL


@pytest.mark.parametrize(
    ("name", "asked", "value", "how"),
    [
        (b"blksize", b"1024", b"1024", OptionResult.GRANTED),
        (b"blksize", b"1024", b"01024", OptionResult.GRANTED),
        (b"blksize", b"1024", b"512", OptionResult.LOWERED),
        (b"blksize", b"1024", b"1025", OptionResult.ILLEGAL),
        (b"blksize", b"1024", b"7", OptionResult.ILLEGAL),
        (b"blksize", b"1024", b"", OptionResult.ILLEGAL),
        (b"windowsize", b"4", b"1", OptionResult.LOWERED),
        (b"windowsize", b"4", b"0", OptionResult.ILLEGAL),
        (b"timeout", b"3", b"3", OptionResult.GRANTED),
        (b"timeout", b"3", b"2", OptionResult.ILLEGAL),
        (b"tsize", b"0", b"12", OptionResult.GRANTED),
        (b"tsize", b"0", b"-1", OptionResult.ILLEGAL),
    ],
)
def test_what_became_of_an_option(name, asked, value, how):
    answer = Answer(asked=((name, asked),), kind=AnswerKind.OACK, options=((name.upper(), value),))
    assert answer.how(name) is how
    assert answer.unasked == ()
