"""Names of clients, as an origin sees them: whatever they are, no request leaves the prefix."""

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.origins.settings import Origin
from tests.support.programs import library
from tests.support.web_origin import web_origin
from tftpd.access.origin_roots import OriginRoot, object_key
from tftpd.access.paths import split_name
from tftpd.origins.factory import open_store
from tftpd.origins.stores import ObjectNotFound, OriginError
from tftpd.protocol.errors import RequestRefused

library("obstore")
library("urllib3")

ROOT = OriginRoot("fleet", (b"public", b"boot"))
PREFIX = b"/tree/public/boot/"

# Characters of a path that need no encoding, beside those of percent-encoding (RFC 3986 3.3).
PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")

PARTS = [
    *(b"..", b".", b"/", b"//", b"\\", b"%2e%2e", b"%2E", b"%2f", b"%5c", b"%00", b"%252e", b"a"),
    *(b"?", b"#", b"@", b":", b";", b"&x=", b"\r\n", b"\n", b" ", b"\t", b"\0", b"\x7f", b"\x85"),
    *(b"HTTP/1.1\r\nHost: x\r\n\r\n", b"http://127.0.0.1:1/", b"user:p@", b"[::1]", b"~", b"$"),
    *("\u2025 \uff0e\uff0e \u2215 \u2044 \uff0f \u202e \ud55c".encode().split()),
    *(b"\xff", b"\xc0\xae", b"\xe0\x80\xae", b"\xed\xb2\x80", b"x" * 300),
]
NAMES = st.one_of(
    st.binary(max_size=64),
    st.lists(st.sampled_from(PARTS), max_size=20).map(b"".join),
    st.text(max_size=64).map(lambda text: text.encode("utf-8", "surrogatepass")),
)


@pytest.fixture(scope="module")
def origin():
    with web_origin() as running:
        yield running


@pytest.fixture(scope="module", params=["web", "object"])
def store(request, origin):
    settings = Origin(f"{origin.url}/tree")
    if request.param == "object":
        settings = Origin("s3://tree", endpoint=origin.url)
    opened = open_store(settings, {})
    yield opened
    opened.close()


def ask(store, key):
    """Ask for an object, and store one, as for a client. The origin refuses both."""
    for use in (lambda: store.get(key), lambda: store.put(key, [b"x"], create=True)):
        with pytest.raises((ObjectNotFound, OriginError)):
            use()


def check(requests, origin, components=None):
    """Check that requests are for one path below the prefix, and nothing else."""
    for request in requests:
        assert PATH.fullmatch(request.target), request.target
        path = unquote_to_bytes(request.target)
        assert path.startswith(PREFIX)
        below = path.removeprefix(PREFIX).split(b"/")
        assert not {b"", b".", b".."} & set(below)
        assert not re.search(rb"[\x00-\x1f\x7f\\]", path)
        assert components is None or below == list(components)
        assert request.headers["host"] == f"127.0.0.1:{origin.port}"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(NAMES)
@example(b"../../secret")
@example(b"%2e%2e/%2e%2e/secret")
@example(b"..%2f..%2fsecret")
@example(b"..\\..\\secret")
@example(b"//host/x")
@example(b"a?x=1#y")
@example(b"a HTTP/1.1\r\nHost: x\r\n\r\n")
@example(b"a/" * 2048)
@example(b"\xff\xfe")
def test_no_request_for_a_name_leaves_the_prefix(store, origin, raw):
    before = len(origin.requests)
    try:
        components = split_name(raw)
        key = object_key(ROOT, components)
    except RequestRefused:
        return
    ask(store, key)
    requests = origin.requests[before:]
    assert {request.method for request in requests} == {"GET", "PUT"}
    check(requests, origin, components)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(NAMES)
@example(b"..")
@example(b"../../secret")
@example(b"a\\..\\b")
@example(b"a\0b")
def test_no_request_for_an_unchecked_key_leaves_the_prefix(store, origin, raw):
    """The stores check keys themselves, in case that a name was not."""
    before = len(origin.requests)
    ask(store, "public/boot/" + raw.decode("utf-8", "surrogateescape"))
    check(origin.requests[before:], origin)
