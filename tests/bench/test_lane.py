"""One direction of a line, without sockets and at a time of ours."""

from bench.relay import Lane, Line


def _lost(seed: str) -> list[int]:
    lane = Lane(Line(), 0.1, seed)
    return [number for number in range(1000) if not lane.offer(b"", print, 0.0)]


def test_the_same_are_lost_with_the_same_seed():
    assert _lost("1 down") == _lost("1 down")
    assert _lost("1 down") != _lost("1 up")
    assert 60 < len(_lost("1 down")) < 140


def test_nothing_is_lost_without_a_probability():
    lane = Lane(Line(), 0.0, "1")
    assert all(lane.offer(b"x", print, 0.0) for _ in range(1000))


def test_a_datagram_takes_its_octets_by_the_rate_and_the_delay():
    came = []
    lane = Lane(Line(rate=1000, queue=64, delay=0.5), 0.0, "1")
    lane.offer(bytes(100), lambda _: came.append("a"), 0.0)
    lane.offer(bytes(200), lambda _: came.append("b"), 0.0)
    assert lane.deliver(0.0) == 0.6
    assert lane.deliver(0.6) == 0.8
    assert came == ["a"]
    assert lane.deliver(0.8) is None
    assert came == ["a", "b"]


def test_the_last_to_come_are_lost_at_a_full_queue():
    lane = Lane(Line(rate=1000, queue=2), 0.0, "1")
    assert [lane.offer(bytes(100), print, 0.0) for _ in range(4)] == [True, True, False, False]
    assert lane.overflowed == 2
    assert lane.offer(bytes(100), print, 0.1), "one has left by now"


def test_what_waits_for_its_delay_is_not_in_the_queue():
    lane = Lane(Line(rate=1000, queue=1, delay=60), 0.0, "1")
    assert lane.offer(bytes(100), print, 0.0)
    assert lane.offer(bytes(100), print, 0.1)
    assert lane.overflowed == 0


def test_what_is_late_holds_up_nobody():
    came = []
    lane = Lane(Line(delay=0.5), 0.0, "1")
    lane.offer(b"a", came.append, 0.0, late=1.0)
    lane.offer(b"b", came.append, 0.0)
    lane.offer(b"c", came.append, 0.0)
    assert lane.deliver(0.5) == 1.5
    assert came == [b"b", b"c"]
    assert lane.deliver(1.5) is None
    assert came == [b"b", b"c", b"a"]
