"""Debounced actions."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tftpd.net.rate_limit import Debouncer


@pytest.fixture
def clock():
    return Clock()


def slow(clock, runs, duration=1.0):
    """Return an action that takes `duration` seconds."""

    def action():
        runs.append(clock.seconds())
        clock.rightNow += duration

    return action


def test_calls_in_one_turn_are_merged(clock):
    runs = []
    debouncer = Debouncer(clock, slow(clock, runs))
    for _ in range(100):
        debouncer()
    assert runs == []
    clock.advance(0)
    assert runs == [0]
    assert clock.getDelayedCalls() == []


def test_the_last_call_is_never_lost_and_the_action_uses_20_percent_of_the_time(clock):
    runs = []
    debouncer = Debouncer(clock, slow(clock, runs))
    for _ in range(200):
        debouncer()
        clock.advance(0.1)
    assert runs == pytest.approx([0, 5, 10, 15, 20], abs=0.6)


def test_after_a_pause_the_action_runs_at_once(clock):
    runs = []
    debouncer = Debouncer(clock, slow(clock, runs))
    debouncer()
    clock.advance(0)
    clock.advance(100)
    debouncer()
    clock.advance(0)
    assert len(runs) == 2


def test_the_action_can_run_again_after_an_exception(clock):
    runs = []

    def fail():
        runs.append(clock.seconds())
        raise ZeroDivisionError

    debouncer = Debouncer(clock, fail)
    for _ in range(2):
        debouncer()
        clock.advance(0)
    assert runs == [0, 0]


def test_calls_during_an_action_run_it_once_after_its_end(clock):
    ends = []
    debouncer = Debouncer(clock, lambda: ends.append(Deferred()) or ends[-1])
    debouncer()
    clock.advance(0)
    for _ in range(100):
        debouncer()
        clock.advance(0.01)
    assert len(ends) == 1
    ends[0].callback(None)  # after 1 s
    clock.advance(3.9)
    assert len(ends) == 1
    clock.advance(0.2)
    assert len(ends) == 2


def test_the_pause_after_a_long_action_is_limited(clock):
    ends = []
    debouncer = Debouncer(clock, lambda: ends.append(Deferred()) or ends[-1])
    debouncer()
    clock.advance(0)
    clock.advance(600)
    ends[0].callback(None)
    debouncer()
    clock.advance(10)
    assert len(ends) == 2


def test_no_run_follows_an_action_that_ends_after_the_stop(clock):
    end = Deferred()
    debouncer = Debouncer(clock, lambda: end)
    debouncer()
    clock.advance(0)
    debouncer()
    debouncer.stop()
    end.callback(None)
    assert clock.getDelayedCalls() == []


def test_a_stopped_debouncer_does_not_run(clock):
    runs = []
    debouncer = Debouncer(clock, slow(clock, runs))
    debouncer.stop()
    debouncer()
    debouncer.stop()
    clock.advance(1)
    assert runs == []
