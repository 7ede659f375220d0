"""Thread pool for file lookups and its bounded wait."""

import threading
from queue import SimpleQueue

import pytest

from tftpd.server.lookups import LookupPool

LONG = 20.0  # seconds; longer than any test


class Calls:
    """Reactor that keeps the calls from threads."""

    def __init__(self):
        self._called = SimpleQueue()

    def callFromThread(self, function):
        self._called.put(function)

    @property
    def nothing(self):
        return self._called.empty()

    def run(self):
        self._called.get(timeout=LONG)()


@pytest.fixture
def reactor():
    return Calls()


@pytest.fixture
def pool(reactor):
    made = LookupPool(reactor, "lookups")
    yield made
    made.stop()


@pytest.fixture
def slow():
    """Work that blocks until it is released."""
    may_end = threading.Event()

    def work():
        assert may_end.wait(LONG)
        return "found"

    work.end = may_end.set
    yield work
    may_end.set()


def test_a_quick_result_has_fired_on_return(pool, reactor):
    found = []
    pool(lambda: "found", LONG).addCallback(found.append)
    assert found == ["found"]
    assert reactor.nothing


def test_work_runs_in_another_thread(pool):
    threads = []
    pool(threading.get_ident, LONG).addCallback(threads.append)
    assert threads != [threading.get_ident()]


def test_a_slow_result_fires_through_the_reactor(pool, reactor, slow):
    found = []
    pool(slow, 0.001).addCallback(found.append)
    assert found == []
    slow.end()
    reactor.run()
    assert found == ["found"]


def test_without_max_wait_the_call_returns_at_once(pool, reactor, slow):
    found = []
    pool(slow, 0.0).addCallback(found.append)
    assert found == []
    slow.end()
    reactor.run()
    assert found == ["found"]


def test_an_exception_becomes_a_failure(pool):
    failed = []
    pool(lambda: 1 // 0, LONG).addErrback(failed.append)
    assert failed[0].check(ZeroDivisionError)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_thread_that_cannot_be_started_is_a_memory_error(pool, monkeypatch, error):
    def none_left(*_):
        raise error

    monkeypatch.setattr(threading.Thread, "start", none_left)
    failed = []
    pool(lambda: None, LONG).addErrback(failed.append)
    assert failed[0].check(MemoryError)


def test_each_result_fires_once_whatever_the_wait(pool, reactor):
    found = []
    for number in range(2000):
        done = pool(lambda number=number: number, number % 20 * 1e-5)
        waits = not done.called
        done.addCallback(found.append)
        if waits:
            reactor.run()
    assert found == list(range(2000))
    assert reactor.nothing
