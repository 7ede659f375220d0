"""Requests for a snapshot to a worker that answers, answers late, or never."""

import pytest
from twisted.internet.task import Clock

from tftpd.server.admission import DropReason
from tftpd.server.snapshot import QUESTION, Snapshot, SnapshotRequest

SNAPSHOT = Snapshot(drops={DropReason.SESSION_LIMIT: 1})


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sent():
    return []


@pytest.fixture
def request_(clock, sent):
    yield SnapshotRequest(clock, sent.append)
    clock.advance(1)
    assert not clock.getDelayedCalls()


def _result(deferred):
    results = []
    deferred.addCallback(results.append)
    return results


def test_an_answer_fires_the_deferred(request_, sent):
    answer = _result(request_.send())
    assert sent == [QUESTION]
    request_.answered(SNAPSHOT)
    assert answer == [SNAPSHOT]


def test_a_late_answer_gives_none(request_, clock):
    answer = _result(request_.send())
    clock.advance(1.1)
    assert answer == [None]


def test_a_worker_that_hangs_gets_one_request(request_, clock, sent):
    for _ in range(10):
        request_.send()
        clock.advance(1.1)
    assert sent == [QUESTION]


def test_drops_of_a_late_answer_are_added_to_the_next(request_, clock, sent):
    request_.send()
    clock.advance(1.1)
    request_.answered(SNAPSHOT)
    answer = _result(request_.send())
    assert sent == [QUESTION] * 2
    request_.answered(SNAPSHOT)
    assert answer == [Snapshot(drops={DropReason.SESSION_LIMIT: 2})]


def test_a_worker_that_dies_gives_none(request_):
    answer = _result(request_.send())
    request_.gone()
    assert answer == [None]
    request_.gone()
