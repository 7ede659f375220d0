"""Retransmission policy and timer."""

from math import inf

import pytest

from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer

POLICY = RetransmitPolicy(
    min_interval=0.25, max_interval=8.0, initial_interval=1.0, idle_timeout=75.0, dally=12.0
)


def _timer(fixed=None, uniform=0.0):
    return RetransmitTimer(POLICY, fixed, uniform=lambda: uniform)


def test_the_initial_interval_applies_before_the_first_sample():
    assert _timer().interval == 1.0


def test_the_first_sample_sets_the_interval_to_three_times_the_rtt():
    """RFC 6298 section 2.2: SRTT = R, RTTVAR = R / 2, RTO = SRTT + 4 * RTTVAR."""
    timer = _timer()
    timer.on_rtt_sample(0.5)
    assert timer.interval == 1.5


def test_later_samples_are_smoothed():
    """RFC 6298 section 2.3: RTTVAR = 3/4 * 0.25 + 1/4 * 0.4, SRTT = 7/8 * 0.5 + 1/8 * 0.9."""
    timer = _timer()
    timer.on_rtt_sample(0.5)
    timer.on_rtt_sample(0.9)
    assert timer.interval == pytest.approx(0.55 + 4 * 0.2875)


def test_the_interval_stays_between_minimum_and_maximum():
    timer = _timer()
    timer.on_rtt_sample(0.0001)
    assert timer.interval == 0.25
    timer.on_rtt_sample(100)
    assert timer.interval == 8.0


def test_each_loss_doubles_the_interval_until_an_answer_arrives():
    timer = _timer()
    intervals = []
    for _ in range(5):
        intervals.append(timer.interval)
        timer.back_off()
    assert intervals == [1, 2, 4, 8, 8]
    timer.on_rtt_sample(0.1)
    assert timer.interval == pytest.approx(0.3)


def test_jitter_adds_at_most_a_quarter():
    timer = _timer(uniform=1.0)
    timer.back_off()
    assert timer.interval == 2.5


def test_samples_and_losses_do_not_change_a_fixed_interval():
    timer = _timer(fixed=3.0, uniform=1.0)
    timer.on_rtt_sample(0.1)
    timer.back_off()
    assert timer.interval == 3.0


def test_idle_timeout_and_dally_are_at_least_three_fixed_intervals():
    assert (_timer().idle_timeout, _timer().dally) == (75, 12)
    assert (_timer(fixed=3.0).idle_timeout, _timer(fixed=3.0).dally) == (75, 12)
    assert (_timer(fixed=30.0).idle_timeout, _timer(fixed=30.0).dally) == (90, 90)


def test_a_client_cannot_keep_its_session_longer_than_120_s_without_progress():
    assert (_timer(fixed=255.0).idle_timeout, _timer(fixed=255.0).dally) == (120, 120)


def test_a_negative_sample_counts_as_zero():
    timer = _timer()
    timer.on_rtt_sample(-5)
    assert timer.interval == 0.25


def test_no_interval_is_longer_than_the_idle_timeout():
    timer = RetransmitTimer(RetransmitPolicy(idle_timeout=0.5, initial_interval=2.0))
    assert timer.interval == 0.5


def test_the_minimum_interval_is_a_fifth_with_windows():
    for windowsize, interval in ((1, 0.25), (2, 0.05), (64, 0.05)):
        timer = RetransmitTimer(POLICY, None, windowsize, uniform=lambda: 0.0)
        timer.on_rtt_sample(0.0001)
        assert timer.interval == pytest.approx(interval)


def test_a_timer_is_for_lock_step_by_default():
    timer = RetransmitTimer(POLICY)
    timer.on_rtt_sample(0.0001)
    assert timer.interval == 0.25


def test_the_rtt_is_smoothed_and_the_shortest_rtt_is_kept():
    timer = _timer()
    assert (timer.smoothed_rtt, timer.min_rtt) == (None, inf)
    timer.on_rtt_sample(0.5)
    assert (timer.smoothed_rtt, timer.min_rtt) == (0.5, 0.5)
    timer.on_rtt_sample(0.9)
    assert timer.smoothed_rtt == pytest.approx(0.55)
    assert timer.min_rtt == 0.5
    timer.on_rtt_sample(0.1)
    assert timer.smoothed_rtt == pytest.approx(0.55 - 0.45 / 8)
    assert timer.min_rtt == 0.1
    timer.on_rtt_sample(-1)
    assert timer.min_rtt == 0.0


def test_reset_backoff_restores_the_interval():
    timer = _timer()
    timer.on_rtt_sample(0.5)
    timer.back_off()
    timer.back_off()
    assert timer.interval == 6.0
    timer.reset_backoff()
    assert timer.interval == 1.5
    timer.back_off()
    assert timer.interval == 3.0


def test_jitter_spreads_the_intervals_of_several_clients():
    intervals = set()
    for _ in range(20):
        timer = RetransmitTimer(POLICY)
        timer.back_off()
        assert 2.0 <= timer.interval < 2.5
        intervals.add(timer.interval)
    assert len(intervals) > 1


def test_default_policy():
    assert RetransmitPolicy() == RetransmitPolicy(
        min_interval=0.25,
        max_interval=8.0,
        initial_interval=1.0,
        idle_timeout=75.0,
        dally=12.0,
        max_unanswered_sends=3,
        packet_interval=0.0,
    )


def test_idle_timeout_and_dally_are_unchanged_without_a_fixed_interval():
    timer = RetransmitTimer(RetransmitPolicy(idle_timeout=2.0, dally=1.0))
    assert (timer.idle_timeout, timer.dally) == (2.0, 1.0)
