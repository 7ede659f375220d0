"""Uploads in the fetcher: conditions, parts, limits, and their end."""

import pytest
from twisted.internet.testing import StringTransport

from tests.origins.stores import FetcherBench
from tftpd.origins import upload_streams
from tftpd.origins.fetcher import MAX_QUESTIONS, FetcherProtocol
from tftpd.origins.stores import (
    ConditionsIgnored,
    ObjectExists,
    OriginError,
    OriginUnavailable,
)

NAME = ".tftpd-upload-ab"


class UploadBench(FetcherBench):
    """A fetcher with a spool, and one connection of a process that serves."""

    def __init__(self, path, **section):
        super().__init__(path, **section)
        self.memory = self.store
        (path / "spool").mkdir()
        self.spool = path / "spool"
        self.fetcher.spool_usage.limit = 1 << 30
        self.protocol = FetcherProtocol(self.fetcher)
        self.protocol.makeConnection(StringTransport())

    def upload(self, content, is_whole=True, key="backup", name=NAME, create=False):
        """Let the fetcher store a file; return the list that gets the answer."""
        (self.spool / name).write_bytes(content)
        answers = []
        answer = self.protocol.store_upload("web", key, name, create, len(content), is_whole)
        answer.addCallback(answers.append)
        return answers

    def lose_connection(self):
        if self.protocol.transport is not None:
            self.protocol.connectionLost()
            self.protocol.transport = None

    def result(self, answers):
        self.run_until(lambda: answers)
        return answers[0]["state"]


@pytest.fixture
def bench(tmp_path):
    built = UploadBench(tmp_path)
    yield built
    built.lose_connection()
    built.close()


def test_a_whole_file_is_stored(bench):
    answers = bench.upload(b"content")
    assert bench.result(answers) == "stored"
    assert bench.memory.puts["backup"] == (b"content", False)
    figures = bench.fetcher.statistics().origins["web"]
    assert (figures.stored, figures.stored_bytes, figures.unstored) == (1, 7, 0)
    assert bench.fetcher.spool_usage.used == 0


def test_an_absence_and_an_older_object_are_forgotten(bench):
    assert bench.answer("backup")["state"] == "missing"
    for content in (b"old", b"new"):
        bench.result(bench.upload(content))
        answer = bench.answer("backup")
        bench.settle()
        assert bench.read(answer) == content


def test_a_short_file_is_sent_when_it_is_whole(bench):
    answers = bench.upload(b"con", is_whole=False)
    bench.settle()
    assert not bench.memory.puts
    (bench.spool / NAME).write_bytes(b"content")
    bench.protocol.grow_upload(NAME, 7, True)
    assert bench.result(answers) == "stored"
    assert bench.memory.puts["backup"] == (b"content", False)


def test_a_long_file_is_sent_while_it_grows(bench, monkeypatch):
    monkeypatch.setattr(upload_streams, "STREAM_BYTES", 3)
    answers = bench.upload(b"con", is_whole=False)
    bench.run_until(lambda: bench.memory.arrived == [b"con"])
    (bench.spool / NAME).write_bytes(b"content")
    bench.protocol.grow_upload(NAME, 7, False)
    bench.run_until(lambda: bench.memory.arrived == [b"con", b"tent"])
    assert not answers
    bench.protocol.grow_upload(NAME, 7, True)
    assert bench.result(answers) == "stored"


def test_beyond_the_limit_a_long_file_is_sent_when_it_is_whole(bench, monkeypatch):
    monkeypatch.setattr(upload_streams, "STREAM_BYTES", 3)
    monkeypatch.setattr(upload_streams, "MAX_STREAMS", 1)
    first = bench.upload(b"con", is_whole=False)
    second = bench.upload(b"con", is_whole=False, key="second", name=NAME + "2")
    bench.run_until(lambda: bench.memory.arrived == [b"con"])
    bench.protocol.grow_upload(NAME + "2", 3, True)
    assert bench.result(second) == "stored"
    bench.protocol.grow_upload(NAME, 3, True)
    assert bench.result(first) == "stored"


def test_a_file_that_may_replace_nothing_is_sent_when_it_is_whole(bench, monkeypatch):
    monkeypatch.setattr(upload_streams, "STREAM_BYTES", 3)
    answers = bench.upload(b"content", is_whole=False, create=True)
    bench.settle()
    assert not bench.memory.arrived
    bench.protocol.grow_upload(NAME, 7, True)
    assert bench.result(answers) == "stored"
    assert bench.memory.puts["backup"] == (b"content", True)
    assert bench.result(bench.upload(b"other", create=True)) == "exists"


@pytest.mark.parametrize("ending", ["abort", "lost"])
def test_an_upload_that_is_aborted_leaves_no_object(bench, monkeypatch, ending):
    monkeypatch.setattr(upload_streams, "STREAM_BYTES", 3)
    growing = bench.upload(b"con", is_whole=False)
    waiting = bench.upload(b"c", is_whole=False, key="second", name=NAME + "2")
    bench.run_until(lambda: bench.memory.arrived)
    if ending == "lost":
        bench.lose_connection()
    else:
        bench.protocol.abort_upload(NAME)
        bench.protocol.abort_upload(NAME + "2")
    bench.settle()
    assert [answers[0]["state"] for answers in (growing, waiting)] == ["failed"] * 2
    assert not bench.memory.objects
    assert bench.fetcher.spool_usage.used == 0
    bench.protocol.grow_upload(NAME, 3, True)  # too late
    bench.settle()
    assert not bench.memory.objects


def test_unfinished_uploads_are_limited(bench):
    bench.fetcher.spool_usage.limit = 10
    first = bench.upload(b"12345", is_whole=False)
    assert bench.result(bench.upload(b"123456", key="second", name=NAME + "2")) == "full"
    bench.protocol.grow_upload(NAME, 11, False)
    assert bench.result(first) == "full"
    assert bench.fetcher.spool_usage.used == 0
    assert bench.result(bench.upload(b"1234567890")) == "stored"


def test_an_origin_that_fails_is_named(bench):
    bench.memory.failure = OriginError("connection refused")
    answers = bench.upload(b"content")
    assert bench.result(answers) == "failed"
    assert answers[0]["reason"] == "origin web: connection refused"
    assert bench.fetcher.statistics().origins["web"].unstored == 1


def test_an_internal_error_is_an_answer(bench):
    bench.memory.failure = ZeroDivisionError()
    assert bench.result(bench.upload(b"content")) == "failed"


def test_files_outside_of_the_spool_are_not_read(bench, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    (bench.spool / (NAME + "link")).symlink_to(tmp_path / "secret")
    for name in ("absent", "../secret", f"{NAME}/../../secret", NAME, NAME + "link"):
        answers = []
        answer = bench.protocol.store_upload("web", "key", name, False, 3, True)
        answer.addCallback(answers.append)
        assert bench.result(answers) == "failed"
    assert not bench.memory.objects


def test_an_origin_that_is_not_configured_is_an_answer(bench):
    for answer in (
        bench.protocol.store_upload("other", "key", NAME, False, 3, True),
        bench.protocol.check_create("other", "key"),
    ):
        assert answer.result["state"] == "failed"


def test_a_file_that_is_shorter_than_reported_is_not_stored(bench):
    (bench.spool / NAME).write_bytes(b"con")
    answers = []
    bench.protocol.store_upload("web", "k", NAME, False, 7, True).addCallback(answers.append)
    assert bench.result(answers) == "failed"
    assert not bench.memory.objects


def test_large_uploads_are_sent_one_after_the_other(bench, monkeypatch):
    monkeypatch.setattr(upload_streams, "_MAX_MEMORY_BYTES", 10)
    bench.memory.put_gate.clear()
    answers = [
        bench.upload(b"123456", key=f"k{n}", name=f"{NAME}{n}", create=True) for n in range(3)
    ]
    bench.run_until(lambda: bench.memory.puts)
    assert len(bench.memory.puts) == 1
    bench.memory.put_gate.set()
    bench.run_until(lambda: all(answers))
    assert len(bench.memory.objects) == 3


def _check(bench, key="new"):
    answers = []
    bench.fetcher.check_create("web", key).addCallback(answers.append)
    bench.run_until(lambda: answers)
    return answers[0]


def test_an_origin_is_asked_at_the_start_whether_it_keeps_conditions(bench):
    bench.memory.probe_failure = ConditionsIgnored("ignored")
    bench.configure(create_only=["web"])
    bench.settle()
    assert bench.memory.probes == 1
    assert _check(bench) == {"state": "refused", "reason": "origin web: ignored"}
    assert bench.result(bench.upload(b"content", create=True)) == "refused"
    assert bench.result(bench.upload(b"content")) == "stored"
    assert bench.memory.probes == 1
    bench.memory.probe_failure = None
    bench.configure(create_only=["web"])  # a reload asks again
    bench.settle()
    assert _check(bench)["state"] == "allowed"
    bench.configure(create_only=["web"])
    assert bench.memory.probes == 2


def test_an_origin_that_does_not_answer_is_asked_again(bench):
    bench.memory.probe_failure = OriginError("refused")
    assert _check(bench) == {"state": "failed", "reason": "origin web: refused"}
    bench.memory.probe_failure = ZeroDivisionError()
    bench.clock.advance(1)
    bench.settle()
    assert "internal error" in _check(bench)["reason"]
    bench.memory.probe_failure = None
    bench.clock.advance(2)
    bench.settle()
    assert _check(bench)["state"] == "allowed"
    assert bench.memory.probes == 3


def test_an_object_that_exists_is_found_before_its_upload(bench):
    bench.result(bench.upload(b"content", key="old"))
    assert _check(bench, "old") == {"state": "exists", "reason": ""}
    assert _check(bench, "new")["state"] == "allowed"
    assert bench.memory.heads == ["old", "new"]


def test_an_origin_that_does_not_know_if_an_object_exists_gets_the_upload(bench):
    for error in (OriginError("403"), OriginUnavailable("503"), ZeroDivisionError()):
        bench.memory.failure = error
        assert _check(bench)["state"] == "allowed"
    figures = bench.fetcher.statistics().origins["web"]
    assert (figures.failures, figures.last_failure) == (1, "503")


def test_an_upload_waits_for_a_second_to_learn_if_its_object_exists(bench):
    _check(bench)
    bench.memory.gate.clear()
    answers = []
    for n in range(MAX_QUESTIONS + 1):
        bench.fetcher.check_create("web", f"key{n}").addCallback(answers.append)
    bench.clock.advance(0.9)
    assert not answers
    bench.clock.advance(0.2)
    assert [answer["state"] for answer in answers] == ["allowed"] * (MAX_QUESTIONS + 1)
    bench.memory.gate.set()
    bench.settle()
    # No question whose time was over before its turn.
    assert len(bench.memory.heads) == 1 + MAX_QUESTIONS
    assert _check(bench)["state"] == "allowed"


@pytest.mark.parametrize("create", [False, True])
def test_an_origin_that_fails_in_an_upload_is_unavailable_until_one_is_stored(
    bench, events, create
):
    _check(bench)
    bench.memory.failure = OriginUnavailable("connection refused")
    assert bench.result(bench.upload(b"content", create=create)) == "failed"
    figures = bench.fetcher.statistics().origins["web"]
    assert figures.unavailable_since == bench.now
    assert (figures.last_failure, figures.failures) == ("connection refused", 1)
    bench.memory.failure = None
    assert bench.result(bench.upload(b"content", create=create)) == "stored"
    assert bench.fetcher.statistics().origins["web"].unavailable_since is None
    names = [event.get("event") for event in events if event.get("event")]
    assert [name for name in names if name.startswith("origin_")] == [
        "origin_unavailable",
        "origin_available",
    ]


@pytest.mark.parametrize(
    ("error", "is_available"),
    [
        (ObjectExists(), True),
        (OriginError("403"), False),
        (upload_streams.UploadAborted("the client is gone"), False),
    ],
)
def test_an_upload_that_the_origin_answers_shows_that_it_is_available(bench, error, is_available):
    bench.memory.failure = OriginUnavailable("connection refused")
    bench.result(bench.upload(b"content"))
    bench.memory.failure = error
    bench.result(bench.upload(b"content"))
    figures = bench.fetcher.statistics().origins["web"]
    assert (figures.unavailable_since is None) == is_available


def test_a_probe_shows_if_the_origin_is_available(bench):
    bench.memory.probe_failure = OriginUnavailable("connection refused")
    _check(bench)
    assert bench.fetcher.statistics().origins["web"].unavailable_since is not None
    bench.memory.probe_failure = ConditionsIgnored("ignored")
    bench.clock.advance(1)
    bench.settle()
    assert bench.fetcher.statistics().origins["web"].unavailable_since is None


def test_a_store_closes_after_the_last_upload_and_probe(bench, monkeypatch):
    monkeypatch.setattr(upload_streams, "STREAM_BYTES", 3)
    answers = bench.upload(b"con", is_whole=False)
    bench.run_until(lambda: bench.memory.arrived)
    bench.fetcher.configure({}, lambda _: None)
    assert not bench.memory.is_closed
    bench.protocol.grow_upload(NAME, 3, True)
    assert bench.result(answers) == "stored"
    assert bench.memory.is_closed


def test_the_end_of_the_process_aborts_uploads(bench, monkeypatch):
    monkeypatch.setattr(upload_streams, "STREAM_BYTES", 3)
    bench.upload(b"con", is_whole=False)
    bench.run_until(lambda: bench.memory.arrived)
    ended = []
    bench.fetcher.abort_uploads().addCallback(ended.append)
    assert not ended
    bench.run_until(lambda: ended)
    assert not bench.memory.objects


def test_exists_is_an_answer_without_a_reason(bench):
    bench.memory.failure = ObjectExists()
    answers = bench.upload(b"content", create=True)
    bench.run_until(lambda: answers)
    assert answers == [{"state": "exists", "reason": ""}]
