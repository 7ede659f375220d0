"""Debounced actions."""

import pytest
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
    debouncer = Debouncer(clock, lambda: 1 / 0)
    debouncer()
    with pytest.raises(ZeroDivisionError):
        clock.advance(0)
    debouncer()
    with pytest.raises(ZeroDivisionError):
        clock.advance(0)


def test_a_stopped_debouncer_does_not_run(clock):
    runs = []
    debouncer = Debouncer(clock, slow(clock, runs))
    debouncer.stop()
    debouncer()
    debouncer.stop()
    clock.advance(1)
    assert runs == []
