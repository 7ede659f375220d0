"""Counter of sessions over several processes."""

import mmap

from tftpd.server.session_table import SharedCounter


def test_one_process_can_acquire_up_to_the_limit():
    counter = SharedCounter()
    assert [counter.acquire(2) for _ in range(3)] == [True, True, False]
    counter.release()
    assert counter.acquire(2)


def test_the_limit_holds_over_all_processes():
    shared = memoryview(mmap.mmap(-1, 16)).cast("q")
    first, second = SharedCounter(shared, 0), SharedCounter(shared, 1)
    assert [first.acquire(3), second.acquire(3), first.acquire(3), second.acquire(3)] == [
        True,
        True,
        True,
        False,
    ]
    assert list(shared) == [2, 1]
    second.release()
    assert first.acquire(3)
    assert not second.acquire(3)


def test_setting_the_number_of_a_dead_process_to_zero_releases_its_sessions():
    shared = memoryview(mmap.mmap(-1, 16)).cast("q")
    first, second = SharedCounter(shared, 0), SharedCounter(shared, 1)
    assert second.acquire(1)
    assert not first.acquire(1)
    shared[1] = 0
    assert first.acquire(1)
