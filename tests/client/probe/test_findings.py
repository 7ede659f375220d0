"""The findings that follow from observations."""

from dataclasses import replace

import pytest

from tftpd.client.probe.findings import Level, derive_findings
from tftpd.client.probe.observations import (
    AnswerKind,
    AnswerOrigin,
    FirmwareAnswer,
    Observations,
    OptionObservation,
    OptionResult,
    Repetition,
    RolloverResult,
    ServerAnswer,
    ThroughputSample,
)

DATA = ServerAnswer(
    kind=AnswerKind.DATA,
    address="192.0.2.1",
    port=3000,
    origin=AnswerOrigin.OWN_PORT,
    seconds=0.001,
)
OBSERVED = Observations(host="boot", address="192.0.2.1", port=69, name="f", answer=DATA)
TSIZE = OptionObservation("tsize", 0, OptionResult.GRANTED, 1_000_000)


def blksize(size, arrived=None, result=OptionResult.GRANTED, value=None):
    return OptionObservation("blksize", size, result, value or size, first_block_bytes=arrived)


def windowsize(size, blocks, **more):
    return OptionObservation("windowsize", size, OptionResult.GRANTED, size, blocks=blocks, **more)


def sampled(blksize, windowsize, rate, **more):
    return ThroughputSample(
        blksize, windowsize, n_bytes=1_000_000, seconds=1_000_000 / rate, **more
    )


def kinds_and_levels(**observed):
    """Return the kinds and levels of all findings."""
    return {
        (finding.kind, finding.level.value)
        for finding in derive_findings(replace(OBSERVED, **observed))
    }


HEALTHY = ("healthy", "note")
THREE_LOST = (blksize(1468, 1468), blksize(2048), blksize(4096))
PLAIN = sampled(512, 1, 1e6)
NO_BLOCK = FirmwareAnswer("GRUB", ServerAnswer(kind=AnswerKind.DATA), None, "no block arrives")


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        ({}, {HEALTHY}),
        ({"answer": ServerAnswer()}, {("silent", "breaks")}),
        ({"answer": ServerAnswer(malformed=3)}, {("not-tftp", "breaks")}),
        ({"answer": ServerAnswer(kind=AnswerKind.ERROR, code=1)}, {("missing", "breaks")}),
        ({"answer": ServerAnswer(kind=AnswerKind.ERROR, code=2)}, {("refused", "breaks")}),
        ({"answer": ServerAnswer(kind=AnswerKind.OACK)}, {("oack-unasked", "breaks")}),
        (
            {
                "answer": replace(DATA, origin=AnswerOrigin.OTHER_ADDRESS),
                "firmware_answers": (NO_BLOCK,),
            },
            {("other-address", "breaks")},
        ),
        (
            {"answer": replace(DATA, origin=AnswerOrigin.SAME_PORT)},
            {("single-port", "note"), HEALTHY},
        ),
        ({"answer": replace(DATA, seconds=1.5)}, {("slow-answer", "risk")}),
        ({"answer": replace(DATA, requests=2)}, {("lost-request", "risk")}),
        ({"firmware_answers": (NO_BLOCK,)}, {("firmware", "breaks")}),
        ({"tsize": TSIZE, "size": 1_000_000}, {HEALTHY}),
        ({"tsize": TSIZE, "size": 999_999}, {("tsize-wrong", "breaks")}),
        (
            {"tsize": OptionObservation("tsize", 0, OptionResult.IGNORED)},
            {("tsize-missing", "breaks")},
        ),
        ({"blksizes": (blksize(1468, 1468),)}, {HEALTHY}),
        ({"blksizes": (blksize(512, 512, OptionResult.LOWERED),)}, {HEALTHY}),
        (
            {"blksizes": (blksize(512, 512, OptionResult.ILLEGAL, 1024),)},
            {("blksize-illegal", "breaks")},
        ),
        (
            {"blksizes": (OptionObservation("blksize", 8, OptionResult.REFUSED),)},
            {("blksize-refused", "risk")},
        ),
        (
            {"blksizes": (OptionObservation("blksize", 8, OptionResult.FAILED),)},
            {("blksize-failed", "risk")},
        ),
        (
            {"blksizes": (OptionObservation("blksize", 8, OptionResult.SILENT),)},
            {("blksize-silent", "risk")},
        ),
        ({"other_options": (OptionObservation("rollover", 0, OptionResult.REFUSED),)}, {HEALTHY}),
        (
            {"other_options": (OptionObservation("timeout", 3, OptionResult.ILLEGAL, 2),)},
            {("timeout-illegal", "breaks")},
        ),
        (
            {
                "other_options": (
                    OptionObservation("timeout", 3, OptionResult.GRANTED, 3, (b"blksize",)),
                )
            },
            {("options-unasked", "breaks")},
        ),
        ({"blksizes": THREE_LOST}, {("black-hole", "risk")}),
        ({"blksizes": (blksize(512, 512), blksize(1428))}, {("black-hole", "breaks")}),
        ({"blksizes": (blksize(512),)}, {("black-hole", "breaks")}),
        ({"windowsizes": (windowsize(1, 1), windowsize(8, 8))}, {HEALTHY}),
        ({"windowsizes": (windowsize(8, 1),)}, {("window-short", "risk")}),
        ({"windowsizes": (windowsize(8, 1, file_ended=True),)}, {HEALTHY}),
        ({"windowsizes": (windowsize(8, 9),)}, {("window-long", "breaks")}),
        (
            {"windowsizes": (OptionObservation("windowsize", 2, OptionResult.IGNORED),)},
            {("windowsize-none", "note"), HEALTHY},
        ),
        ({"repetition": Repetition(6.5, 1.0, copies=(1, 1, 1), transfers=1)}, {HEALTHY}),
        ({"repetition": Repetition(6.5)}, {("no-repeat", "risk")}),
        ({"repetition": Repetition(6.5, 0.05)}, {("hasty-repeat", "risk")}),
        ({"repetition": Repetition(copies=(2, 2, 2))}, {("apprentice", "risk")}),
        ({"repetition": Repetition(copies=(2, 1, 1))}, {("copy", "note"), HEALTHY}),
        ({"repetition": Repetition(transfers=2)}, {("second-transfer", "note"), HEALTHY}),
        ({"rollover": RolloverResult.ZERO}, {HEALTHY}),
        ({"rollover": RolloverResult.TOO_SMALL}, {HEALTHY}),
        ({"rollover": RolloverResult.UNKNOWN}, {HEALTHY}),
        ({"rollover": RolloverResult.ONE}, {("rollover", "risk")}),
        ({"rollover": RolloverResult.NOTHING}, {("rollover", "risk")}),
        ({"rollover": RolloverResult.ERROR}, {("rollover", "risk")}),
        ({"size": 65536 * 1024}, {("long-file", "note"), HEALTHY}),
        ({"size": 65535 * 1024}, {HEALTHY}),
        ({"size": 9, "blksizes": (blksize(512, 9),)}, {("short-file", "note"), HEALTHY}),
        ({"samples": (PLAIN, sampled(1468, 16, 3e6))}, {("fastest", "note"), HEALTHY}),
        ({"samples": (PLAIN, sampled(1468, 16, 1.1e6))}, {HEALTHY}),
        ({"samples": (sampled(512, 1, 1e6, retransmits=4),)}, {("loss", "risk")}),
        ({"samples": (sampled(512, 1, 1e6, failure="no"),)}, {("broken-transfer", "risk")}),
    ],
)
def test_observations_lead_to_findings(observed, expected):
    assert kinds_and_levels(**observed) == expected


def texts(**observed):
    return [finding.text for finding in derive_findings(replace(OBSERVED, **observed))]


def test_a_black_hole_is_reported_with_a_blksize_that_works():
    assert texts(blksizes=THREE_LOST) == [
        "the server grants blocks of 2048 bytes or more, but they never arrive: the network "
        "drops IP fragments or jumbo frames. Limit blksize to 1468"
    ]


def test_over_ipv6_a_block_of_1468_bytes_is_fragmented():
    lost = (blksize(1448, 1448), blksize(1468))
    assert kinds_and_levels(blksizes=lost) == {("black-hole", "breaks")}
    assert kinds_and_levels(blksizes=lost, address="2001:db8::1") == {("black-hole", "risk")}


def test_the_most_severe_finding_comes_first():
    levels = [
        finding.level
        for finding in derive_findings(
            replace(
                OBSERVED,
                tsize=OptionObservation("tsize", 0, OptionResult.IGNORED),
                repetition=Repetition(transfers=2),
                rollover=RolloverResult.ONE,
            )
        )
    ]
    assert levels == [Level.BREAKS, Level.RISK, Level.NOTE]


def test_firmware_with_the_same_failure_is_listed_together():
    names = ("iPXE", "GRUB", "U-Boot")
    answers = tuple(FirmwareAnswer(name, ServerAnswer(), None, "no answer") for name in names)
    assert texts(firmware_answers=answers) == [
        "iPXE, GRUB and U-Boot cannot read the file: no answer"
    ]


def test_transfers_with_the_same_failure_are_listed_together():
    samples = tuple(ThroughputSample(512, window, failure="gone") for window in (1, 2, 4, 8, 16))
    assert texts(samples=samples) == [
        "transfers failed (blksize/windowsize 512/1, 512/2, 512/4 and 2 more): gone"
    ]


def test_control_characters_from_the_server_are_not_printed():
    answer = ServerAnswer(kind=AnswerKind.ERROR, code=1, text="\x1b[2J", seconds=0.1)
    assert "\x1b" not in "".join(texts(answer=answer))
