"""Maximum cost of one datagram: disk lookups, memory and time of the reactor."""

import os
import time
import tracemalloc
from typing import get_args

import pytest

from tests.confinement.requests import create_server, mount_root, run_transfer, send
from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.mounts import parse_root
from tftpd.access.policy import ReadPolicy
from tftpd.access.rewrite import NameRules
from tftpd.config.names import Encoding
from tftpd.protocol.packets import MAX_REQUEST_BYTES, Rrq
from tftpd.storage.dentry_cache import DentryCache

# docs/explanation/security.md states these limits.
MAX_LOOKUPS_WITHOUT_FALLBACKS, MAX_LOOKUPS_WITH_FALLBACKS, MAX_LOOKUPS_IN_REACTOR = 12, 2500, 1000
SYSTEM_CALLS = ("open", "stat", "lstat", "readlink", "scandir", "close")

ALL_FALLBACKS = NameRules(
    (), FallbackChain(tuple(Fallback), ((b"boot",), (b"tftpboot",))), get_args(Encoding)
)
ROOTS = 8

HOSTILE = {
    "every fallback": b"C:\\boot\\\xe4\xf6/file\xff\xff",
    "missing directories": b"a/" * 2047,
    "a drive and steps": b"C:" + b"a/" * 1900,
    "into directories and back": b"a/" * 1000 + b"../" * 600,
    "a drive, into directories and back": b"C:" + b"a/" * 1000 + b"../" * 600 + b"\xe4\xff",
    "bytes that are not UTF-8": b"C:" + (b"\xe4" * 250 + b"/") * 15 + b"\xff",
    "short steps, as many as fallbacks change": b"C:" + b"\xe4/" * 250 + b"\xff",
    "a link to the root, 60 times": b"C:" + b"self/" * 60 + b"x\xff",
    "a link to the root, 39 times": b"C:" + b"self/" * 39 + b"x\xff",
    "the real name of the root": b"C:" + b"real/" * 39 + b"x\xff",
    "slashes": b"/" * 4096,
    "dots": b"./" * 2048,
    "existing directories and back": b"inner/../" * 455 + b"x",
    "steps in another letter case": b"INNER/DEEP/" * 40 + b"x",
    "longer than the maximum": b"x" * 8000,
}


@pytest.fixture
def roots(tree):
    """Return roots that are links and contain links to themselves."""
    for number in range(ROOTS):
        (tree.root / str(number) / "inner" / "deep").mkdir(parents=True)
        (tree.base / str(number)).symlink_to(tree.root / str(number))
        tree.link(f"{number}/self", f"{{base}}/{number}")
        tree.link(f"{number}/real", f"{{root}}/{number}")
    return tuple(parse_root(str(tree.base / str(number))) for number in range(ROOTS))


@pytest.fixture
def lookups(monkeypatch):
    """Count the system calls that look up names."""
    count = [0]

    def counting(call):
        def counted(*arguments, **named):
            count[0] += 1
            return call(*arguments, **named)

        return counted

    for call in SYSTEM_CALLS:
        monkeypatch.setattr(os, call, counting(getattr(os, call)))
    monkeypatch.setattr(DentryCache, "_open", counting(DentryCache._open))
    return count


def _count_lookups(server, lookups, name):
    """Return the number of lookups for a name, and the duration in seconds."""
    lookups[0] = 0
    start = time.perf_counter()
    run_transfer(server, Rrq(name, b"octet").encode())
    return lookups[0], time.perf_counter() - start


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_the_number_of_lookups_for_a_name_is_limited(tree, roots, lookups, name):
    """One root without fallbacks, and eight roots with all fallbacks."""
    count, _ = _count_lookups(create_server(mount_root(tree)), lookups, name)
    assert count <= MAX_LOOKUPS_WITHOUT_FALLBACKS or name.startswith((b"inner", b"INNER"))
    count, _ = _count_lookups(
        create_server(mount_root(tree, roots=roots), naming=ALL_FALLBACKS), lookups, name
    )
    assert count <= MAX_LOOKUPS_WITH_FALLBACKS


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_the_reactor_is_not_blocked(tree, roots, lookups, name):
    """Lookups that cost more wait for a thread, which never runs in this test."""
    server = create_server(mount_root(tree, roots=roots), naming=ALL_FALLBACKS)
    run_transfer(server, Rrq(name, b"octet").encode())  # fills the dentry cache of the kernel
    server = create_server(mount_root(tree, roots=roots), naming=ALL_FALLBACKS)
    server.net.hold_threads = True
    count, _ = _count_lookups(server, lookups, name)
    assert count <= MAX_LOOKUPS_IN_REACTOR
    server.net.run_threads()


def test_a_stored_request_is_small(tree):
    """A session keeps its request, and there may be `half_open` such sessions."""
    server = create_server(mount_root(tree, read=ReadPolicy()))
    options = b"ab\0cd\0" * MAX_REQUEST_BYTES
    longest = b"\0\1file\0octet\0" + options[: MAX_REQUEST_BYTES - 13]
    longest = longest[: longest.rindex(b"\0") + 1]
    send(server, longest)  # creates caches
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


@pytest.mark.check
def test_the_negative_cache_has_limited_memory(tree, roots, monkeypatch):
    """The names are as long as the cache accepts."""
    hour = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr("tftpd.storage.negative_cache.time.time_ns", lambda: hour)
    monkeypatch.setattr("tftpd.storage.resolver._MAX_NONBLOCKING_LOOKUPS", 1000)
    # Names in several encodings are not stored.
    naming = NameRules(fallbacks=ALL_FALLBACKS.fallbacks)
    server = create_server(mount_root(tree), naming=naming)
    resolver = server.listener.config.resolver
    tracemalloc.start()
    try:
        for number in range(8):
            name = b"C:%04d" % number + b"\xe4" * 40 + b"/" + b"ab/" * 150 + b"\xff"
            for _ in range(2):
                run_transfer(server, Rrq(name, b"octet").encode())
        server.reports.clear()
        entries = len(resolver.negative_cache._entries)
        before, _ = tracemalloc.get_traced_memory()
        resolver.negative_cache._entries.clear()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert entries == 8
    assert (before - after) / entries < 12 << 10
