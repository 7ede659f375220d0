"""What requests and transfers get of the time."""

from dataclasses import replace

import pytest
from twisted.internet.task import Clock

from tests.support.fakes import MemoryServer
from tftpd.net.rate_limit import RequestThrottle
from tftpd.protocol.packets import Ack, Rrq, Wrq
from tftpd.server.admission import AdmissionLimits


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
    return RequestThrottle(time)


def test_requests_wait_for_nobody(share):
    share.charge(0.001)
    assert share.delay == 0


def test_transfers_get_three_times_what_was_spent_on_requests(share, time):
    share.transfer_active()
    share.charge(0.001)
    time.now += 0.0029
    assert share.delay > 0
    time.now += 0.0002
    assert share.delay == 0


def test_what_was_spent_in_threads_counts_too(share, time):
    share.transfer_active()
    share.charge(0.001)
    share.charge(0.001)
    time.now += 0.003
    assert share.delay > 0


def test_transfers_that_have_nothing_to_do_hold_up_nobody(share, time):
    share.transfer_active()
    share.charge(0.01)
    time.now += 0.004
    assert share.delay > 0
    time.now += 0.002
    assert share.delay == 0
    share.transfer_active()
    assert share.delay > 0


def test_no_request_waits_for_long(share, time):
    share.transfer_active()
    share.charge(3600.0)
    time.now += 0.051
    share.transfer_active()
    assert share.delay == 0


class Busy(Clock):
    """A clock by which each look takes a microsecond."""

    def seconds(self):
        self.rightNow += 1e-6
        return self.rightNow


@pytest.fixture
def spent(offer):
    """A server with room for two that were never answered, and what it spent in vain."""
    told = []
    crowd = AdmissionLimits(sessions=100, half_open=2)
    server = MemoryServer(lambda report: replace(offer(report), admission=crowd))
    runtime = replace(server.net.runtime, clock=Busy(), charge_wasted_cpu=told.append)
    server.listener._runtime = runtime
    return server, told


def test_a_request_that_becomes_a_transfer_is_free(spent):
    server, told = spent
    client = server.client()
    client.asks(Rrq(b"seven", b"octet"))
    client.says(Ack(1))
    assert told == []
    assert server.idle


@pytest.mark.parametrize(
    "datagram",
    [Rrq(b"none", b"octet").encode(), b"", b"\0\1x", Ack(1).encode(), Wrq(b"x", b"octet").encode()],
)
def test_what_comes_to_nothing_is_counted(spent, datagram):
    server, told = spent
    server.client().asks(datagram)
    assert len(told) == 1
    assert told[0] > 0


def test_a_request_for_which_another_has_to_give_way_is_counted(spent):
    server, told = spent
    for port in (1, 2):
        server.client(port=port).asks(Rrq(b"seven", b"octet"))
    assert told == []
    server.client(port=3).asks(Rrq(b"seven", b"octet"))
    assert len(told) == 1
    server.waits(60)
    assert server.idle
