"""Web servers as origins, against a server that records requests and has faults."""

import errno
import socket
import threading
import time

import pytest

from tests.origins.settings import Origin, Timeout
from tests.origins.stores import INVALID_KEYS, read
from tests.support.programs import library
from tests.support.web_origin import web_origin
from tftpd.origins.stores import (
    NotModified,
    ObjectExists,
    ObjectInfo,
    ObjectNotFound,
    OriginError,
    OriginUnavailable,
)

library("urllib3")

from tftpd.origins.web_store import WebStore  # noqa: E402

BODY = bytes(range(256)) * 4096
HALF = len(BODY) // 2


@pytest.fixture
def open_store(origin):
    stores = []

    def _open(path="", **settings):
        stores.append(WebStore(Origin(origin.url + path, **settings)))
        return stores[-1]

    yield _open
    for store in stores:
        store.close()


def requested_range(request):
    first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
    assert last == ""
    return int(first)


def test_an_object_is_read(origin, open_store):
    def answer(handler, request):
        handler.reply(200, BODY, ETag='"1"', Last_Modified="Sun, 29 Nov 2026 20:35:24 GMT")

    origin.answer = answer
    info, body = read(open_store("/tree/"), "a/b")
    assert info == ObjectInfo(len(BODY), '"1"', "Sun, 29 Nov 2026 20:35:24 GMT")
    assert body == BODY
    (request,) = origin.requests
    assert (request.method, request.target) == ("GET", "/tree/a/b")
    assert request.headers["accept-encoding"] == "identity"
    assert "if-none-match" not in request.headers


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("%2e%2e/x", "/tree/%252e%252e/x"),
        ("..%2f..", "/tree/..%252f.."),
        ("a b", "/tree/a%20b"),
        ("ü", "/tree/%C3%BC"),
        ("a?b=c#d&e;f", "/tree/a%3Fb%3Dc%23d%26e%3Bf"),
        ("http:@host:80", "/tree/http%3A%40host%3A80"),
        ("...", "/tree/..."),
        ("~a-b_c.d", "/tree/~a-b_c.d"),
        ("a+b", "/tree/a%2Bb"),
    ],
)
def test_a_key_is_sent_as_one_path(origin, open_store, key, target):
    with pytest.raises(ObjectNotFound):
        open_store("/tree").get(key)
    assert [request.target for request in origin.requests] == [target]


@pytest.mark.parametrize("key", INVALID_KEYS)
def test_a_key_that_could_leave_the_prefix_is_never_sent(origin, open_store, key):
    store = open_store("/tree")
    with pytest.raises(OriginError, match="not a key"):
        store.get(key)
    with pytest.raises(OriginError, match="not a key"):
        store.exists(key)
    with pytest.raises(OriginError, match="not a key"):
        store.put(key, [b""], create=False)
    assert origin.requests == []


@pytest.mark.parametrize(("status", "exists"), [(200, True), (404, False), (410, False)])
def test_an_object_is_looked_for(origin, open_store, status, exists):
    origin.answer = lambda handler, request: handler.reply(status, BODY)
    assert open_store("/tree").exists("a b") is exists
    assert [(r.method, r.target) for r in origin.requests] == [("HEAD", "/tree/a%20b")]


@pytest.mark.parametrize("status", [403, 405, 503])
def test_an_origin_that_does_not_tell_if_an_object_exists(origin, open_store, status):
    origin.answer = lambda handler, request: handler.reply(status)
    with pytest.raises(OriginError, match=str(status)) as caught:
        open_store().exists("a")
    assert isinstance(caught.value, OriginUnavailable) == (status == 503)
    assert len(origin.requests) == 1 + (status == 503)


def test_an_object_that_is_not_modified(origin, open_store):
    origin.answer = lambda handler, request: handler.reply(304)
    with pytest.raises(NotModified):
        open_store().get("a", '"1"')
    assert origin.requests[0].headers["if-none-match"] == '"1"'


@pytest.mark.parametrize("status", [404, 410])
def test_an_absent_object(origin, open_store, status):
    origin.answer = lambda handler, request: handler.reply(status)
    with pytest.raises(ObjectNotFound):
        open_store().get("a")


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 412])
def test_an_origin_that_refuses(origin, open_store, status):
    origin.answer = lambda handler, request: handler.reply(status)
    with pytest.raises(OriginError, match=str(status)) as caught:
        open_store().get("a")
    assert not isinstance(caught.value, OriginUnavailable)
    assert len(origin.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_overloaded_origin_is_asked_twice(origin, open_store, status):
    origin.answer = lambda handler, request: handler.reply(status)
    with pytest.raises(OriginUnavailable, match=str(status)):
        open_store().get("a")
    assert len(origin.requests) == 2


def test_an_origin_that_recovers_is_read(origin, open_store):
    def answer(handler, request):
        handler.reply(503) if len(origin.requests) == 1 else handler.reply(200, BODY)

    origin.answer = answer
    assert read(open_store(), "a")[1] == BODY


def test_an_answer_without_a_length(origin, open_store):
    def answer(handler, request):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Content-Length", "1")
        handler.end_headers()
        for part in (BODY[:HALF], BODY[HALF:]):
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        handler.wfile.write(b"0\r\n\r\n")

    origin.answer = answer
    info, body = read(open_store(), "a")
    assert info == ObjectInfo(None, "")
    assert body == BODY


def test_a_chunked_answer_that_breaks_is_an_error(origin, open_store):
    def answer(handler, request):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%b\r\n" % (HALF, BODY[:HALF]))
        handler.break_off()

    origin.answer = answer
    with pytest.raises(OriginError, match="interrupted after"):
        read(open_store(), "a")
    assert len(origin.requests) == 1


def test_an_encoded_body_is_not_decoded(origin, open_store):
    origin.answer = lambda handler, request: handler.reply(
        200, b"\x1f\x8b", Content_Encoding="gzip"
    )
    info, body = read(open_store(), "initrd.gz")
    assert (info.size, body) == (2, b"\x1f\x8b")


def serve_ranges(origin, breaks, etag='"1"', change=None):
    """Break the first answers in the middle of what they send; then send everything."""

    def answer(handler, request):
        n = len(origin.requests)
        start = requested_range(request) if "range" in request.headers else 0
        headers = {"ETag": etag} if etag else {}
        if start:
            assert request.headers["if-range"] == etag
            headers["Content_Range"] = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        if change is not None and n > 1:
            headers.update(change)
        handler.send_response(206 if start else 200)
        headers["Content_Length"] = str(len(BODY) - start)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if n <= breaks:
            handler.wfile.write(BODY[start : start + (len(BODY) - start) // 2])
            handler.break_off()
        else:
            handler.wfile.write(BODY[start:])

    origin.answer = answer


def test_a_broken_answer_is_continued(origin, open_store, no_pauses):
    serve_ranges(origin, breaks=5)
    assert read(open_store(), "a")[1] == BODY
    assert len(origin.requests) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"ETag": '"2"'},
        {"Content_Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"},
        {"Content_Range": f"bytes {HALF}-{len(BODY)}/{len(BODY) + 1}"},
        {"Content_Range": ""},
    ],
    ids=["etag", "start", "length", "none"],
)
def test_a_changed_object_is_not_mixed(origin, open_store, no_pauses, change):
    serve_ranges(origin, breaks=1, change=change)
    with pytest.raises(OriginError, match="the object has changed"):
        read(open_store(), "a")
    assert len(origin.requests) == 2


def test_a_server_that_sends_the_whole_object_again_has_another(origin, open_store, no_pauses):
    def answer(handler, request):
        if len(origin.requests) == 1:
            handler.send_response(200)
            handler.send_header("ETag", '"1"')
            handler.send_header("Content-Length", str(len(BODY)))
            handler.end_headers()
            handler.wfile.write(BODY[:HALF])
            handler.break_off()
        else:
            handler.reply(200, b"x" * len(BODY), ETag='"2"')

    origin.answer = answer
    with pytest.raises(OriginError, match="the object has changed"):
        read(open_store(), "a")


@pytest.mark.parametrize("etag", ["", 'W/"1"'], ids=["no etag", "weak etag"])
def test_an_object_without_a_strong_etag_is_not_continued(origin, open_store, no_pauses, etag):
    serve_ranges(origin, breaks=1, etag=etag)
    with pytest.raises(OriginError, match=f"interrupted after {HALF} of {len(BODY)} bytes"):
        read(open_store(), "a")
    assert len(origin.requests) == 1


def test_an_origin_that_stays_broken_is_given_up(origin, open_store, no_pauses):
    def answer(handler, request):
        if len(origin.requests) == 1:
            handler.send_response(200)
            handler.send_header("ETag", '"1"')
            handler.send_header("Content-Length", str(len(BODY)))
            handler.end_headers()
            handler.wfile.write(BODY[:HALF])
        handler.break_off()

    origin.answer = answer
    with pytest.raises(OriginError, match=f"interrupted after {HALF} of {len(BODY)} bytes"):
        read(open_store(), "a")
    assert len(origin.requests) == 4


def test_an_origin_that_is_silent_is_given_up(origin, open_store):
    origin.answer = lambda handler, request: origin.stopped.wait(30)
    with pytest.raises(OriginUnavailable, match="no answer in time"):
        open_store(timeout=Timeout(read=0.1)).get("a")
    assert len(origin.requests) == 2


def test_an_origin_that_refuses_connections(open_store):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        store = WebStore(Origin(f"http://127.0.0.1:{unused.getsockname()[1]}"))
        with pytest.raises(OriginUnavailable, match="Connection refused") as caught:
            store.get("a")
    assert not caught.value.blocked


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_a_connection_that_this_host_blocks(open_store, monkeypatch, number):
    def connect(*_):
        raise PermissionError(number, "blocked")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(OriginUnavailable) as caught:
        open_store().get("a")
    assert caught.value.blocked


def redirect_to(location):
    def answer(handler, request):
        if request.target == "/a":
            handler.reply(302, b"elsewhere", Location=location)
        else:
            handler.reply(200, request.target.encode())

    return answer


@pytest.mark.parametrize(
    "location", ["/b", "b", "//127.0.0.1:{port}/b", "http://127.0.0.1:{port}/b"]
)
def test_a_redirect_on_the_same_host_is_followed(origin, open_store, location):
    origin.answer = redirect_to(location.format(port=origin.port))
    assert read(open_store(), "a")[1] == b"/b"


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{other}/b",
        "//127.0.0.1:{other}/b",
        "http://localhost:{port}/b",
        "https://127.0.0.1:{port}/b",
        "file:///etc/passwd",
        "http://user:secret@127.0.0.1:{other}/?token=secret",
    ],
)
def test_a_redirect_to_another_host_is_not_followed(origin, open_store, location):
    with web_origin() as other:
        origin.answer = redirect_to(location.format(port=origin.port, other=other.port))
        with pytest.raises(OriginError, match="redirect to another host") as caught:
            open_store().get("a")
        assert "secret" not in str(caught.value)
        assert other.requests == []
    assert len(origin.requests) == 1


def test_a_redirect_to_another_host_is_followed_if_allowed(origin, open_store):
    with web_origin() as other:
        other.answer = lambda handler, request: handler.reply(200, b"other")
        origin.answer = redirect_to(f"{other.url}/b")
        assert read(open_store(redirects="any"), "a")[1] == b"other"


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/b", "http://[", "data:,x"]
)
def test_a_redirect_to_something_else_is_never_followed(origin, open_store, location):
    origin.answer = redirect_to(location)
    with pytest.raises(OriginError, match="redirect"):
        open_store(redirects="any").get("a")


def test_redirects_are_bounded(origin, open_store):
    origin.answer = lambda handler, request: handler.reply(302, Location=f"{request.target}x")
    with pytest.raises(OriginError, match="too many redirects"):
        open_store().get("a")
    assert len(origin.requests) == 6


def test_an_object_is_stored(origin, open_store):
    origin.answer = lambda handler, request: handler.reply(201, ETag='"2"')
    assert open_store("/tree").put("a b", [b"12", b"", b"345"], create=False) == '"2"'
    (request,) = origin.requests
    assert (request.method, request.target, request.body) == ("PUT", "/tree/a%20b", b"12345")
    assert "if-none-match" not in request.headers


def test_an_object_is_created(origin, open_store):
    origin.answer = lambda handler, request: handler.reply(204)
    assert open_store().put("a", [], create=True) == ""
    assert origin.requests[0].headers["if-none-match"] == "*"
    assert origin.requests[0].body == b""


def test_an_object_that_exists_is_not_created(origin, open_store):
    origin.answer = lambda handler, request: handler.reply(412)
    with pytest.raises(ObjectExists):
        open_store().put("a", [b"1"], create=True)


@pytest.mark.parametrize("status", [302, 403, 405, 500, 507])
def test_an_upload_that_is_refused(origin, open_store, status):
    origin.answer = lambda handler, request: handler.reply(status, Location="/b")
    with pytest.raises(OriginError, match=str(status)):
        open_store().put("a", [b"1"], create=False)
    assert len(origin.requests) == 1


def test_an_upload_that_stops_is_not_stored(origin, open_store):
    def chunks():
        yield b"1"
        raise ZeroDivisionError

    stored = []
    origin.answer = lambda handler, request: stored.append(request)
    with pytest.raises(ZeroDivisionError):
        open_store().put("a", chunks(), create=False)
    deadline = time.monotonic() + 10
    while not origin.requests and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stored == []


def test_the_origin_is_probed(origin, open_store):
    open_store("/tree").probe(writes=False)
    assert [request.method for request in origin.requests] == ["GET"]


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_probe_finds_an_origin_that_refuses(origin, open_store, status):
    origin.answer = lambda handler, request: handler.reply(status)
    with pytest.raises(OriginError, match=str(status)):
        open_store().probe(writes=False)


@pytest.mark.parametrize("honours", [True, False])
def test_a_probe_finds_an_origin_that_ignores_conditions(origin, open_store, honours):
    stored = []

    def answer(handler, request):
        if request.method == "GET":
            handler.reply(404)
        elif stored and honours:
            handler.reply(412)
        else:
            stored.append(request)
            handler.reply(201)

    origin.answer = answer
    if honours:
        open_store().probe(writes=True)
        open_store().probe(writes=True)
        assert len(stored) == 1
    else:
        with pytest.raises(OriginError, match="ignores conditional writes"):
            open_store().probe(writes=True)


@pytest.mark.parametrize("url", ["http://u:p@h/", "http://h/?q", "http://h/#f", "http:///a"])
def test_a_url_with_other_parts_is_refused(url):
    with pytest.raises(OriginError, match="the URL of a web server"):
        WebStore(Origin(url))


def test_many_threads_share_a_store(origin, open_store):
    origin.answer = lambda handler, request: handler.reply(200, request.target.encode() * 1000)
    store = open_store()
    bodies = {}

    def fetch(n):
        bodies[n] = read(store, str(n))[1]

    threads = [threading.Thread(target=fetch, args=(n,)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == {n: b"/%d" % n * 1000 for n in range(30)}
