"""Requests and responses, in memory."""

import os
from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.http.conftest import BIG
from tests.http.memory import MemoryHttp
from tftpd.net.rate_limit import BandwidthLimit
from tftpd.protocol.errors import ErrorCode, HostFault, RequestRefused, ResourceExhausted
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome
from tftpd.storage.source import FileSource


def test_a_small_file(http, root):
    response = http.get("/seven")
    assert (response.status, response.body) == (200, b"1234567")
    assert response.headers["content-length"] == "7"
    assert response.headers["accept-ranges"] == "bytes"
    assert "last-modified" in response.headers
    (report,) = http.reports
    assert (report.outcome, report.protocol, report.status) == (Outcome.DONE, "http", 200)
    assert (report.filename, report.bytes_transferred, report.size) == (b"seven", 7, 7)
    assert (report.peer, report.direction) == (("192.0.2.7", 2070), Direction.READ)


def test_a_large_file_is_sent_in_parts(http):
    connected = http.connect()
    connected.request("/big")
    assert len(connected.transport.value()) < len(BIG)
    http.advance(1)
    (response,) = connected.responses()
    assert response.body == BIG
    (report,) = http.reports
    assert (report.outcome, report.bytes_transferred) == (Outcome.DONE, len(BIG))
    connected.lose()


def test_a_transport_with_unsent_data_pauses_the_body(http):
    connected = http.connect()
    connected.request("/big")
    connected.connection.pauseProducing()
    http.advance(0)
    sent = len(connected.transport.value())
    http.advance(5)
    assert len(connected.transport.value()) == sent
    connected.connection.resumeProducing()
    http.advance(1)
    (response,) = connected.responses()
    assert response.body == BIG
    connected.lose()


def test_a_client_that_reads_nothing_times_out(http):
    connected = http.connect()
    connected.request("/big")
    connected.connection.pauseProducing()
    http.advance(74)
    assert http.reports == []
    http.advance(3)
    assert connected.is_lost
    (report,) = http.reports
    assert report.outcome is Outcome.TIMED_OUT
    assert 0 < report.bytes_transferred < len(BIG)


def test_a_broken_connection_is_reported(http):
    connected = http.connect()
    connected.request("/big")
    connected.lose()
    http.advance(10)
    (report,) = http.reports
    assert report.outcome is Outcome.ABORTED
    assert not http.net.clock.getDelayedCalls()


def test_head_has_the_headers_of_get(http):
    get, head = http.get("/seven"), http.get("/seven", method="HEAD")
    assert head.body == b""
    assert {**head.headers, "date": ""} == {**get.headers, "date": ""}
    assert http.reports[1].outcome is Outcome.PROBE


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_range(http, method):
    response = http.get("/seven", "Range: bytes=2-4", method=method)
    assert response.status == 206
    assert response.headers["content-range"] == "bytes 2-4/7"
    assert response.headers["content-length"] == "3"
    assert response.body == (b"345" if method == "GET" else b"")


def test_a_range_of_a_large_file(http):
    connected = http.connect()
    connected.request("/big", "Range: bytes=100-200099")
    http.advance(1)
    (response,) = connected.responses()
    assert response.body == BIG[100:200100]
    connected.lose()


def test_several_ranges_are_the_whole_file(http):
    response = http.get("/seven", "Range: bytes=0-1,3-4")
    assert (response.status, response.body) == (200, b"1234567")


def test_a_range_beyond_the_file(http):
    response = http.get("/seven", "Range: bytes=7-")
    assert response.status == 416
    assert response.headers["content-range"] == "bytes */7"
    assert http.reports[0].outcome is Outcome.REFUSED


def test_if_range_of_a_changed_file_is_the_whole_file(http, root):
    etag = http.get("/seven").headers["etag"]
    condition = f"If-Range: {etag}"
    assert http.get("/seven", condition, "Range: bytes=5-").body == b"67"
    (root / "seven").write_bytes(b"another")
    response = http.get("/seven", condition, "Range: bytes=5-")
    assert (response.status, response.body) == (200, b"another")


def test_a_file_that_the_client_has_is_not_sent(http):
    etag = http.get("/seven").headers["etag"]
    response = http.get("/seven", f"If-None-Match: {etag}")
    assert (response.status, response.body) == (304, b"")
    assert response.headers["etag"] == etag
    assert http.get("/seven", 'If-Match: "other"').status == 412


@pytest.mark.parametrize(
    ("target", "content_type"),
    [
        ("/boot.EFI", "application/efi"),
        ("/seven", "application/octet-stream"),
        ("/a%20dir/%C3%BC%25%3F%23.txt", "text/plain"),
    ],
)
def test_content_types(http, target, content_type):
    response = http.get(target)
    assert (response.status, response.headers["content-type"]) == (200, content_type)


def test_an_empty_file(http):
    response = http.get("/empty")
    assert (response.status, response.headers["content-length"]) == (200, "0")
    assert http.reports[0].outcome is Outcome.DONE


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/missing", 404),
        ("/closed/key", 403),
        ("/", 403),
        ("/a%20dir", 403),
        ("/../seven", 403),
        ("/a%20dir/..%2fseven", 200),
        ("/%2e%2e/seven", 403),
        ("/closed%2fkey", 403),
        ("/seven%00", 400),
        ("*", 400),
        ("seven", 400),
        ("ftp://x/seven", 400),
        ("/" + "x" * 5000, 404),
        ("//seven", 200),
        ("/./seven?a=b", 200),
        ("/%73even", 200),
        ("/%2573even", 404),  # decoded once
        ("http://192.0.2.1:80/seven?x", 200),
        ("HTTP://x/seven", 200),
        ("http://x", 403),
    ],
)
def test_targets(http, target, status):
    response = http.get(target)
    assert response.status == status
    if status != 200:
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.body.endswith(b"\n")
        assert str(status) not in ("200",)
        assert b"/" not in response.body  # no path of this host


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "OPTIONS", "get"])
def test_other_methods(http, method):
    response = http.get("/seven", "Content-Length: 0", method=method)
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")
    assert response.headers["connection"] == "close"
    (report,) = http.reports
    is_write = method in ("PUT", "POST", "DELETE")
    assert report.direction is (Direction.WRITE if is_write else Direction.READ)


def test_a_connection_serves_several_requests(http):
    connected = http.connect()
    for _ in range(3):
        connected.request("/seven")
        (response,) = connected.responses()
        assert response.body == b"1234567"
        assert "connection" not in response.headers
    connected.request("/seven", "Connection: close")
    assert connected.responses()[0].headers["connection"] == "close"
    assert connected.transport.disconnecting
    connected.lose()


def test_pipelined_requests_are_answered_in_order(http):
    connected = http.connect()
    request = "GET /{} HTTP/1.1\r\nHost: x\r\n\r\n"
    names = ["seven", "big", "missing", "empty", "boot.EFI"] * 40
    connected.send("".join(map(request.format, names)).encode())
    for _ in range(400):
        http.advance(0.01)
    found = connected.responses()
    assert [response.status for response in found] == [200, 200, 404, 200, 200] * 40
    assert [len(response.body) for response in found[:5]] == [7, len(BIG), 15, 0, 2]
    connected.lose()


def test_responses_to_pipelined_requests_wait_for_the_client(http):
    connected = http.connect()
    connected.connection.pauseProducing()
    connected.send(b"GET /seven HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    http.advance(10)
    assert len(connected.responses()) == 1
    connected.connection.resumeProducing()
    http.advance(1)
    assert len(connected.responses()) == 99
    connected.lose()


def test_http_1_0_gets_one_response(http):
    connected = http.connect()
    connected.send(b"GET /seven HTTP/1.0\r\n\r\n")
    (response,) = connected.responses()
    assert (response.status, response.headers["connection"]) == (200, "close")
    assert connected.transport.disconnecting
    connected.lose()


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: +5\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Bad Header: 1\r\n",
        b"A: \0\r\n",
        b"A: %s\r\n" % (b"x" * 20000),
        b"A: b\r\n" * 600,
    ],
)
def test_malformed_headers_end_the_connection(http, headers):
    _end_connection(http, b"GET /seven HTTP/1.1\r\nHost: x\r\n%s\r\n" % headers)


@pytest.mark.parametrize(
    "line",
    [
        b"GET /%s HTTP/1.1\r\nHost: x" % (b"x" * 20000),
        b"GET /seven HTTP/2.0",
        b"GET /seven",
        b"\0\1seven\0octet\0",
    ],
)
def test_malformed_request_lines_end_the_connection(http, line):
    _end_connection(http, line + b"\r\n\r\n")


def _end_connection(http, request_text):
    connected = http.connect()
    connected.send(request_text)
    assert connected.transport.disconnecting or connected.is_lost
    for response in connected.responses():
        assert response.status == 400
    connected.send(b"GET /seven HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connected.responses() == []
    assert http.reports == []
    connected.lose()


@pytest.mark.parametrize(
    "headers",
    [b"", b"Host: x\r\nHost: y\r\n"],
)
def test_one_host_header_is_needed(http, headers):
    connected = http.connect()
    connected.send(b"GET /seven HTTP/1.1\r\n%s\r\n" % headers)
    assert connected.responses()[0].status == 400
    connected.lose()


def test_a_short_body_of_a_request_is_discarded(http):
    connected = http.connect()
    connected.send(b"GET /seven HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /")
    connected.request("/empty")
    assert [response.status for response in connected.responses()] == [200, 200]
    connected.lose()


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("PUT", ["Content-Length: 100000000"], 405),
        ("PUT", ["Content-Length: 10", "Expect: 100-continue"], 405),
        ("POST", ["Transfer-Encoding: chunked"], 405),
        ("GET", ["Transfer-Encoding: chunked"], 413),
        ("GET", ["Content-Length: 100000000"], 413),
    ],
)
def test_a_long_body_of_a_request_is_not_awaited(http, method, headers, status):
    connected = http.connect()
    connected.request("/seven", *headers, method=method)
    (response,) = connected.responses()
    assert (response.status, response.headers["connection"]) == (status, "close")
    connected.send(b"GET /empty HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connected.responses() == []
    assert connected.transport.disconnecting
    connected.lose()


def test_trusted_proxies_name_the_client(make_config):
    http = MemoryHttp(make_config, trusted_proxies=["10.0.0.0/8", "192.0.2.7"])
    http.get("/seven", "X-Forwarded-For: 198.51.100.1, 203.0.113.9, 10.1.1.1")
    http.get("/seven", "X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: [2001:db8::1]")
    http.get("/seven", "X-Forwarded-For: junk")
    http.get("/seven", "X-Forwarded-For: 203.0.113.9", host="192.0.2.8")
    hosts = [report.peer[0] for report in http.reports]
    assert hosts == ["203.0.113.9", "2001:db8::1", "192.0.2.7", "192.0.2.8"]
    http.stop()


def test_policies_see_the_client_behind_a_proxy(make_config, root):
    def build(report):
        from tftpd.access.mounts import Mount, Mounts, Root
        from tftpd.access.policy import ReadPolicy

        policy = ReadPolicy(clients=[ip_network("203.0.113.0/24")])
        return replace(make_config(report), mounts=Mounts([Mount((), (Root(root),), read=policy)]))

    http = MemoryHttp(build, trusted_proxies=["192.0.2.7"])
    assert http.get("/seven").status == 403
    assert http.get("/seven", "X-Forwarded-For: 203.0.113.9").status == 200
    http.stop()


def test_the_bandwidth_is_limited(make_config):
    limit = BandwidthLimit(50_000)
    http = MemoryHttp(lambda report: replace(make_config(report), bandwidth=limit))
    connected = http.connect()
    connected.request("/big")
    http.advance(2)
    assert len(connected.transport.value()) < 200_000
    http.advance(6)
    assert connected.responses()[0].body == BIG
    connected.lose()
    http.stop()


def test_requests_per_second(make_config):
    def build(report):
        config = make_config(report)
        return replace(config, admission=replace(config.admission, requests_per_second=2))

    http = MemoryHttp(build)
    responses = [http.get("/seven") for _ in range(3)]
    assert [response.status for response in responses] == [200, 200, 503]
    assert responses[2].headers["retry-after"] == "1"
    http.stop()


def test_a_slow_lookup_is_done_in_a_thread(http, root, monkeypatch):
    http.net.hold_threads = True
    cache = http.config.resolver.cache
    monkeypatch.setattr(cache, "is_cached", lambda *_: False)
    monkeypatch.setattr(cache, "open_path", lambda *_: -1)
    connected = http.connect()
    connected.request("/seven")
    assert connected.responses() == []
    http.net.run_threads()
    assert connected.responses()[0].body == b"1234567"
    connected.lose()


def test_a_lookup_for_a_lost_connection_is_cancelled(http, monkeypatch):
    http.net.hold_threads = True
    cache = http.config.resolver.cache
    monkeypatch.setattr(cache, "is_cached", lambda *_: False)
    monkeypatch.setattr(cache, "open_path", lambda *_: -1)
    before = len(os.listdir("/proc/self/fd"))
    connected = http.connect()
    connected.request("/seven")
    connected.lose()
    http.net.run_threads()
    (report,) = http.reports
    assert report.outcome is Outcome.ABORTED
    assert len(os.listdir("/proc/self/fd")) == before


def test_data_that_is_not_in_memory_is_read_in_a_thread(http, monkeypatch):
    read = FileSource.read

    def slow(self, buffers, offset, blocking):
        if not blocking:
            raise BlockingIOError
        return read(self, buffers, offset, blocking)

    monkeypatch.setattr(FileSource, "read", slow)
    connected = http.connect()
    for name, size in (("seven", 7), ("big", len(BIG))):
        connected.request(f"/{name}")
        http.advance(1)
        assert len(connected.responses()[0].body) == size
    connected.lose()


@pytest.mark.parametrize("change", [b"", b"x" * len(BIG)])
def test_a_file_that_changes_breaks_the_connection(http, root, change):
    connected = http.connect()
    connected.request("/big")
    connected.connection.pauseProducing()
    http.advance(0)
    (root / "big").write_bytes(change)
    os.utime(root / "big", (1, 1))
    connected.connection.resumeProducing()
    http.advance(1)
    assert connected.is_lost
    (report,) = http.reports
    assert (report.outcome, report.detail) == (
        Outcome.FAILED,
        "File changed while it was being sent",
    )


@pytest.mark.parametrize(
    ("kind", "status", "retry_after"),
    [
        (HostFault, 500, None),  # an administrator must correct something
        (ResourceExhausted, 503, "1"),
        (RequestRefused, 503, "1"),
    ],
)
def test_only_a_refusal_that_may_pass_invites_to_retry(
    http, monkeypatch, kind, status, retry_after
):
    def refuse(*_):
        raise kind(ErrorCode.NOT_DEFINED, "reason", "text")

    monkeypatch.setattr("tftpd.http.request.resolve_read", refuse)
    response = http.get("/seven")
    assert (response.status, response.body) == (status, b"text\n")
    assert response.headers.get("retry-after") == retry_after
    assert http.reports[0].code == ErrorCode.NOT_DEFINED


def test_an_internal_error_is_a_response(http, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("tftpd.http.request.resolve_read", fail)
    response = http.get("/seven")
    assert (response.status, response.body) == (500, b"Internal error\n")
    assert http.reports[0].outcome is Outcome.REFUSED


def test_datagrams_are_served_between_the_steps_of_a_request(http):
    served = []
    http.server.runtime = replace(
        http.server.runtime, serve_datagrams=lambda: served.append(len(http.reports))
    )
    assert http.get("/seven").status == 200
    assert served.count(0) >= 3  # before its end: after the headers, the lookup and the response
    assert served.count(1) == 1
