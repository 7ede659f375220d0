"""A worker that answers, answers late, or never."""

import pytest
from twisted.internet.task import Clock

from tftpd.server.admission import DropReason
from tftpd.server.snapshot import QUESTION, Snapshot, SnapshotRequest

SAID = Snapshot(drops={DropReason.NO_PLACE: 1})


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told():
    return []


@pytest.fixture
def asking(clock, told):
    yield SnapshotRequest(clock, told.append)
    clock.advance(1)
    assert not clock.getDelayedCalls()


def _result(deferred):
    results = []
    deferred.addCallback(results.append)
    return results


def test_an_answer(asking, told):
    answer = _result(asking.send())
    assert told == [QUESTION]
    asking.answered(SAID)
    assert answer == [SAID]


def test_no_answer_in_time(asking, clock):
    answer = _result(asking.send())
    clock.advance(1.1)
    assert answer == [None]


def test_a_worker_that_stands_still_is_asked_once(asking, clock, told):
    for _ in range(10):
        asking.send()
        clock.advance(1.1)
    assert told == [QUESTION]


def test_what_comes_late_counts_the_next_time(asking, clock, told):
    asking.send()
    clock.advance(1.1)
    asking.answered(SAID)
    answer = _result(asking.send())
    assert told == [QUESTION] * 2
    asking.answered(SAID)
    assert answer == [Snapshot(drops={DropReason.NO_PLACE: 2})]


def test_a_worker_that_dies(asking):
    answer = _result(asking.send())
    asking.gone()
    assert answer == [None]
    asking.gone()
