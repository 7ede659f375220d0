"""The sockets of a removed address close when the last worker has drained it."""

import socket

import pytest

from tftpd.config.settings import ListenSection
from tftpd.daemon.listen_sockets import DrainTracker, ListenSocket


def _listen():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return ListenSocket(ListenSection(address="127.0.0.1"), [sock])


@pytest.fixture
def drains():
    """Return a tracker, and two entries that three workers serve."""
    entries = [_listen(), _listen()]
    yield DrainTracker(), *entries
    for entry in entries:
        entry.close()


def _is_open(entry):
    return entry.sockets[0].fileno() >= 0


def test_the_sockets_close_when_the_last_worker_has_drained_the_address(drains):
    tracker, removed, kept = drains
    address = removed.address
    tracker.replace([removed, kept], [kept], range(3))
    for worker in (0, 2, 2):
        tracker.on_drained(worker, address)
    assert _is_open(removed)
    assert tracker.sockets == [removed]
    tracker.on_drained(1, address)
    tracker.on_drained(1, address)
    assert not _is_open(removed)
    assert tracker.sockets == []
    assert _is_open(kept)


def test_sockets_that_are_served_stay_open(drains):
    tracker, first, second = drains
    tracker.replace([first, second], [first, second], range(3))
    for worker in range(3):
        tracker.on_drained(worker, first.address)
    assert _is_open(first)


def test_a_worker_that_ended_has_drained_all_addresses(drains):
    tracker, first, second = drains
    tracker.replace([first, second], [], range(3))
    for worker in range(3):
        tracker.on_worker_ended(worker)
    assert not _is_open(first)
    assert not _is_open(second)


def test_without_workers_the_sockets_close_at_once(drains):
    tracker, removed, kept = drains
    tracker.replace([removed, kept], [kept], [])
    assert not _is_open(removed)
    assert _is_open(kept)


def test_an_address_that_is_served_again_stays_open(drains):
    tracker, removed, kept = drains
    tracker.replace([removed, kept], [kept], range(3))
    tracker.on_drained(0, removed.address)
    tracker.replace([kept], [kept, *tracker.sockets], range(3))
    for worker in (1, 2):
        tracker.on_drained(worker, removed.address)
    assert _is_open(removed)
    assert tracker.sockets == []


def test_closing_the_tracker_closes_what_still_drains(drains):
    tracker, removed, kept = drains
    tracker.replace([removed, kept], [kept], range(3))
    tracker.close()
    assert not _is_open(removed)
    assert _is_open(kept)
