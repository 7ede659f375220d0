"""Windows on lossy links, and the rate at which they are sent after a loss."""

import pytest

from tests.protocol.link import Link
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.pacing import Pacer
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer
from tftpd.protocol.sender import Sender

MIB = 1 << 20
MB = 1e6


@pytest.mark.parametrize(
    ("windowsize", "queue", "minimum"),
    [(64, 64, 6), (64, 32, 4), (64, 16, 4), (16, 16, 6), (32, 16, 2.5)],
)
def test_the_throughput_does_not_collapse_at_a_short_queue_before_a_bottleneck_of_10_mb(
    windowsize, queue, minimum
):
    result = Link(rate=10 * MB, queue=queue).transfer(4 * MIB, windowsize)
    assert result.outcome is Outcome.DONE
    assert result.goodput > minimum * MB


def test_at_least_half_of_a_bottleneck_of_1_mb_is_used():
    result = Link(rate=1 * MB, queue=20).transfer(2 * MIB, 64)
    assert result.goodput > 0.5 * MB


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("windowsize", "loss", "minimum"),
    [(1, 0.01, 0.1), (1, 0.05, 0.02), (4, 0.01, 0.8), (16, 0.001, 8), (16, 0.01, 2),
     (16, 0.05, 0.15), (64, 0.001, 12), (64, 0.01, 8), (64, 0.05, 0.4)],
)  # fmt: skip
def test_random_loss_reduces_the_throughput_moderately(windowsize, loss, minimum, seed):
    """The minimum is in MB/s, on a link of 100 MB/s with a round-trip time of 1 ms."""
    result = Link(loss=loss, seed=seed).transfer(1 * MIB, windowsize)
    assert result.outcome is Outcome.DONE
    assert result.goodput > minimum * MB


@pytest.mark.parametrize(("max_delay", "minimum"), [(0.01, 16), (0.03, 7)])
def test_a_client_with_random_delays_is_not_taken_for_a_bottleneck(max_delay, minimum):
    """The minimum is in MB/s, the sum of three links that lose 0.05 % of the packets."""
    links = (Link(loss=0.0005, max_delay=max_delay, seed=seed) for seed in range(3))
    results = [link.transfer(8 * MIB, 64) for link in links]
    assert {result.outcome for result in results} == {Outcome.DONE}
    assert sum(result.goodput for result in results) > minimum * MB


def test_without_loss_no_block_is_repeated_or_delayed():
    result = Link().transfer(4 * MIB, 64)
    assert (result.sends_per_block, result.outcome) == (1.0, Outcome.DONE)


def test_a_pacer_is_inactive_before_a_loss():
    assert not Pacer(64).active


def test_a_loss_sets_the_rate_to_125_percent_of_the_arrival_rate():
    pacer = Pacer(64)
    pacer.on_loss(40, elapsed=0.04)
    assert pacer.active
    assert pacer.take(64, now=0.0) == 8  # the minimum; 2 ms of 1250 blocks per second are fewer
    assert pacer.next_at == pytest.approx(8 / 1250)
    assert pacer.take(56, now=0.001) == 0
    assert pacer.take(56, now=0.0065) == 8


def test_a_loss_on_a_fast_link_does_not_start_pacing():
    pacer = Pacer(64)
    pacer.on_loss(40, elapsed=0.0001)
    assert not pacer.active


def test_repeated_timeouts_quarter_the_rate_down_to_the_minimum():
    pacer = Pacer(64)
    bursts = []
    for _ in range(8):
        pacer.on_timeout(rtt=0.001)
        bursts.append(pacer.take(64, now=10.0 * len(bursts)))
    assert bursts == [32, 8, 8, 8, 8, 8, 8, 8]
    before = pacer.next_at
    pacer.take(8, before)
    assert pacer.next_at - before == pytest.approx(8 / 500)


def test_the_first_timeout_keeps_75_percent_of_the_rate_and_the_next_25_percent():
    pacer = Pacer(64)
    pacer.on_loss(40, elapsed=0.01)  # 5000 blocks per second
    pacer.on_window_acked(64, elapsed=0.0128, queued=0.0)
    rates = []
    for start in (10.0, 20.0, 30.0):
        pacer.take(8, start)
        rates.append(8 / (pacer.next_at - start))
        pacer.on_timeout(rtt=0.001)
    assert rates == pytest.approx([10000, 7500, 1875])


def test_blocks_that_arrive_at_the_send_rate_increase_the_rate_in_spite_of_a_loss():
    pacer = Pacer(64)
    pacer.on_loss(40, elapsed=0.01)
    pacer.on_loss(32, elapsed=32 / 4900)
    pacer.take(8, 10.0)
    assert 8 / (pacer.next_at - 10.0) == pytest.approx(5000 * 2**0.5)


def test_complete_windows_end_the_pacing():
    pacer = Pacer(64)
    pacer.on_loss(40, elapsed=0.04)
    for _ in range(6):
        pacer.on_window_acked(64, elapsed=0.05, queued=0.0)
    assert not pacer.active


def test_queued_windows_keep_the_rate_near_the_arrival_rate():
    pacer = Pacer(64)
    pacer.on_loss(40, elapsed=0.04)
    for _ in range(20):
        pacer.on_window_acked(64, elapsed=0.0128, queued=0.005)  # 5000 blocks per second
    assert pacer.take(64, now=10.0) == 12  # 2 ms of 6250 blocks per second


def test_the_fastest_of_the_last_eight_windows_determines_the_rate():
    pacer = Pacer(64)
    pacer.on_loss(40, elapsed=0.04)
    for elapsed in (0.0128, *[0.02] * 7):
        pacer.on_window_acked(64, elapsed, queued=0.005)
        assert pacer._rate == pytest.approx(6250)
    pacer.on_window_acked(64, 0.02, queued=0.005)
    assert pacer._rate == pytest.approx(4000)


@pytest.mark.parametrize("loss", ["partial", "timeout"])
def test_after_a_loss_only_later_windows_count(loss):
    pacer = Pacer(64)
    pacer.on_loss(40, elapsed=0.04)
    pacer.on_window_acked(64, 0.0128, queued=0.005)
    if loss == "partial":
        pacer.on_loss(40, elapsed=0.04)
    else:
        pacer.on_timeout(rtt=0.001)
    pacer.on_window_acked(64, 0.032, queued=0.005)
    assert pacer._rate == pytest.approx(2500)


def test_windows_of_eight_blocks_are_not_paced():
    pacer = Pacer(8)
    pacer.on_timeout(rtt=0.001)
    assert not pacer.active


def test_packet_interval_sends_blocks_one_at_a_time():
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
    assert sender.deadline > 0.1  # the window is sent: now the retransmission timer runs
    sender.receive_ack(4, 0.0063)
    assert sender.next_send(0.0063) is None  # the ACK arrived within the packet interval
    sender.on_timeout(sender.deadline)
    assert sender.next_send(0.0083) == (5, 1)
    assert sender.timeouts == 0


def test_packet_interval_applies_after_a_loss():
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


# Adaptive rates


def _rate(pacer, start):
    """Return the rate in blocks per second, measured by the time after a burst."""
    return pacer.take(8, start) / (pacer.next_at - start)


def _paced():
    """Return a pacer at 5000 blocks per second that has not met a bottleneck."""
    pacer = Pacer(64)
    pacer.on_loss(40, elapsed=0.01)
    return pacer


@pytest.mark.parametrize(("queued", "rate"), [(0.0019, 10000), (0.002, 1.25 * 64 / 0.02)])
def test_a_window_counts_as_queued_after_two_milliseconds(queued, rate):
    pacer = _paced()
    pacer.on_window_acked(64, elapsed=0.02, queued=queued)
    assert _rate(pacer, 10.0) == pytest.approx(rate)


def test_the_rate_doubles_up_to_half_of_the_rate_of_the_last_loss_and_then_grows_slowly():
    pacer = _paced()
    pacer.on_window_acked(64, elapsed=0.02, queued=0.0)  # 10000
    pacer.on_loss(40, elapsed=0.1)  # 8500
    assert _rate(pacer, 10.0) == pytest.approx(8500)
    pacer.on_timeout(rtt=0.001)  # 2125; the last loss was at 8500
    rates = []
    for at, count in enumerate((32, 32, 64, 64)):
        pacer.on_window_acked(count, elapsed=0.02, queued=0.0)
        rates.append(_rate(pacer, 20.0 + at))
    assert rates == pytest.approx([2125 * 2**0.5, 4250, 4250 * 1.05, 4250 * 1.05**2])


@pytest.mark.parametrize("elapsed", [0.000625, 0.0001, 0.0, -1.0])
def test_a_fast_window_before_any_pacing_makes_the_next_timeout_a_single_one(elapsed):
    pacer = Pacer(64)
    pacer.on_loss(40, elapsed)  # at 64000 blocks per second or more there is no limit
    assert not pacer.active
    pacer.on_timeout(rtt=0.001)
    assert _rate(pacer, 10.0) == pytest.approx(48000, rel=0.01)


@pytest.mark.parametrize(
    ("arrival", "rate"),
    [(4800, 5000 * 2 ** (40 / 64)), (4400, 5000), (4000, 5000), (3600, 4500), (400, 4250)],
)
def test_a_loss_reduces_the_rate_to_the_arrival_rate_but_not_below_85_percent(arrival, rate):
    pacer = _paced()
    pacer.on_loss(40, elapsed=40 / arrival)
    assert _rate(pacer, 10.0) == pytest.approx(rate)


def test_an_arrival_rate_near_the_send_rate_is_not_a_limit():
    pacer = _paced()
    pacer.on_loss(40, elapsed=0.01)
    pacer.on_window_acked(64, elapsed=0.02, queued=0.0)
    assert _rate(pacer, 10.0) == pytest.approx(10000)


def test_the_rate_after_a_first_timeout_is_based_on_one_window_per_round_trip():
    for rtt, rate in ((0.01, 1600), (0.0001, 16000)):
        pacer = Pacer(64)
        pacer.on_timeout(rtt)
        assert _rate(pacer, 10.0) == pytest.approx(rate)


def test_blocks_may_be_sent_exactly_at_next_at():
    pacer = _paced()
    assert pacer.take(64, 0.0) == 10  # 2 ms of 5000 blocks per second
    assert pacer.take(54, pacer.next_at) == 10
    assert pacer.take(3, pacer.next_at) == 3
    pacer = Pacer(4, interval=0.5)
    assert (pacer.take(4, 1.0), pacer.take(3, 1.25), pacer.take(3, 1.5)) == (1, 0, 1)


def test_losses_do_not_change_a_fixed_interval():
    pacer = Pacer(4, interval=0.5)
    pacer.on_window_acked(4, 1.0, 0.0)
    pacer.on_loss(4, 1.0)
    pacer.on_timeout(1.0)
    assert (pacer.active, pacer.take(4, 1.0), pacer.next_at) == (True, 1, 1.5)


def test_windows_of_nine_blocks_are_paced():
    for window, active in ((8, False), (9, True)):
        pacer = Pacer(window)
        pacer.on_timeout(rtt=0.01)
        assert pacer.active is active


def test_after_the_end_of_pacing_a_timeout_is_based_on_the_round_trip_again():
    pacer = _paced()
    for _ in range(4):
        pacer.on_window_acked(64, elapsed=0.02, queued=0.0)
    assert not pacer.active
    pacer.on_timeout(rtt=0.01)
    assert _rate(pacer, 10.0) == pytest.approx(0.75 * 6400)


def test_a_sender_subtracts_the_round_trip_from_the_arrival_time():
    timer = RetransmitTimer(RetransmitPolicy(), None, 64, uniform=lambda: 0.0)
    timer.on_rtt_sample(0.01)
    sender = Sender(TransferOptions(blksize=512, windowsize=64), timer, 0.0)
    sender.blocks_ready(192)
    assert sender.next_send(0.0) == (1, 64)
    sender.receive_ack(32, 0.05)  # 32 blocks in 40 ms, without the round trip
    now = 0.05
    for first in range(33, 97, 8):
        assert sender.next_send(now) == (first, 8)
        if first < 89:
            assert sender.deadline == pytest.approx(now + 8 / 1000)
            now = sender.deadline
    sender.receive_ack(96, 0.2)  # 64 blocks in 140 ms
    assert sender.next_send(0.2) == (97, 8)
    assert sender.deadline == pytest.approx(0.2 + 8 / (1.25 * 64 / 0.14))


def test_cautious_windows_are_sent_in_bursts_of_eight_blocks():
    pacer = Pacer(64, cautious_windows=2)
    assert (pacer.active, pacer.take(64, 1.0)) == (True, 8)
    assert pacer.take(56, 1.001) == 0
    assert pacer.take(56, 1.0021) == 8
    for _ in range(2):
        assert pacer.active
        pacer.on_window_acked(64, 0.01, 0.0)
    assert not pacer.active


def test_a_loss_during_cautious_windows_paces_the_later_ones_too():
    pacer = Pacer(64, cautious_windows=1)
    pacer.on_loss(32, 0.1)
    pacer.on_window_acked(64, 0.1, 0.0)
    assert pacer.active


def test_a_small_window_needs_no_caution():
    assert not Pacer(8, cautious_windows=3).active
