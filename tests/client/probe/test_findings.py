"""From what was seen to plain words: pure functions, as tables."""

from dataclasses import replace

import pytest

from tftpd.client.probe.findings import Level, findings
from tftpd.client.probe.observations import (
    Answer,
    AnswerKind,
    AnswerOrigin,
    Boot,
    Observations,
    OptionObservation,
    OptionResult,
    Repeats,
    RolloverResult,
    ThroughputSample,
)

DATA = Answer(
    kind=AnswerKind.DATA,
    address="192.0.2.1",
    port=3000,
    origin=AnswerOrigin.OWN_PORT,
    seconds=0.001,
)
SEEN = Observations(host="boot", address="192.0.2.1", port=69, name="f", answer=DATA)
TSIZE = OptionObservation("tsize", 0, OptionResult.GRANTED, 1_000_000)


def blksize(size, arrived=None, how=OptionResult.GRANTED, value=None):
    return OptionObservation("blksize", size, how, value or size, arrived=arrived)


def windowsize(size, blocks, **more):
    return OptionObservation("windowsize", size, OptionResult.GRANTED, size, blocks=blocks, **more)


def sampled(blksize, windowsize, rate, **more):
    return ThroughputSample(blksize, windowsize, octets=1_000_000, seconds=1_000_000 / rate, **more)


def found(**seen):
    """The kinds and levels of what is found."""
    return {(one.kind, one.level.value) for one in findings(replace(SEEN, **seen))}


HEALTHY = ("healthy", "note")
THREE_LOST = (blksize(1468, 1468), blksize(2048), blksize(4096))
PLAIN = sampled(512, 1, 1e6)
UNSEEN = Boot("GRUB", Answer(kind=AnswerKind.DATA))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({}, {HEALTHY}),
        ({"answer": Answer()}, {("silent", "breaks")}),
        ({"answer": Answer(garbage=3)}, {("not-tftp", "breaks")}),
        ({"answer": Answer(kind=AnswerKind.ERROR, code=1)}, {("missing", "breaks")}),
        ({"answer": Answer(kind=AnswerKind.ERROR, code=2)}, {("refused", "breaks")}),
        ({"answer": Answer(kind=AnswerKind.OACK)}, {("oack-unasked", "breaks")}),
        (
            {"answer": replace(DATA, origin=AnswerOrigin.OTHER_ADDRESS), "boots": (UNSEEN,)},
            {("other-address", "breaks")},
        ),
        ({"answer": replace(DATA, origin=AnswerOrigin.SAME_PORT)}, {("single-port", "note"), HEALTHY}),
        ({"answer": replace(DATA, seconds=1.5)}, {("slow-answer", "risk")}),
        ({"answer": replace(DATA, requests=2)}, {("lost-request", "risk")}),
        ({"boots": (UNSEEN,)}, {("firmware", "breaks")}),
        ({"tsize": TSIZE, "size": 1_000_000}, {HEALTHY}),
        ({"tsize": TSIZE, "size": 999_999}, {("tsize-wrong", "breaks")}),
        ({"tsize": OptionObservation("tsize", 0, OptionResult.IGNORED)}, {("tsize-missing", "breaks")}),
        ({"blksizes": (blksize(1468, 1468),)}, {HEALTHY}),
        ({"blksizes": (blksize(512, 512, OptionResult.LOWERED),)}, {HEALTHY}),
        ({"blksizes": (blksize(512, 512, OptionResult.ILLEGAL, 1024),)}, {("blksize-illegal", "breaks")}),
        ({"blksizes": (OptionObservation("blksize", 8, OptionResult.REFUSED),)}, {("blksize-refused", "risk")}),
        ({"blksizes": (OptionObservation("blksize", 8, OptionResult.FAILED),)}, {("blksize-failed", "risk")}),
        ({"blksizes": (OptionObservation("blksize", 8, OptionResult.SILENT),)}, {("blksize-silent", "risk")}),
        ({"others": (OptionObservation("rollover", 0, OptionResult.REFUSED),)}, {HEALTHY}),
        ({"others": (OptionObservation("timeout", 3, OptionResult.ILLEGAL, 2),)}, {("timeout-illegal", "breaks")}),
        (
            {"others": (OptionObservation("timeout", 3, OptionResult.GRANTED, 3, ("blksize",)),)},
            {("options-unasked", "breaks")},
        ),
        ({"blksizes": THREE_LOST}, {("black-hole", "risk")}),
        ({"blksizes": (blksize(512, 512), blksize(1428))}, {("black-hole", "breaks")}),
        ({"blksizes": (blksize(512),)}, {("black-hole", "breaks")}),
        ({"windowsizes": (windowsize(1, 1), windowsize(8, 8))}, {HEALTHY}),
        ({"windowsizes": (windowsize(8, 1),)}, {("window-short", "risk")}),
        ({"windowsizes": (windowsize(8, 1, ended=True),)}, {HEALTHY}),
        ({"windowsizes": (windowsize(8, 9),)}, {("window-long", "breaks")}),
        (
            {"windowsizes": (OptionObservation("windowsize", 2, OptionResult.IGNORED),)},
            {("windowsize-none", "note"), HEALTHY},
        ),
        ({"repeats": Repeats(6.5, 1.0, copies=(1, 1, 1), ports=1)}, {HEALTHY}),
        ({"repeats": Repeats(6.5)}, {("no-repeat", "risk")}),
        ({"repeats": Repeats(6.5, 0.05)}, {("hasty-repeat", "risk")}),
        ({"repeats": Repeats(copies=(2, 2, 2))}, {("apprentice", "risk")}),
        ({"repeats": Repeats(copies=(2, 1, 1))}, {("copy", "note"), HEALTHY}),
        ({"repeats": Repeats(ports=2)}, {("second-transfer", "note"), HEALTHY}),
        ({"rollover": RolloverResult.ZERO}, {HEALTHY}),
        ({"rollover": RolloverResult.TOO_SMALL}, {HEALTHY}),
        ({"rollover": RolloverResult.UNTOLD}, {HEALTHY}),
        ({"rollover": RolloverResult.ONE}, {("rollover", "risk")}),
        ({"rollover": RolloverResult.NOTHING}, {("rollover", "risk")}),
        ({"rollover": RolloverResult.ERROR}, {("rollover", "risk")}),
        ({"size": 65536 * 1024}, {("long-file", "note"), HEALTHY}),
        ({"size": 65535 * 1024}, {HEALTHY}),
        ({"size": 9, "blksizes": (blksize(512, 9),)}, {("short-file", "note"), HEALTHY}),
        ({"samples": (PLAIN, sampled(1468, 16, 3e6))}, {("fastest", "note"), HEALTHY}),
        ({"samples": (PLAIN, sampled(1468, 16, 1.1e6))}, {HEALTHY}),
        ({"samples": (sampled(512, 1, 1e6, retransmits=4),)}, {("loss", "risk")}),
        ({"samples": (sampled(512, 1, 1e6, problem="no"),)}, {("broken-transfer", "risk")}),
    ],
)  # fmt: skip
def test_what_was_seen_and_what_it_means(seen, expected):
    assert found(**seen) == expected


def texts(**seen):
    return [one.text for one in findings(replace(SEEN, **seen))]


def test_a_black_hole_is_told_with_its_remedy():
    assert texts(blksizes=THREE_LOST) == [
        "blocks of 2048 octets and more are granted, but never arrive: something on the way "
        "drops fragments or long frames. Cap blksize at 1468"
    ]


def test_over_ipv6_a_block_of_1468_octets_is_in_fragments_already():
    lost = (blksize(1448, 1448), blksize(1468))
    assert found(blksizes=lost) == {("black-hole", "breaks")}
    assert found(blksizes=lost, address="2001:db8::1") == {("black-hole", "risk")}


def test_the_worst_comes_first():
    levels = [
        one.level
        for one in findings(
            replace(
                SEEN,
                tsize=OptionObservation("tsize", 0, OptionResult.IGNORED),
                repeats=Repeats(ports=2),
                rollover=RolloverResult.ONE,
            )
        )
    ]
    assert levels == [Level.BREAKS, Level.RISK, Level.NOTE]


def test_firmware_that_fails_alike_is_told_together():
    gone = Answer(kind=AnswerKind.NOTHING)
    boots = tuple(Boot(name, gone) for name in ("iPXE", "GRUB", "U-Boot"))
    assert texts(boots=boots) == ["not read by iPXE, GRUB and U-Boot: this request is not answered"]


def test_transfers_that_broke_off_alike_are_told_together():
    samples = tuple(ThroughputSample(512, window, problem="gone") for window in (1, 2, 4, 8, 16))
    assert texts(samples=samples) == [
        "transfers broke off (blksize/windowsize 512/1, 512/2, 512/4 and 2 more): gone"
    ]


def test_what_a_server_says_cannot_draw_on_a_terminal():
    answer = Answer(kind=AnswerKind.ERROR, code=1, text="\x1b[2J", seconds=0.1)
    assert "\x1b" not in "".join(texts(answer=answer))
