"""Uploads to an origin in the processes that serve: files of the spool, answers, and refusals."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tftpd.access.origin_roots import OriginRoot
from tftpd.access.policy import WritePolicy
from tftpd.origins import answers as answer_caches
from tftpd.origins.answers import CallQueue
from tftpd.origins.fetcher_messages import AbortUpload, CheckCreate, GrowUpload, StoreUpload
from tftpd.origins.spool import UploadSpool
from tftpd.protocol.errors import ErrorCode, HostFault, RequestRefused, ResourceExhausted
from tftpd.storage.origin_files import AnswerNeeded

ROOT = OriginRoot("fleet", (b"backup",))
REPLACE = WritePolicy(create=True, overwrite=True)
CREATE = WritePolicy(create=True, overwrite=False, max_size=1000)


class Calls:
    """The fetcher: commands with their arguments, and answers by hand."""

    def __init__(self):
        self.sent = []
        self._waiting = []

    def __call__(self, command, **arguments):
        self.sent.append((command, arguments))
        done = Deferred()
        if getattr(command, "requiresAnswer", True):
            self._waiting.append(done)
        else:
            done.callback(None)
        return done

    def take(self):
        """Return and forget the commands so far."""
        sent, self.sent = self.sent, []
        return sent

    def answer(self, state, reason=""):
        self._waiting.pop(0).callback({"state": state, "reason": reason})

    def fail(self):
        self._waiting.pop(0).errback(ConnectionError("lost"))


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stored():
    return []


@pytest.fixture
def spool(tmp_path, calls, clock, stored):
    def on_stored(*stored_object):
        stored.append(stored_object)

    return UploadSpool(clock, tmp_path, calls, CallQueue(clock), on_stored)


@pytest.fixture
def upload(spool):
    opened = spool.open(ROOT, "backup/a", REPLACE, None, False)
    yield opened
    opened.discard()


def _commit(upload):
    done = []
    upload.begin_commit(done.append)
    return done


def _files(spool):
    return list(spool.path.iterdir())


def test_an_upload_is_stored_when_the_origin_has_confirmed_it(upload, spool, calls, stored):
    upload.append([b"con"])
    upload.flush()
    (file,) = _files(spool)
    store = {"origin": "fleet", "key": "backup/a", "basename": file.name, "create": False}
    assert calls.take() == [(StoreUpload, {**store, "size": 3, "is_whole": False})]
    assert file.read_bytes() == b"con"
    upload.append([b"tent"])
    done = _commit(upload)
    assert file.read_bytes() == b"content"
    grown = {"basename": file.name, "size": 7, "is_whole": True}
    assert calls.take() == [(GrowUpload, grown)]
    assert not done
    calls.answer("stored")
    assert done == [None]
    assert stored == [(ROOT, "backup/a")]
    assert not _files(spool)
    upload.discard()
    assert calls.take() == []


def test_a_short_upload_is_one_command(upload, spool, calls):
    upload.append([b"content"])
    done = _commit(upload)
    ((command, arguments),) = calls.take()
    assert (command, arguments["size"], arguments["is_whole"]) == (StoreUpload, 7, True)
    calls.answer("stored")
    assert done == [None]


@pytest.mark.parametrize(
    ("state", "code", "is_fault"),
    [("exists", 6, False), ("refused", 2, True), ("full", 3, True), ("failed", 0, True)],
)
def test_an_upload_that_is_not_stored_is_refused(
    upload, spool, calls, stored, state, code, is_fault
):
    done = _commit(upload)
    calls.answer(state, "the reason")
    assert done[0].code == code
    assert isinstance(done[0], HostFault) == is_fault
    assert (done[0].reason == "the reason") == is_fault
    assert not stored
    assert not _files(spool)


def test_a_fetcher_that_ends_refuses_the_upload(upload, calls):
    done = _commit(upload)
    calls.fail()
    assert done[0].code is ErrorCode.NOT_DEFINED
    assert "lost" in done[0].reason


def test_a_refusal_in_the_middle_ends_the_upload(upload, calls, clock):
    upload.append([b"con"])
    upload.flush()
    calls.answer("failed", "no such bucket")
    upload.append([b"tent"])
    with pytest.raises(RequestRefused, match="no such bucket"):
        upload.flush()
    done = _commit(upload)
    assert not done
    clock.advance(0)
    assert done[0].reason == "no such bucket"


def test_an_upload_that_is_shorter_than_announced_is_aborted(spool, calls, clock):
    upload = spool.open(ROOT, "backup/a", REPLACE, 8, False)
    upload.append([b"content"])
    upload.flush()
    done = _commit(upload)
    (_, (command, _)) = calls.take()
    assert command is AbortUpload
    assert not _files(spool)
    clock.advance(0)
    assert "tsize announced 8" in done[0].reason


def test_a_discarded_upload_is_aborted(upload, spool, calls):
    upload.flush()
    calls.take()
    upload.discard()
    upload.discard()
    ((command, _),) = calls.take()
    assert command is AbortUpload
    assert not _files(spool)


def test_the_data_of_netascii_is_decoded(spool, calls):
    upload = spool.open(ROOT, "backup/a", REPLACE, None, True)
    upload.append([b"a\r\nb\r"])
    _commit(upload)
    (file,) = _files(spool)
    assert file.read_bytes() == b"a\nb\r"
    assert calls.take()[0][1]["size"] == 4
    upload.discard()


def test_the_limits_of_the_size_are_kept(spool):
    policy = WritePolicy(create=True, overwrite=True, max_size=5)
    with pytest.raises(RequestRefused) as refused:
        spool.open(ROOT, "backup/a", policy, 6, False)
    assert refused.value.code is ErrorCode.DISK_FULL
    upload = spool.open(ROOT, "backup/a", policy, None, False)
    with pytest.raises(RequestRefused) as refused:
        upload.append([b"123456"])
    assert refused.value.code is ErrorCode.DISK_FULL
    upload.discard()


def test_the_cache_keeps_free_space(spool, upload):
    spool.min_free = 1 << 62
    with pytest.raises(RequestRefused, match=r"cache\.min_free"):
        spool.open(ROOT, "backup/b", REPLACE, None, False)
    assert len(_files(spool)) == 1
    upload.append([b"x"])
    with pytest.raises(RequestRefused) as refused:
        upload.flush()
    assert refused.value.code is ErrorCode.DISK_FULL


def _open_create(spool, key="backup/a"):
    spool.open(ROOT, key, CREATE, None, False).discard()


def _ask(spool, key="backup/a"):
    with pytest.raises(AnswerNeeded) as needed:
        _open_create(spool, key)
    assert needed.value.create
    answers = []
    spool.ask(needed.value.root, needed.value.key).addBoth(answers.append)
    return answers


def test_the_origin_is_asked_before_an_upload_that_may_replace_nothing(spool, calls, clock):
    answers = [_ask(spool) for _ in range(3)]
    assert calls.take() == [(CheckCreate, {"origin": "fleet", "key": "backup/a"})]
    calls.answer("allowed")
    assert not any(answers)
    clock.advance(0)
    assert answers == [[None]] * 3
    _open_create(spool)
    upload = spool.open(ROOT, "backup/a", CREATE, None, False)
    _commit(upload)
    assert calls.take()[0][1]["create"] is True
    upload.discard()
    clock.advance(1)
    _ask(spool)


def test_an_origin_that_ignores_conditions_is_refused_for_a_short_time(spool, calls, clock):
    _ask(spool)
    calls.answer("refused", "ignores conditional writes")
    with pytest.raises(HostFault, match="ignores") as refused:
        _open_create(spool)
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION
    clock.advance(1)
    _ask(spool)
    calls.fail()
    with pytest.raises(HostFault) as refused:
        _open_create(spool)
    assert refused.value.code is ErrorCode.NOT_DEFINED


def test_an_object_that_exists_is_refused_at_the_request(spool, calls, clock):
    _ask(spool)
    calls.answer("exists")
    clock.advance(0)
    with pytest.raises(RequestRefused) as refused:
        _open_create(spool)
    assert refused.value.code is ErrorCode.FILE_EXISTS
    assert not isinstance(refused.value, HostFault)


def test_after_an_upload_the_origin_is_asked_again(spool, calls, clock):
    _ask(spool)
    calls.answer("allowed")
    clock.advance(0)
    _commit(spool.open(ROOT, "backup/a", CREATE, None, False))
    calls.answer("stored")
    _ask(spool)


def test_questions_that_wait_are_limited(spool, monkeypatch):
    monkeypatch.setattr(answer_caches, "_MAX_QUESTIONS", 1)
    _ask(spool)
    (failure,) = _ask(spool, "backup/b")
    assert failure.check(ResourceExhausted)
