"""When to send again."""

from math import inf

import pytest

from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer

TIMING = RetransmitPolicy(
    min_interval=0.25, max_interval=8.0, initial_interval=1.0, idle_timeout=30.0, dally=12.0
)


def _timer(fixed=None, uniform=0.0):
    return RetransmitTimer(TIMING, fixed, uniform=lambda: uniform)


def test_before_anything_is_measured_the_interval_is_the_initial_one():
    assert _timer().interval == 1.0


def test_the_first_measure_counts_threefold():
    """RFC 6298 s2.2: SRTT = R, RTTVAR = R / 2, RTO = SRTT + 4 * RTTVAR."""
    timer = _timer()
    timer.on_rtt_sample(0.5)
    assert timer.interval == 1.5


def test_later_measures_are_smoothed():
    """RFC 6298 s2.3: RTTVAR = 3/4 * 0.25 + 1/4 * 0.4, SRTT = 7/8 * 0.5 + 1/8 * 0.9."""
    timer = _timer()
    timer.on_rtt_sample(0.5)
    timer.on_rtt_sample(0.9)
    assert timer.interval == pytest.approx(0.55 + 4 * 0.2875)


def test_the_interval_stays_between_floor_and_ceiling():
    timer = _timer()
    timer.on_rtt_sample(0.0001)
    assert timer.interval == 0.25
    timer.on_rtt_sample(100)
    assert timer.interval == 8.0


def test_each_loss_doubles_the_interval_until_an_answer_comes():
    timer = _timer()
    intervals = []
    for _ in range(5):
        intervals.append(timer.interval)
        timer.back_off()
    assert intervals == [1, 2, 4, 8, 8]
    timer.on_rtt_sample(0.1)
    assert timer.interval == pytest.approx(0.3)


def test_jitter_adds_a_quarter_at_most():
    timer = _timer(uniform=1.0)
    timer.back_off()
    assert timer.interval == 2.5


def test_a_fixed_interval_is_kept_whatever_is_measured_or_lost():
    timer = _timer(fixed=3.0, uniform=1.0)
    timer.on_rtt_sample(0.1)
    timer.back_off()
    assert timer.interval == 3.0


def test_patience_and_dally_allow_for_three_fixed_intervals():
    assert (_timer().idle_timeout, _timer().dally) == (30, 12)
    assert (_timer(fixed=3.0).idle_timeout, _timer(fixed=3.0).dally) == (30, 12)
    assert (_timer(fixed=20.0).idle_timeout, _timer(fixed=20.0).dally) == (60, 60)


def test_a_clock_that_steps_back_measures_nothing():
    timer = _timer()
    timer.on_rtt_sample(-5)
    assert timer.interval == 0.25


def test_no_interval_is_longer_than_patience():
    timer = RetransmitTimer(RetransmitPolicy(idle_timeout=0.5, initial_interval=2.0))
    assert timer.interval == 0.5


def test_windows_may_be_repeated_five_times_as_soon():
    for windowsize, interval in ((1, 0.25), (2, 0.05), (64, 0.05)):
        timer = RetransmitTimer(TIMING, None, windowsize, uniform=lambda: 0.0)
        timer.on_rtt_sample(0.0001)
        assert timer.interval == pytest.approx(interval)


def test_unless_told_otherwise_a_timer_is_for_lock_step():
    timer = RetransmitTimer(TIMING)
    timer.on_rtt_sample(0.0001)
    assert timer.interval == 0.25


def test_the_round_trip_is_smoothed_and_the_shortest_is_kept():
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


def test_an_answer_that_shows_a_loss_takes_back_what_was_waited_longer():
    timer = _timer()
    timer.on_rtt_sample(0.5)
    timer.back_off()
    timer.back_off()
    assert timer.interval == 6.0
    timer.reset_backoff()
    assert timer.interval == 1.5
    timer.back_off()
    assert timer.interval == 3.0


def test_copies_and_gap_are_those_of_the_timing():
    timer = RetransmitTimer(RetransmitPolicy(max_unanswered_sends=5, packet_interval=0.002))
    assert (timer.max_unanswered_sends, timer.packet_interval) == (5, 0.002)
    assert (
        RetransmitTimer(RetransmitPolicy()).max_unanswered_sends,
        RetransmitTimer(RetransmitPolicy()).packet_interval,
    ) == (3, 0.0)


def test_clients_of_one_power_cut_do_not_stay_in_step():
    intervals = set()
    for _ in range(20):
        timer = RetransmitTimer(TIMING)
        timer.back_off()
        assert 2.0 <= timer.interval < 2.5
        intervals.add(timer.interval)
    assert len(intervals) > 1


def test_the_defaults_outlast_what_clients_do():
    assert RetransmitPolicy() == RetransmitPolicy(
        min_interval=0.25,
        max_interval=8.0,
        initial_interval=1.0,
        idle_timeout=30.0,
        dally=12.0,
        max_unanswered_sends=3,
        packet_interval=0.0,
    )


def test_without_a_fixed_interval_patience_and_dally_are_as_short_as_they_are_set():
    timer = RetransmitTimer(RetransmitPolicy(idle_timeout=2.0, dally=1.0))
    assert (timer.idle_timeout, timer.dally) == (2.0, 1.0)
