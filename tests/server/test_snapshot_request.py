"""A worker that answers, answers late, or never."""

import pytest
from twisted.internet.task import Clock

from tftpd.server.admission import DropReason
from tftpd.server.snapshot import QUESTION, Snapshot, SnapshotRequest

SAID = Snapshot(drops={DropReason.SESSION_LIMIT: 1})


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


def test_an_answer_fires_the_deferred(asking, told):
    answer = _result(asking.send())
    assert told == [QUESTION]
    asking.answered(SAID)
    assert answer == [SAID]


def test_a_late_answer_gives_none(asking, clock):
    answer = _result(asking.send())
    clock.advance(1.1)
    assert answer == [None]


def test_a_worker_that_hangs_gets_one_request(asking, clock, told):
    for _ in range(10):
        asking.send()
        clock.advance(1.1)
    assert told == [QUESTION]


def test_drops_of_a_late_answer_are_added_to_the_next(asking, clock, told):
    asking.send()
    clock.advance(1.1)
    asking.answered(SAID)
    answer = _result(asking.ask())
    assert told == [QUESTION] * 2
    asking.answered(SAID)
    assert answer == [Snapshot(drops={DropReason.SESSION_LIMIT: 2})]


def test_a_worker_that_dies_gives_none(asking):
    answer = _result(asking.send())
    asking.gone()
    assert answer == [None]
    asking.gone()
