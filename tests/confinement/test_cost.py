"""Maximum cost of one datagram: disk lookups, memory and time of the reactor."""

import os
import time
import tracemalloc
from typing import get_args

import pytest

from tests.confinement.asking import everything, mount, says, serving
from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.mounts import parse_root
from tftpd.access.policy import ReadPolicy
from tftpd.access.rewrite import NameRules
from tftpd.config.names import Encoding
from tftpd.protocol.packets import MAX_REQUEST_BYTES, Rrq
from tftpd.storage.dentry_cache import DentryCache

# docs/explanation/security.md states these.
PLAIN, FALLBACKS, AT_ONCE = 12, 2500, 1000
CALLS = ("open", "stat", "lstat", "readlink", "scandir", "close")

EVERYTHING = NameRules(
    fallbacks=FallbackChain(tuple(Fallback), get_args(Encoding), ((b"boot",), (b"tftpboot",)))
)
ROOTS = 8

HOSTILE = {
    "every fallback": b"C:\\boot\\\xe4\xf6/file\xff\xff",
    "steps that are not there": b"a/" * 2047,
    "a drive and steps": b"C:" + b"a/" * 1900,
    "there and back": b"a/" * 1000 + b"../" * 600,
    "a drive, there and back": b"C:" + b"a/" * 1000 + b"../" * 600 + b"\xe4\xff",
    "letters that are no text": b"C:" + (b"\xe4" * 250 + b"/") * 15 + b"\xff",
    "short steps, as many as are mended": b"C:" + b"\xe4/" * 250 + b"\xff",
    "a link to the root, again and again": b"C:" + b"self/" * 60 + b"x\xff",
    "a link to the root, as often as it may be": b"C:" + b"self/" * 39 + b"x\xff",
    "the real name of the root": b"C:" + b"real/" * 39 + b"x\xff",
    "slashes": b"/" * 4096,
    "dots": b"./" * 2048,
    "steps that are there, to and fro": b"inner/../" * 455 + b"x",
    "steps of another case": b"INNER/DEEP/" * 40 + b"x",
    "more than a name may have": b"x" * 8000,
}


@pytest.fixture
def roots(confined):
    """Each by a name that is a link, with links to itself in it."""
    for number in range(ROOTS):
        (confined.root / str(number) / "inner" / "deep").mkdir(parents=True)
        (confined.base / str(number)).symlink_to(confined.root / str(number))
        confined.link(f"{number}/self", f"{{base}}/{number}")
        confined.link(f"{number}/real", f"{{root}}/{number}")
    return tuple(parse_root(str(confined.base / str(number))) for number in range(ROOTS))


@pytest.fixture
def looks(monkeypatch):
    """Count the disk lookups."""
    count = [0]

    def counting(call):
        def counted(*arguments, **named):
            count[0] += 1
            return call(*arguments, **named)

        return counted

    for call in CALLS:
        monkeypatch.setattr(os, call, counting(getattr(os, call)))
    monkeypatch.setattr(DentryCache, "_open", counting(DentryCache._open))
    return count


def _asking(server, looks, name):
    """Looks at the disk for a name that was not asked for before, and seconds."""
    looks[0] = 0
    begun = time.perf_counter()
    everything(server, Rrq(name, b"octet").encode())
    return looks[0], time.perf_counter() - begun


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_the_number_of_lookups_for_a_name_is_limited(confined, roots, looks, name):
    """One root without fallbacks, and eight roots with all of them."""
    seen, _ = _asking(serving(mount(confined)), looks, name)
    assert seen <= PLAIN or name.startswith((b"inner", b"INNER"))
    seen, _ = _asking(serving(mount(confined, roots=roots), naming=EVERYTHING), looks, name)
    assert seen <= FALLBACKS


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_the_reactor_is_not_blocked(confined, roots, looks, name):
    """Lookups that cost more wait for a thread, which never runs in this test."""
    server = serving(mount(confined, roots=roots), naming=EVERYTHING)
    everything(server, Rrq(name, b"octet").encode())  # the kernel knows all of it by now
    server = serving(mount(confined, roots=roots), naming=EVERYTHING)
    server.net.hold_threads = True
    seen, _ = _asking(server, looks, name)
    assert seen <= AT_ONCE
    server.net.run_threads()


def test_a_stored_request_is_small(confined):
    """A transfer keeps its request for as long as it runs, and half_open of them are kept."""
    server = serving(mount(confined, read=ReadPolicy()))
    options = b"ab\0cd\0" * MAX_REQUEST_BYTES
    longest = b"\0\1file\0octet\0" + options[: MAX_REQUEST_BYTES - 13]
    longest = longest[: longest.rindex(b"\0") + 1]
    says(server, longest)  # what is made once
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for port in range(1, 51):
            server.net.deliver(longest, ("198.51.100.1", port), ("127.0.0.1", 69))
        server.net.sent.clear()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(server.sessions) == 51
    assert (after - before) / 50 < 32 << 10
    server.sessions.stop()


def test_the_negative_cache_has_limited_memory(confined, roots, monkeypatch):
    """As many as are remembered, each as large as can be."""
    hour = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr("tftpd.storage.negative_cache.time.time_ns", lambda: hour)
    monkeypatch.setattr("tftpd.storage.resolver._MAX_NONBLOCKING_LOOKUPS", 1000)
    server = serving(mount(confined), naming=EVERYTHING)
    finder = server.listener.config.resolver
    tracemalloc.start()
    try:
        for number in range(8):
            name = b"C:%04d" % number + b"\xe4" * 40 + b"/" + b"ab/" * 150 + b"\xff"
            for _ in range(2):
                everything(server, Rrq(name, b"octet").encode())
        server.reports.clear()
        kept = len(finder.negative_cache._entries)
        before, _ = tracemalloc.get_traced_memory()
        finder.negative_cache._entries.clear()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept == 8
    assert (before - after) / kept < 12 << 10
