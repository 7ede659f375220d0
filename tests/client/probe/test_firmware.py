"""The answers that boot firmware rejects, and the results of options."""

import pytest

from tftpd.client.probe.firmware import FIRMWARE
from tftpd.client.probe.observations import (
    AnswerKind,
    AnswerOrigin,
    OptionResult,
    ServerAnswer,
)

ALL = {firmware.name for firmware in FIRMWARE}
EDK2, GRUB, IPXE, PXELINUX, U_BOOT = (firmware.name for firmware in FIRMWARE)


def rejecting_firmware(change=None, first_block_bytes=512, **answer):
    """Return the firmware that rejects a correct OACK with `change` applied."""
    rejecting = set()
    for firmware in FIRMWARE:
        requested = firmware.options
        granted = {key: b"9" if key == b"tsize" else value for key, value in requested}
        options = tuple((change or dict)(granted).items())
        attributes = {
            "kind": AnswerKind.OACK,
            "options": options,
            "origin": AnswerOrigin.OWN_PORT,
        } | answer
        given = ServerAnswer(requested=requested, **attributes)
        if firmware.failure_reason(given, first_block_bytes) is not None:
            rejecting.add(firmware.name)
    return rejecting


def changed(name, value):
    def change(granted):
        return {key: value if key == name else old for key, old in granted.items()}

    return change


def without(name):
    return lambda granted: {key: value for key, value in granted.items() if key != name}


@pytest.mark.parametrize(
    ("change", "rejecting"),
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
def test_firmware_rejects_some_oacks(change, rejecting):
    assert rejecting_firmware(change) == rejecting


def test_only_some_firmware_needs_an_oack():
    assert rejecting_firmware(kind=AnswerKind.DATA, options=()) == {EDK2, GRUB}


def test_no_firmware_boots_without_the_first_block():
    assert rejecting_firmware(first_block_bytes=None) == ALL
    assert rejecting_firmware(kind=AnswerKind.NOTHING, options=()) == ALL
    assert rejecting_firmware(kind=AnswerKind.ERROR, code=8, options=()) == ALL
    assert rejecting_firmware(origin=AnswerOrigin.OTHER_ADDRESS) == ALL


@pytest.mark.parametrize(
    ("name", "requested", "value", "result"),
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
def test_the_result_of_an_option_follows_its_value(name, requested, value, result):
    answer = ServerAnswer(
        requested=((name, requested),), kind=AnswerKind.OACK, options=((name.upper(), value),)
    )
    assert answer.option_result(name) is result
    assert answer.unrequested == ()
