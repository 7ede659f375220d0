"""Answers of the fetcher: one question for many, freshness, failures, and growing files."""

from types import SimpleNamespace

import pytest

from tests.origins.stores import FetcherBench, MemoryDownload
from tftpd.config.origins import OriginSection
from tftpd.origins import cache, fills
from tftpd.origins.fetcher import MAX_QUESTIONS
from tftpd.origins.stores import OriginError


@pytest.fixture
def bench(tmp_path, monkeypatch):
    built = FetcherBench(tmp_path)
    monkeypatch.setattr(cache, "time", SimpleNamespace(time=lambda: built.now))
    yield built
    built.close()


def _names(events):
    return [event.get("event") for event in events if event.get("event")]


def test_an_object_is_fetched_and_then_served_from_the_cache(bench):
    bench.fetch("kernel")
    answer = bench.answer("kernel")
    assert (answer["state"], answer["complete"], answer["size"]) == ("file", True, 7)
    assert answer["cache_state"] == "hit"
    assert bench.read(answer) == b"content"
    assert len(bench.store.questions) == 1


def test_many_requests_cause_one_question(bench):
    bench.store.objects["kernel"] = b"content", '"1"'
    bench.store.gate.clear()
    answers = [bench.open("kernel") for _ in range(100)]
    bench.store.gate.set()
    bench.run_until(lambda: all(answers))
    assert bench.store.questions == [("kernel", "")]


def test_the_answer_comes_with_the_head_and_the_file_grows(bench):
    download = bench.store.objects["kernel"] = MemoryDownload(10, '"1"')
    answer = bench.answer("kernel")
    assert (answer["complete"], answer["size"]) == (False, 10)
    assert answer["cache_state"] == "fetched"
    ended = bench.wait_for_end(answer["basename"])
    download.send(b"12345")
    part = bench.cache.data / f"{answer['basename']}.part"
    bench.run_until(lambda: part.read_bytes() == b"12345")
    assert not bench.answer("kernel")["complete"]  # a later client
    assert not ended
    download.send(b"67890", None)
    bench.run_until(lambda: ended)
    bench.settle()
    assert ended == bench.wait_for_end(answer["basename"]) == [{"reason": ""}]
    assert bench.read(bench.answer("kernel")) == b"1234567890"
    assert len(bench.store.questions) == 1
    assert download.is_closed


def test_a_fetch_that_breaks_wakes_all_and_is_tried_again(bench, events):
    download = bench.store.objects["kernel"] = MemoryDownload(10, '"1"')
    answer = bench.answer("kernel")
    ended = bench.wait_for_end(answer["basename"])
    download.send(OriginError("reset by peer"))
    bench.run_until(lambda: ended)
    assert ended == [{"reason": "reset by peer"}]
    bench.settle()
    assert not list(bench.cache.data.iterdir())
    assert "fetch_failed" in _names(events)
    failed = bench.answer("kernel")
    assert (failed["state"], failed["reason"]) == ("failed", "origin web: reset by peer")
    bench.now += 2
    bench.store.objects["kernel"] = b"content", '"1"'
    assert bench.answer("kernel")["state"] == "file"


def test_a_file_that_is_not_known_has_been_interrupted(bench):
    assert bench.wait_for_end("00") == [{"reason": "the fetch was interrupted"}]


def test_an_object_of_unknown_size_is_answered_when_it_is_whole(bench):
    download = bench.store.objects["kernel"] = MemoryDownload(None, "")
    answers = [bench.open("kernel") for _ in range(3)]
    download.send(b"12345", b"67")
    bench.run_until(lambda: bench.cache.usage().fill_bytes == 7)
    assert not any(answers)
    download.send(None)
    bench.run_until(lambda: all(answers))
    assert (answers[0][0]["complete"], answers[0][0]["size"]) == (True, 7)
    assert answers[0][0]["cache_state"] == "fetched"
    assert len(bench.store.questions) == 1
    bench.settle()
    assert bench.answer("kernel")["cache_state"] == "hit"


def test_an_object_of_unknown_size_is_limited(bench, monkeypatch):
    monkeypatch.setattr(fills, "MAX_UNKNOWN_BYTES", 6)
    download = bench.store.objects["kernel"] = MemoryDownload(None, "")
    download.send(b"12345", b"67", None)
    answer = bench.answer("kernel")
    assert answer["state"] == "failed"
    assert "no Content-Length" in answer["reason"]


def test_an_absence_is_remembered_for_a_short_time(bench):
    assert bench.answer("kernel")["state"] == "missing"
    bench.settle()
    assert bench.answer("kernel")["state"] == "missing"
    assert len(bench.store.questions) == 1
    bench.now += 2
    bench.fetch("kernel")
    assert bench.answer("kernel")["state"] == "file"


def test_a_failure_is_remembered_and_the_origin_answers_again(bench, events):
    bench.store.objects["kernel"] = OriginError("connection refused")
    for _ in range(2):
        answer = bench.answer("kernel")
        assert (answer["state"], answer["reason"]) == ("failed", "origin web: connection refused")
        bench.settle()
    assert len(bench.store.questions) == 1
    bench.now += 2
    bench.fetch("kernel")
    names = [name for name in _names(events) if name != "object_fetched"]
    assert names == ["origin_unavailable", "origin_available"]


def test_an_old_object_is_confirmed(bench):
    bench.fetch("kernel")
    bench.now += 11
    answer = bench.answer("kernel")
    assert answer["cache_state"] == "hit"
    assert bench.store.questions == [("kernel", ""), ("kernel", '"1"')]
    assert bench.fetcher.statistics().origins["web"].not_modified == 1


def test_an_origin_that_ignores_the_etag_confirms_by_sending_the_same(bench):
    bench.fetch("kernel")
    bench.now += 11
    download = bench.store.objects["kernel"] = MemoryDownload(7, '"1"')
    assert bench.answer("kernel")["complete"] is True
    assert download.is_closed
    assert bench.fetcher.statistics().origins["web"].fetched == 1


def test_a_changed_object_is_sent_while_it_is_fetched(bench):
    bench.fetch("kernel")
    bench.now += 11
    download = bench.store.objects["kernel"] = MemoryDownload(3, '"2"')
    answer = bench.answer("kernel")
    assert (answer["complete"], answer["size"]) == (False, 3)
    download.send(b"new", None)
    bench.settle()
    assert bench.read(bench.answer("kernel")) == b"new"


def test_a_slow_confirmation_is_not_awaited(bench):
    bench.fetch("kernel")
    bench.now += 11
    bench.store.gate.clear()
    answers = bench.open("kernel")
    bench.clock.advance(0.09)
    assert not answers
    bench.clock.advance(0.02)
    assert (answers[0]["state"], answers[0]["cache_state"]) == ("file", "stale")
    bench.store.gate.set()
    bench.settle()
    assert bench.answer("kernel")["cache_state"] == "hit"
    assert len(bench.store.questions) == 2


def test_a_stale_object_is_served_while_the_origin_fails(bench, events):
    bench.fetch("kernel")
    bench.store.objects["kernel"] = OriginError("connection refused")
    bench.now += 11
    for _ in range(3):
        answer = bench.answer("kernel")
        assert (answer["state"], answer["cache_state"]) == ("file", "stale")
        assert answer["age_seconds"] == pytest.approx(11, abs=1)
        bench.settle()
    assert len(bench.store.questions) == 2
    assert _names(events).count("origin_unavailable") == 1
    figures = bench.fetcher.statistics().origins["web"]
    assert (figures.stale_answers, figures.hits, figures.failures) == (3, 3, 1)
    assert figures.last_failure == "connection refused"
    assert figures.unavailable_since == figures.last_failure_at == bench.now
    assert _names(events).count("stale_served") == 1
    bench.clock.advance(60)
    bench.answer("kernel")
    last = [event for event in events if event.get("event") == "stale_served"][-1]
    assert (last["key"], last["more"]) == ("kernel", " (2 more since then)")
    bench.settle()


def test_an_origin_that_answers_again_is_available(bench):
    bench.store.objects["kernel"] = OriginError("connection refused")
    bench.answer("kernel")
    bench.settle()
    began = bench.now
    bench.now += 3
    bench.answer("kernel")
    bench.settle()
    figures = bench.fetcher.statistics().origins["web"]
    assert (figures.unavailable_since, figures.last_failure_at) == (began, bench.now)
    bench.now += 3
    bench.fetch("kernel")
    figures = bench.fetcher.statistics().origins["web"]
    assert (figures.unavailable_since, figures.last_failure) == (None, "connection refused")
    assert (figures.questions, figures.failures, figures.fetched_bytes) == (3, 2, 7)


def test_an_object_that_is_being_fetched_is_a_miss(bench):
    download = bench.store.objects["kernel"] = MemoryDownload(3, '"1"')
    for _ in range(2):
        bench.answer("kernel")
    statistics = bench.fetcher.statistics()
    assert statistics.origins["web"].running == 1
    assert (statistics.cache.fill_bytes, statistics.cache.max_bytes) == (3, 1 << 30)
    download.send(b"new", None)
    bench.settle()
    bench.answer("kernel")
    figures = bench.fetcher.statistics().origins["web"]
    assert (figures.misses, figures.hits, figures.running) == (2, 1, 0)


def test_an_object_that_is_too_old_is_not_served(bench):
    bench.configure(stale=5)
    bench.fetch("kernel")
    bench.store.objects["kernel"] = OriginError("connection refused")
    bench.now += 16
    assert bench.answer("kernel")["state"] == "failed"


def test_an_object_that_the_origin_has_deleted_is_missing(bench):
    bench.fetch("kernel")
    del bench.store.objects["kernel"]
    bench.now += 11
    assert bench.answer("kernel")["state"] == "missing"
    bench.settle()
    assert not list(bench.cache.data.iterdir())


def test_sixteen_questions_run_at_the_same_time(bench):
    bench.store.gate.clear()
    answers = [bench.open(f"key{n}") for n in range(MAX_QUESTIONS + 4)]
    bench.run_until(lambda: bench.store.n_waiting == MAX_QUESTIONS)
    assert len(bench.store.questions) == MAX_QUESTIONS
    bench.store.gate.set()
    bench.run_until(lambda: all(answers))
    assert len(bench.store.questions) == MAX_QUESTIONS + 4


def test_a_fill_leaves_its_question_to_others(bench):
    for n in range(MAX_QUESTIONS):
        bench.store.objects[f"key{n}"] = MemoryDownload(10, '"1"')
        assert bench.answer(f"key{n}")["state"] == "file"
    assert bench.answer("absent")["state"] == "missing"
    for n in range(MAX_QUESTIONS):
        bench.store.objects[f"key{n}"].send(OriginError("end of the test"))


def test_an_object_larger_than_the_cache_fails(bench):
    bench.store.objects["kernel"] = MemoryDownload(2 << 30, '"1"')
    answer = bench.answer("kernel")
    assert answer["state"] == "failed"
    assert "cache" in answer["reason"]
    assert bench.store.objects["kernel"].is_closed


def test_an_internal_error_of_a_store_is_a_failure(bench, events):
    bench.store.objects["kernel"] = ZeroDivisionError("oops")
    assert "ZeroDivisionError" in bench.answer("kernel")["reason"]
    assert "fetch_failed" in _names(events)


def test_an_origin_that_is_not_configured_fails(bench):
    answers = []
    bench.fetcher.open("other", "kernel").addCallback(answers.append)
    assert answers[0]["reason"] == "origin other is not configured"


def test_a_changed_section_closes_the_old_store_after_its_fills(bench):
    download = bench.store.objects["kernel"] = MemoryDownload(3, '"1"')
    answer = bench.answer("kernel")
    old = bench.store
    section = OriginSection(url="http://127.0.0.2")
    bench.fetcher.configure({"web": section}, lambda _: type(old)())
    assert not old.is_closed
    ended = bench.wait_for_end(answer["basename"])
    download.send(b"new", None)
    bench.run_until(lambda: ended)
    bench.settle()
    assert old.is_closed


def test_the_same_section_keeps_its_store(bench):
    bench.configure()
    assert not bench.store.is_closed
