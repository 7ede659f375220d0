"""What requests and transfers get of the time."""

import pytest

from tftpd.net.sharing import Share


class Time:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def share(time):
    return Share(time)


def test_requests_wait_for_nobody(share):
    share.spend(0.001)
    assert not share.rests


def test_transfers_get_twice_what_was_spent_on_requests(share, time):
    share.served()
    share.spend(0.001)
    time.now += 0.0019
    assert share.rests
    time.now += 0.0002
    assert not share.rests


def test_what_was_spent_in_threads_counts_too(share, time):
    share.served()
    share.spend(0.001)
    share.spend(0.001)
    time.now += 0.003
    assert share.rests


def test_transfers_that_have_nothing_to_do_hold_up_nobody(share, time):
    share.served()
    share.spend(0.01)
    time.now += 0.004
    assert share.rests
    time.now += 0.002
    assert not share.rests
    share.served()
    assert share.rests


def test_no_request_waits_for_long(share, time):
    share.served()
    share.spend(3600.0)
    time.now += 0.051
    share.served()
    assert not share.rests
