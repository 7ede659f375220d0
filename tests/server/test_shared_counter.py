"""Places for sessions, counted over several processes."""

import mmap

from tftpd.server.admission import Tally


def test_one_process_has_as_many_as_the_limit():
    tally = Tally()
    assert [tally.take(2) for _ in range(3)] == [True, True, False]
    assert tally.full(2)
    tally.give()
    assert not tally.full(2)
    assert tally.take(2)


def test_the_limit_holds_over_all_who_share_the_memory():
    shared = memoryview(mmap.mmap(-1, 16)).cast("q")
    first, second = Tally(shared, 0), Tally(shared, 1)
    assert [first.take(3), second.take(3), first.take(3), second.take(3)] == [
        True,
        True,
        True,
        False,
    ]
    assert list(shared) == [2, 1]
    second.give()
    assert first.take(3)
    assert not second.take(3)


def test_what_a_dead_process_held_is_given_back_by_its_zero():
    shared = memoryview(mmap.mmap(-1, 16)).cast("q")
    first, second = Tally(shared, 0), Tally(shared, 1)
    assert second.take(1)
    assert not first.take(1)
    shared[1] = 0
    assert first.take(1)
