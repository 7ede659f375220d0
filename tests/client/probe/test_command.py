"""The exit status of a probe: what it saw, in one number."""

import pytest

from tests.client.probe.test_findings import SEEN
from tftpd.client.probe.command import status
from tftpd.client.probe.findings import Finding, Level
from tftpd.client.probe.observations import Answer, AnswerKind


def found(*levels):
    return tuple(Finding(level, "any", "any") for level in levels)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([], 0),
        ([Level.NOTE, Level.RISK], 0),
        ([Level.BREAKS, Level.NOTE], 1),
    ],
)
def test_only_what_breaks_boots_is_a_failure(levels, expected):
    assert status(SEEN, found(*levels)) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(), 5),
        (Answer(garbage=1), 1),
        (Answer(kind=AnswerKind.ERROR, code=1), 3),
        (Answer(kind=AnswerKind.ERROR, code=2), 4),
        (Answer(kind=AnswerKind.ERROR, code=0), 1),
    ],
)
def test_a_probe_that_ends_early_says_why(answer, expected):
    seen = type(SEEN)(host="h", address="192.0.2.1", port=69, name="f", answer=answer)
    assert status(seen, found(Level.BREAKS)) == expected
