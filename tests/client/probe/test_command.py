"""The exit status of a probe."""

import pytest

from tests.client.probe.test_findings import OBSERVED
from tftpd.client.probe.command import exit_status
from tftpd.client.probe.findings import Finding, Level
from tftpd.client.probe.observations import AnswerKind, ServerAnswer


def findings(*levels):
    return tuple(Finding(level, "any", "any") for level in levels)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([], 0),
        ([Level.NOTE, Level.RISK], 0),
        ([Level.BREAKS, Level.NOTE], 1),
    ],
)
def test_only_problems_that_prevent_boots_are_failures(levels, expected):
    assert exit_status(OBSERVED, findings(*levels)) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ServerAnswer(), 5),
        (ServerAnswer(malformed=1), 1),
        (ServerAnswer(kind=AnswerKind.ERROR, code=1), 3),
        (ServerAnswer(kind=AnswerKind.ERROR, code=2), 4),
        (ServerAnswer(kind=AnswerKind.ERROR, code=0), 1),
    ],
)
def test_the_exit_status_shows_why_a_probe_ended_early(answer, expected):
    observed = type(OBSERVED)(host="h", address="192.0.2.1", port=69, name="f", answer=answer)
    assert exit_status(observed, findings(Level.BREAKS)) == expected
