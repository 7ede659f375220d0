"""Reader of the cache: answers, files that grow, and a fetcher that ends."""

import os

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tftpd.access.origin_roots import OriginRoot
from tftpd.origins.fetcher_messages import Open, WaitForEnd
from tftpd.origins.reader import OriginReader
from tftpd.protocol.errors import ErrorText, HostFault, RequestRefused, ResourceExhausted
from tftpd.storage.block_ring import BlockRing
from tftpd.storage.origin_files import AnswerNeeded

ROOT = OriginRoot("web")
CONTENT = bytes(range(200))


class Calls:
    """The fetcher, with answers by hand: commands that wait, as (command, arguments, Deferred)."""

    def __init__(self):
        self.waiting = []

    def __call__(self, command, **arguments):
        done = Deferred()
        self.waiting.append((command, arguments, done))
        return done

    def answer(self, **values):
        """Answer the oldest command, and return its arguments."""
        command, arguments, done = self.waiting.pop(0)
        known = {"reason": ""}
        if command is Open:
            known |= {"state": "file", "basename": "ab", "size": len(CONTENT), "complete": False}
            known |= {"fresh_seconds": 1.0, "age_seconds": 0.0, "cache_state": "hit"}
        done.callback(known | values)
        return arguments

    def fail(self):
        self.waiting.pop(0)[2].errback(ConnectionError("the connection was lost"))


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reader(tmp_path, calls, clock):
    (tmp_path / "data").mkdir()
    return OriginReader(clock, tmp_path, calls)


@pytest.fixture
def part(tmp_path):
    return tmp_path / "data/ab.part"


def _ask(reader, key="kernel", whole=False):
    fired = []
    reader.ask(AnswerNeeded(ROOT, key, whole)).addCallback(lambda _: fired.append(key))
    return fired


def _read(file, offset=0, blocking=False):
    buffers = [bytearray(30) for _ in range(10)]
    n_bytes = file.read([memoryview(buffer) for buffer in buffers], offset, blocking)
    return b"".join(buffers)[:n_bytes]


@pytest.fixture
def growing(reader, calls, clock, part):
    """An object of which 50 bytes have arrived."""
    part.write_bytes(CONTENT[:50])
    _ask(reader)
    calls.answer()
    clock.advance(0)
    file = reader.open(ROOT, "kernel")
    yield file
    file.close()


def test_a_key_without_an_answer_must_be_asked_for(reader):
    with pytest.raises(AnswerNeeded) as needed:
        reader.open(ROOT, "kernel")
    assert (needed.value.root, needed.value.key) == (ROOT, "kernel")


def test_a_whole_object_is_read_from_the_cache(reader, calls, clock, part):
    part.with_suffix("").write_bytes(CONTENT)
    _ask(reader)
    answer = {"cache_state": "stale", "age_seconds": 40.0}
    assert calls.answer(complete=True, **answer) == {"origin": "web", "key": "kernel"}
    clock.advance(0.5)
    file = reader.open(ROOT, "kernel")
    assert (file.cache_state, file.cache_age) == ("stale", 40.5)
    assert _read(file) == CONTENT
    os.utime(part.with_suffix(""))  # the cache notes that it is used
    assert not file.is_touched()
    file.close()
    assert not calls.waiting


def test_one_question_answers_all_requests_a_few_in_each_turn(reader, calls, clock):
    fired = [_ask(reader) for _ in range(40)]
    assert len(calls.waiting) == 1
    calls.answer(state="missing")
    n_fired = []
    while clock.calls:
        n_fired.append(sum(map(len, fired)))
        clock.calls.pop(0).func()
    assert n_fired == [0, 16, 32]
    assert all(fired)


def test_questions_that_wait_for_an_origin_are_limited(reader, calls, clock, monkeypatch):
    """A request that another client's has displaced leaves its question behind."""
    monkeypatch.setattr("tftpd.origins.answers._MAX_QUESTIONS", 2)
    asked = [_ask(reader, key) for key in ("first", "second", "second")]
    failed = []
    reader.ask(AnswerNeeded(ROOT, "third", False)).addErrback(failed.append)
    assert failed[0].check(ResourceExhausted)
    calls.answer(state="missing")
    asked.append(_ask(reader, "third"))
    calls.answer(state="missing")
    calls.answer(state="missing")
    clock.advance(0)
    assert all(asked)


def test_an_answer_is_used_for_the_time_that_it_is_fresh(reader, calls, clock):
    _ask(reader)
    calls.answer(state="missing", fresh_seconds=5.0)
    clock.advance(4.9)
    with pytest.raises(RequestRefused) as refused:
        reader.open(ROOT, "kernel")
    assert refused.value.code == 1
    clock.advance(0.1)
    with pytest.raises(AnswerNeeded):
        reader.open(ROOT, "kernel")


def test_a_failure_is_a_fault_of_this_host(reader, calls):
    _ask(reader)
    calls.answer(state="failed", reason="connection refused")
    with pytest.raises(HostFault, match="connection refused") as fault:
        reader.open(ROOT, "kernel")
    assert fault.value.text == ErrorText.ORIGIN_FAILED


def test_without_a_fetcher_requests_fail_for_a_second(reader, calls, clock):
    fired = _ask(reader)
    calls.fail()
    with pytest.raises(HostFault, match="the connection was lost"):
        reader.open(ROOT, "kernel")
    clock.advance(1)
    assert fired
    with pytest.raises(AnswerNeeded):
        reader.open(ROOT, "kernel")


def test_an_object_that_was_evicted_is_asked_for_again(reader, calls):
    _ask(reader)
    calls.answer(complete=True)
    with pytest.raises(AnswerNeeded):
        reader.open(ROOT, "kernel")


def test_a_file_is_read_as_far_as_it_has_come(growing, part):
    assert growing.size == 200
    assert _read(growing) == CONTENT[:50]
    with pytest.raises(BlockingIOError):
        _read(growing, 50)
    with pytest.raises(BlockingIOError):
        _read(growing, 50, blocking=True)  # a thread does not wait for the origin either
    part.write_bytes(CONTENT[:70])
    assert _read(growing, 50) == CONTENT[50:70]


def test_a_reader_is_woken_when_there_is_more(growing, calls, clock, part):
    woken = []
    assert growing.when_readable(50, lambda: woken.append(1))
    clock.advance(0.006)
    assert not woken
    part.write_bytes(CONTENT[:90])
    clock.pump([0.006, 0])
    assert woken == [1]
    assert _read(growing, 50) == CONTENT[50:90]
    assert growing.when_readable(90, lambda: woken.append(2))
    part.write_bytes(CONTENT)
    clock.pump([0.006, 0])
    assert woken == [1, 2]
    assert _read(growing, 90) == CONTENT[90:]
    assert not growing.is_touched()
    clock.advance(0.006)
    assert not clock.calls


def test_a_file_that_stops_to_grow_is_looked_at_less_often(growing, clock, monkeypatch):
    looks = []
    monkeypatch.setattr(growing, "measure", lambda: looks.append(clock.seconds()))
    growing.when_readable(50, lambda: None)
    clock.pump([0.001] * 60_000)
    assert len(looks) < 100
    assert looks[-1] > 50


def test_the_end_of_a_fetch_is_asked_for_once(growing, reader, calls, clock):
    woken = []
    growing.when_readable(50, lambda: woken.append(1))
    later = reader.open(ROOT, "kernel")
    assert [command for command, _, _ in calls.waiting] == [WaitForEnd]
    assert calls.answer() == {"basename": "ab"}
    clock.advance(0)
    assert woken == [1]
    later.close()


def test_data_that_is_there_needs_a_thread(growing):
    """The page cache may have lost it."""
    assert not growing.when_readable(49, lambda: None)


def test_a_closed_file_is_not_woken(growing, reader, clock, part):
    later, woken = reader.open(ROOT, "kernel"), []
    growing.when_readable(50, later.close)
    later.when_readable(50, lambda: woken.append(1))
    part.write_bytes(CONTENT[:90])
    clock.pump([0.006, 0.006])
    assert not woken
    assert not clock.calls


@pytest.mark.parametrize("end", ["reason", "connection"])
def test_the_end_of_a_fetch_wakes_its_readers_with_an_error(growing, calls, clock, end):
    woken = []
    growing.when_readable(50, lambda: woken.append(1))
    if end == "reason":
        calls.answer(reason="reset by peer")
    else:
        calls.fail()
    clock.advance(0)
    assert woken == [1]
    assert not growing.when_readable(50, lambda: None)
    with pytest.raises(HostFault) as fault:
        _read(growing, 50, blocking=True)
    assert fault.value.text == ErrorText.ORIGIN_FAILED


def test_after_a_broken_fetch_the_fetcher_is_asked_again(growing, reader, calls):
    calls.answer(reason="reset by peer")
    with pytest.raises(AnswerNeeded):
        reader.open(ROOT, "kernel")


def test_a_file_that_was_completed_meanwhile_is_found(reader, calls, clock, part):
    part.with_suffix("").write_bytes(CONTENT)  # renamed, and the report is on its way
    _ask(reader)
    calls.answer()
    file = reader.open(ROOT, "kernel")
    assert _read(file) == CONTENT
    calls.answer()
    later = reader.open(ROOT, "kernel")
    assert _read(file) == _read(later) == CONTENT
    file.close()
    later.close()


def test_a_template_waits_for_the_whole_object(reader, calls, clock, part):
    part.write_bytes(CONTENT)
    fired = _ask(reader, whole=True)
    calls.answer()
    clock.advance(0)
    assert not fired
    with pytest.raises(AnswerNeeded) as needed:
        reader.open(ROOT, "kernel", whole=True)
    assert needed.value.whole
    part.rename(part.with_suffix(""))
    calls.answer()
    clock.advance(0)
    assert fired
    file = reader.open(ROOT, "kernel", whole=True)
    assert _read(file) == CONTENT
    file.close()


def test_the_number_of_answers_is_bounded(reader, calls):
    for number in range(5000):
        _ask(reader, str(number))
        calls.answer(state="missing", fresh_seconds=1000.0)
    with pytest.raises(AnswerNeeded):
        reader.open(ROOT, "0")
    with pytest.raises(RequestRefused):
        reader.open(ROOT, "4999")


def test_blocks_of_a_growing_file_are_never_cut(growing, calls, part):
    ring = BlockRing(growing, 16, 20, 0)
    assert ring.fill(20, blocking=False) == 3
    with pytest.raises(BlockingIOError):
        ring.fill(17, blocking=False)
    assert ring.read_offset == 50
    part.write_bytes(CONTENT)
    calls.answer()
    assert ring.fill(17, blocking=False) == 10
    blocks = b"".join(bytes(run)[4:20] for n in range(1, 14) for run in ring.datagrams(n, 1))
    assert blocks == CONTENT
    assert ring.last_block_size == 8
