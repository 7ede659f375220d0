"""Windows on links that lose, and the rate at which they leave after a loss."""

import pytest

from tests.protocol.link import Link
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.pacing import IntervalPacer, RatePacer
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer
from tftpd.protocol.sender import Sender

MIB = 1 << 20
MB = 1e6


@pytest.mark.parametrize(
    ("windowsize", "queue", "least"),
    [(64, 64, 6), (64, 32, 4), (64, 16, 4), (16, 16, 6), (32, 16, 2.5)],
)
def test_a_short_queue_before_a_bottleneck_of_10_mb_is_no_collapse(windowsize, queue, least):
    measured = Link(rate=10 * MB, queue=queue).transfer(4 * MIB, windowsize)
    assert measured.outcome is Outcome.DONE
    assert measured.goodput > least * MB


def test_a_bottleneck_of_1_mb_is_used():
    measured = Link(rate=1 * MB, queue=20).transfer(2 * MIB, 64)
    assert measured.goodput > 0.5 * MB


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("windowsize", "loss", "least"),
    [(1, 0.01, 0.1), (1, 0.05, 0.02), (4, 0.01, 0.8), (16, 0.001, 8), (16, 0.01, 2),
     (16, 0.05, 0.15), (64, 0.001, 12), (64, 0.01, 8), (64, 0.05, 0.4)],
)  # fmt: skip
def test_random_loss_costs_what_it_must(windowsize, loss, least, seed):
    """MB/s on a link of 100 MB/s and 1 ms round trip."""
    measured = Link(loss=loss, seed=seed).transfer(1 * MIB, windowsize)
    assert measured.outcome is Outcome.DONE
    assert measured.goodput > least * MB


@pytest.mark.parametrize(("late", "least"), [(0.01, 16), (0.03, 7)])
def test_a_client_that_is_late_by_chance_is_no_bottleneck(late, least):
    """MB/s on three links that lose 0.05 % of packets, together."""
    links = (Link(loss=0.0005, late=late, seed=seed) for seed in range(3))
    measured = [link.transfer(8 * MIB, 64) for link in links]
    assert {each.outcome for each in measured} == {Outcome.DONE}
    assert sum(each.goodput for each in measured) > least * MB


def test_without_loss_nothing_is_sent_twice_or_held_up():
    measured = Link().transfer(4 * MIB, 64)
    assert (measured.sent, measured.outcome) == (1.0, Outcome.DONE)


def test_a_pacer_holds_nothing_up_before_a_loss():
    assert not RatePacer(64).active


def test_a_gap_sets_the_rate_that_was_seen():
    pacer = RatePacer(64)
    pacer.on_loss(40, elapsed=0.04)
    assert pacer.active
    assert pacer.take(64, now=0.0) == 8  # at least; 2 ms of 1250 a second are fewer
    assert pacer.next_at == pytest.approx(8 / 1250)
    assert pacer.take(56, now=0.001) == 0
    assert pacer.take(56, now=0.0065) == 8


def test_a_gap_on_a_fast_link_is_no_reason_to_slow_down():
    pacer = RatePacer(64)
    pacer.on_loss(40, elapsed=0.0001)
    assert not pacer.active


def test_silence_quarters_the_rate_down_to_a_floor():
    pacer = RatePacer(64)
    bursts = []
    for _ in range(8):
        pacer.on_timeout(rtt=0.001)
        bursts.append(pacer.take(64, now=10.0 * len(bursts)))
    assert bursts == [32, 8, 8, 8, 8, 8, 8, 8]
    before = pacer.next_at
    pacer.take(8, before)
    assert pacer.next_at - before == pytest.approx(8 / 500)


def test_a_lone_silence_costs_little_and_the_next_one_much():
    pacer = RatePacer(64)
    pacer.on_loss(40, elapsed=0.01)  # 5000 a second
    pacer.on_window_acked(64, elapsed=0.0128, queued=0.0)
    rates = []
    for start in (10.0, 20.0, 30.0):
        pacer.take(8, start)
        rates.append(8 / (pacer.next_at - start))
        pacer.on_timeout(rtt=0.001)
    assert rates == pytest.approx([10000, 7500, 1875])


def test_what_came_as_fast_as_it_left_raises_the_rate_though_some_was_lost():
    pacer = RatePacer(64)
    pacer.on_loss(40, elapsed=0.01)
    pacer.on_loss(32, elapsed=32 / 4900)
    pacer.take(8, 10.0)
    assert 8 / (pacer.next_at - 10.0) == pytest.approx(5000 * 2**0.5)


def test_windows_that_arrive_end_the_pacing():
    pacer = RatePacer(64)
    pacer.on_loss(40, elapsed=0.04)
    for _ in range(6):
        pacer.on_window_acked(64, elapsed=0.05, queued=0.0)
    assert not pacer.active


def test_windows_that_queue_keep_the_rate_near_what_was_seen():
    pacer = RatePacer(64)
    pacer.on_loss(40, elapsed=0.04)
    for _ in range(20):
        pacer.on_window_acked(64, elapsed=0.0128, queued=0.005)  # 5000 a second
    assert pacer.take(64, now=10.0) == 12  # 2 ms of 6250 a second


def test_the_fastest_of_the_last_eight_windows_tells_the_rate():
    pacer = RatePacer(64)
    pacer.on_loss(40, elapsed=0.04)
    for elapsed in (0.0128, *[0.02] * 7):
        pacer.on_window_acked(64, elapsed, queued=0.005)
        assert pacer._rate == pytest.approx(6250)
    pacer.on_window_acked(64, 0.02, queued=0.005)
    assert pacer._rate == pytest.approx(4000)


@pytest.mark.parametrize("loss", ["gap", "silence"])
def test_after_a_loss_only_what_came_since_counts(loss):
    pacer = RatePacer(64)
    pacer.on_loss(40, elapsed=0.04)
    pacer.on_window_acked(64, 0.0128, queued=0.005)
    if loss == "gap":
        pacer.on_loss(40, elapsed=0.04)
    else:
        pacer.on_timeout(rtt=0.001)
    pacer.on_window_acked(64, 0.032, queued=0.005)
    assert pacer._rate == pytest.approx(2500)


def test_small_windows_are_not_paced():
    pacer = RatePacer(8)
    pacer.on_timeout(rtt=0.001)
    assert not pacer.active


def test_blocks_leave_one_by_one_where_a_gap_is_set():
    timer = RetransmitTimer(RetransmitPolicy(packet_interval=0.002), windowsize=4)
    sender = Sender(TransferOptions(windowsize=4), timer, 0.0)
    sender.blocks_ready(6, 100)
    assert sender.next_send(0.0) == (1, 1)
    assert sender.deadline == 0.002
    assert sender.next_send(0.0) is None
    assert sender.deadline == 0.002
    sender.on_timeout(0.002)
    assert sender.next_send(0.002) == (2, 1)
    assert (sender.next_send(0.0041), sender.next_send(0.0062)) == ((3, 1), (4, 1))
    assert sender.deadline > 0.1  # the window is out: now it is the timer's
    sender.receive_ack(4, 0.0063)
    assert sender.next_send(0.0063) is None  # the ACK came before the gap was over
    sender.on_timeout(sender.deadline)
    assert sender.next_send(0.0083) == (5, 1)
    assert sender.timeouts == 0


def test_a_gap_stays_after_a_loss():
    timer = RetransmitTimer(
        RetransmitPolicy(packet_interval=0.002, initial_interval=0.1),
        windowsize=4,
        uniform=lambda: 0.0,
    )
    sender = Sender(TransferOptions(windowsize=4), timer, 0.0)
    sender.blocks_ready(4, 100)
    assert [sender.next_send(n * 0.0021) for n in range(4)] == [(1, 1), (2, 1), (3, 1), (4, 1)]
    sender.on_timeout(sender.deadline)
    assert sender.timeouts == 1
    assert (sender.next_send(0.2), sender.next_send(0.2)) == ((1, 1), None)


# What a Pacer makes of what it is told


def _rate(pacer, start):
    """Blocks per second, as the time after a burst tells."""
    return pacer.take(8, start) / (pacer.next_at - start)


def _paced():
    """At 5000 blocks a second, and nothing known of a bottleneck."""
    pacer = RatePacer(64)
    pacer.on_loss(40, elapsed=0.01)
    return pacer


@pytest.mark.parametrize(("queued", "rate"), [(0.0019, 10000), (0.002, 1.25 * 64 / 0.02)])
def test_two_milliseconds_of_queue_are_a_queue(queued, rate):
    pacer = _paced()
    pacer.on_window_acked(64, elapsed=0.02, queued=queued)
    assert _rate(pacer, 10.0) == pytest.approx(rate)


def test_the_rate_doubles_up_to_half_of_what_was_lost_and_creeps_from_there():
    pacer = _paced()
    pacer.on_window_acked(64, elapsed=0.02, queued=0.0)  # 10000
    pacer.on_loss(40, elapsed=0.1)  # 8500: one loss is no proof
    assert _rate(pacer, 10.0) == pytest.approx(8500)
    pacer.on_timeout(rtt=0.001)  # 2125, and 8500 was too fast
    rates = []
    for at, count in enumerate((32, 32, 64, 64)):
        pacer.on_window_acked(count, elapsed=0.02, queued=0.0)
        rates.append(_rate(pacer, 20.0 + at))
    assert rates == pytest.approx([2125 * 2**0.5, 4250, 4250 * 1.05, 4250 * 1.05**2])


@pytest.mark.parametrize("elapsed", [0.000625, 0.0001, 0.0, -1.0])
def test_a_window_that_kept_up_before_any_pacing_makes_a_silence_a_lone_one(elapsed):
    pacer = RatePacer(64)
    pacer.on_loss(40, elapsed)  # 64000 a second and more are no limit
    assert not pacer.active
    pacer.on_timeout(rtt=0.001)
    assert _rate(pacer, 10.0) == pytest.approx(48000, rel=0.01)


@pytest.mark.parametrize(
    ("arrival", "rate"),
    [(4800, 5000 * 2 ** (40 / 64)), (4400, 5000), (4000, 5000), (3600, 4500), (400, 4250)],
)
def test_a_gap_slows_down_by_what_was_seen_to_arrive_and_by_no_more_than_a_seventh(arrival, rate):
    pacer = _paced()
    pacer.on_loss(40, elapsed=40 / arrival)
    assert _rate(pacer, 10.0) == pytest.approx(rate)


def test_what_came_near_the_rate_does_not_count_as_its_limit():
    pacer = _paced()
    pacer.on_loss(40, elapsed=0.01)
    pacer.on_window_acked(64, elapsed=0.02, queued=0.0)
    assert _rate(pacer, 10.0) == pytest.approx(10000)


def test_a_first_silence_is_reckoned_by_a_window_each_round_trip():
    for roundtrip, rate in ((0.01, 1600), (0.0001, 16000)):
        pacer = RatePacer(64)
        pacer.on_timeout(roundtrip)
        assert _rate(pacer, 10.0) == pytest.approx(rate)


def test_blocks_may_leave_at_the_very_time_that_was_said():
    pacer = _paced()
    assert pacer.take(64, 0.0) == 10  # 2 ms of 5000 a second
    assert pacer.take(54, pacer.next_at) == 10
    assert pacer.take(3, pacer.next_at) == 3
    spacer = IntervalPacer(0.5)
    assert (spacer.take(4, 1.0), spacer.take(3, 1.25), spacer.take(3, 1.5)) == (1, 0, 1)


def test_nothing_that_becomes_of_them_changes_a_gap():
    spacer = IntervalPacer(0.5)
    spacer.on_window_acked(4, 1.0, 0.0)
    spacer.on_loss(4, 1.0)
    spacer.on_timeout(1.0)
    assert (spacer.active, spacer.take(4, 1.0), spacer.next_at) == (True, 1, 1.5)


def test_windows_of_nine_blocks_and_more_are_paced():
    for window, active in ((8, False), (9, True)):
        pacer = RatePacer(window)
        pacer.on_timeout(rtt=0.01)
        assert pacer.active is active


def test_where_pacing_has_ended_a_silence_is_reckoned_by_the_round_trip_again():
    pacer = _paced()
    for _ in range(4):
        pacer.on_window_acked(64, elapsed=0.02, queued=0.0)
    assert not pacer.active
    pacer.on_timeout(rtt=0.01)
    assert _rate(pacer, 10.0) == pytest.approx(0.75 * 6400)


def test_a_sender_is_paced_by_what_was_seen_to_arrive_without_the_round_trip():
    timer = RetransmitTimer(RetransmitPolicy(), None, 64, uniform=lambda: 0.0)
    timer.on_rtt_sample(0.01)
    sender = Sender(TransferOptions(blksize=512, windowsize=64), timer, 0.0)
    sender.blocks_ready(192)
    assert sender.next_send(0.0) == (1, 64)
    sender.receive_ack(32, 0.05)  # 32 blocks in 40 ms
    now = 0.05
    for first in range(33, 97, 8):
        assert sender.next_send(now) == (first, 8)
        if first < 89:
            assert sender.deadline == pytest.approx(now + 8 / 1000)
            now = sender.deadline
    sender.receive_ack(96, 0.2)  # 64 in 140 ms
    assert sender.next_send(0.2) == (97, 8)
    assert sender.deadline == pytest.approx(0.2 + 8 / (1.25 * 64 / 0.14))
