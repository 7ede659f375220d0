"""Actions that are asked for in storms."""

import pytest
from twisted.internet.task import Clock

from tftpd.net.rate_limit import Debouncer


@pytest.fixture
def clock():
    return Clock()


def slow(clock, done, takes=1.0):
    """An action that takes its time."""

    def action():
        done.append(clock.seconds())
        clock.rightNow += takes

    return action


def test_calls_that_come_together_are_one(clock):
    done = []
    seldom = Debouncer(clock, slow(clock, done))
    for _ in range(100):
        seldom()
    assert done == []
    clock.advance(0)
    assert done == [0]
    assert clock.getDelayedCalls() == []


def test_the_last_call_is_never_lost_and_the_action_gets_a_fifth_of_the_time(clock):
    done = []
    seldom = Debouncer(clock, slow(clock, done))
    for _ in range(200):
        seldom()
        clock.advance(0.1)
    assert done == pytest.approx([0, 5, 10, 15, 20], abs=0.6)


def test_after_a_rest_it_comes_at_once(clock):
    done = []
    seldom = Debouncer(clock, slow(clock, done))
    seldom()
    clock.advance(0)
    clock.advance(100)
    seldom()
    clock.advance(0)
    assert len(done) == 2


def test_an_action_that_fails_is_no_reason_to_hurry(clock):
    seldom = Debouncer(clock, lambda: 1 / 0)
    seldom()
    with pytest.raises(ZeroDivisionError):
        clock.advance(0)
    seldom()
    with pytest.raises(ZeroDivisionError):
        clock.advance(0)


def test_what_is_stopped_does_not_come(clock):
    done = []
    seldom = Debouncer(clock, slow(clock, done))
    seldom.stop()
    seldom()
    seldom.stop()
    clock.advance(1)
    assert done == []
