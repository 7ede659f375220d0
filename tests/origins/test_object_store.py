"""Object stores as origins: answers and faults of a recording server."""

import socket

import pytest

from tests.origins.settings import CredentialsFile, Origin, Timeout
from tests.origins.stores import INVALID_KEYS, read
from tests.support.programs import library
from tftpd.origins.factory import open_store
from tftpd.origins.stores import (
    NotModified,
    ObjectExists,
    ObjectInfo,
    ObjectNotFound,
    OriginError,
    OriginUnavailable,
)

library("obstore")


SECRET = "secretsecretsecret"
BODY = bytes(range(256)) * 8192
HALF = len(BODY) // 2
MODIFIED = "Sun, 29 Nov 2026 20:35:24 GMT"


@pytest.fixture
def open_bucket(origin, tmp_path, monkeypatch):
    path = tmp_path / "origin.env"
    path.write_text(f"AWS_ACCESS_KEY_ID=AKIDTEST\nAWS_SECRET_ACCESS_KEY={SECRET}\n")

    def _open(url="s3://boot", endpoint=None, **settings):
        settings.setdefault("credentials", CredentialsFile(str(path)))
        return open_store(Origin(url, endpoint=endpoint or origin.url, **settings), {})

    return _open


def refuse(status, code):
    body = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()
    return lambda handler, request: handler.reply(status, body)


def test_an_object_is_read(origin, open_bucket):
    origin.answer = lambda handler, request: handler.reply(
        200, BODY, ETag='"1"', Last_Modified=MODIFIED
    )
    info, body = read(open_bucket("s3://boot/tree/x/"), "a/b")
    assert info == ObjectInfo(len(BODY), '"1"', "2026-11-29T20:35:24+00:00")
    assert body == BODY
    assert [request.target for request in origin.requests] == ["/boot/tree/x/a/b"]


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("%2e%2e/x", "/boot/tree/%252e%252e/x"),
        ("..%2f..", "/boot/tree/..%252f.."),
        ("a b", "/boot/tree/a%20b"),
        ("ü", "/boot/tree/%C3%BC"),
        ("a?b#c&d;e=f+g", "/boot/tree/a%3Fb%23c%26d%3Be%3Df%2Bg"),
        ("...", "/boot/tree/..."),
    ],
)
def test_a_key_is_sent_as_one_path(origin, open_bucket, key, target):
    with pytest.raises(ObjectNotFound):
        open_bucket("s3://boot/tree").get(key)
    assert [request.target for request in origin.requests] == [target]


@pytest.mark.parametrize("key", INVALID_KEYS)
def test_a_key_that_could_leave_the_prefix_is_never_sent(origin, open_bucket, key):
    store = open_bucket("s3://boot/tree")
    with pytest.raises(OriginError, match="not a key"):
        store.get(key)
    with pytest.raises(OriginError, match="not a key"):
        store.exists(key)
    with pytest.raises(OriginError, match="not a key"):
        store.put(key, [b""], create=False)
    assert origin.requests == []


@pytest.mark.parametrize(("status", "exists"), [(200, True), (404, False)])
def test_an_object_is_looked_for(origin, open_bucket, status, exists):
    origin.answer = lambda handler, request: handler.reply(
        status, BODY, ETag='"1"', Last_Modified=MODIFIED
    )
    assert open_bucket("s3://boot/tree").exists("a") is exists
    assert [(r.method, r.target) for r in origin.requests] == [("HEAD", "/boot/tree/a")]


@pytest.mark.parametrize("status", [403, 503])
def test_an_origin_that_does_not_tell_if_an_object_exists(origin, open_bucket, status):
    origin.answer = lambda handler, request: handler.reply(status)
    with pytest.raises(OriginError, match=str(status)) as caught:
        open_bucket().exists("a")
    assert isinstance(caught.value, OriginUnavailable) == (status == 503)


def test_an_object_that_is_not_modified(origin, open_bucket):
    origin.answer = lambda handler, request: handler.reply(304)
    with pytest.raises(NotModified):
        open_bucket().get("a", '"1"')
    assert origin.requests[0].headers["if-none-match"] == '"1"'


@pytest.mark.parametrize("code", ["NoSuchBucket", "ContainerNotFound"])
def test_a_missing_bucket_is_not_an_absent_object(origin, open_bucket, code):
    origin.answer = refuse(404, code)
    with pytest.raises(OriginError, match=f"404 Not Found {code}: there is no 'boot'"):
        open_bucket().get("a")


def test_a_key_cannot_pretend_that_the_bucket_is_missing(origin, open_bucket):
    origin.answer = refuse(404, "NoSuchKey")
    with pytest.raises(ObjectNotFound):
        open_bucket().get("<Code>NoSuchBucket<")


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (400, "BadRequest")])
def test_an_origin_that_refuses(origin, open_bucket, status, code):
    origin.answer = refuse(status, code)
    with pytest.raises(OriginError, match=f"{status} .*{code}") as caught:
        open_bucket().get("a")
    assert not isinstance(caught.value, OriginUnavailable)
    assert SECRET not in str(caught.value)
    assert len(origin.requests) == 1


def test_an_overloaded_origin_is_asked_twice(origin, open_bucket):
    origin.answer = refuse(503, "SlowDown")
    with pytest.raises(OriginUnavailable, match="503 Service Unavailable SlowDown"):
        open_bucket().get("a")
    assert len(origin.requests) == 2


def test_an_origin_that_is_silent_is_given_up(origin, open_bucket):
    origin.answer = lambda handler, request: origin.stopped.wait(30)
    with pytest.raises(OriginUnavailable, match="no answer in time"):
        open_bucket(timeout=Timeout(read=0.1)).get("a")
    assert len(origin.requests) == 2


def test_an_origin_that_refuses_connections(open_bucket):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        store = open_bucket(endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(OriginUnavailable, match="Connection refused") as caught:
            store.get("a")
    assert not caught.value.blocked


def serve_ranges(origin, breaks, change=None):
    """Break the first answers in the middle of what they send; then send everything."""

    def answer(handler, request):
        n = len(origin.requests)
        headers = {"ETag": '"1"', "Last-Modified": MODIFIED}
        start = 0
        if "range" in request.headers:
            start = int(request.headers["range"].removeprefix("bytes=").rstrip("-"))
            assert request.headers["if-match"] == '"1"'
            headers["Content-Range"] = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        headers["Content-Length"] = str(len(BODY) - start)
        if change is not None and n > 1:
            headers.update(change)
        handler.send_response(206 if start else 200)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if n <= breaks:
            handler.wfile.write(BODY[start : start + (len(BODY) - start) // 2])
            handler.break_off()
        else:
            handler.wfile.write(BODY[start:])

    origin.answer = answer


def test_a_broken_answer_is_continued(origin, open_bucket, no_pauses):
    serve_ranges(origin, breaks=5)
    assert read(open_bucket(), "a")[1] == BODY
    assert len(origin.requests) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"ETag": '"2"'},
        {"Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"},
        {"Content-Range": f"bytes {HALF}-{len(BODY)}/{len(BODY) + 1}"},
    ],
    ids=["etag", "start", "length"],
)
def test_a_changed_object_is_not_mixed(origin, open_bucket, no_pauses, change):
    serve_ranges(origin, breaks=1, change=change)
    with pytest.raises(OriginError, match=r"has changed|Requested .*, got"):
        read(open_bucket(), "a")


def test_an_object_that_has_changed_is_given_up(origin, open_bucket, no_pauses):
    serve_ranges(origin, breaks=1)
    whole = origin.answer

    def answer(handler, request):
        if len(origin.requests) == 1:
            whole(handler, request)
        else:
            handler.reply(412)

    origin.answer = answer
    with pytest.raises(OriginError, match="the object has changed"):
        read(open_bucket(), "a")
    assert len(origin.requests) == 2


def test_an_object_that_exists_is_not_created(origin, open_bucket):
    origin.answer = lambda handler, request: handler.reply(412)
    with pytest.raises(ObjectExists):
        open_bucket().put("a", [b"1", b"2"], create=True)
    (request,) = origin.requests
    assert (request.method, request.target, request.body) == ("PUT", "/boot/a", b"12")
    assert request.headers["if-none-match"] == "*"


def test_an_upload_that_is_refused(origin, open_bucket):
    origin.answer = refuse(403, "AccessDenied")
    with pytest.raises(OriginError, match="403 Forbidden AccessDenied") as caught:
        open_bucket().put("a", [b"1"], create=False)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "variables", "target"),
    [
        ("gs://boot/tree", None, "/boot/tree%2Fa%20b"),  # as the API of Google has it
        ("az://boot/tree", {"AZURE_STORAGE_ACCOUNT_NAME": "account"}, "/boot/tree/a%20b"),
    ],
    ids=["gs", "az"],
)
def test_other_kinds_of_stores_are_asked_below_the_prefix(origin, url, variables, target):
    credentials = "none"
    if variables is not None:
        credentials = "environment"
        variables = {**variables, "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0c2VjcmV0"}
    store = open_store(Origin(url, endpoint=origin.url, credentials=credentials), variables or {})
    with pytest.raises(ObjectNotFound):
        store.get("a b")
    (request,) = origin.requests
    assert request.target == target
