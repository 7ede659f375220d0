"""Throttle of requests while transfers are active."""

from dataclasses import replace

import pytest
from twisted.internet.task import Clock

from tests.support.fakes import MemoryNet, MemoryServer
from tftpd.net.rate_limit import RequestThrottle
from tftpd.protocol.packets import Ack, Rrq, Wrq
from tftpd.server.admission import AdmissionLimits


class Time:
    """Clock that a test advances."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def throttle(time):
    return RequestThrottle(time)


def test_requests_do_not_wait_without_active_transfers(throttle):
    throttle.charge(0.001)
    assert throttle.delay == 0


def test_requests_are_delayed_for_three_times_the_charged_time(throttle, time):
    throttle.transfer_active()
    throttle.charge(0.001)
    time.now += 0.0029
    assert throttle.delay > 0
    time.now += 0.0002
    assert throttle.delay == 0


def test_charges_add_up(throttle, time):
    throttle.transfer_active()
    throttle.charge(0.001)
    throttle.charge(0.001)
    time.now += 0.003
    assert throttle.delay > 0


def test_inactive_transfers_do_not_delay_requests(throttle, time):
    throttle.transfer_active()
    throttle.charge(0.01)
    time.now += 0.004
    assert throttle.delay > 0
    time.now += 0.002
    assert throttle.delay == 0
    throttle.transfer_active()
    assert throttle.delay > 0


def test_the_delay_is_at_most_50_ms(throttle, time):
    throttle.transfer_active()
    throttle.charge(3600.0)
    time.now += 0.051
    throttle.transfer_active()
    assert throttle.delay == 0


class Busy(Clock):
    """Clock on which each call of `seconds` takes a microsecond."""

    def seconds(self):
        self.rightNow += 1e-6
        return self.rightNow


@pytest.fixture
def charging(offer):
    """A server for two half-open sessions, and the CPU seconds that it has charged."""
    charged = []
    limits = AdmissionLimits(sessions=100, half_open=2)
    net = MemoryNet()
    net.clock = Busy()
    server = MemoryServer(lambda report: replace(offer(report), admission=limits), net)
    server.listener._runtime = replace(net.runtime, charge_wasted_cpu=charged.append)
    return server, charged


def test_a_request_that_becomes_a_transfer_is_not_charged(charging):
    server, charged = charging
    client = server.client()
    client.request(Rrq(b"seven", b"octet"))
    client.send(Ack(1))
    assert charged == []
    assert server.idle


@pytest.mark.parametrize(
    "datagram",
    [Rrq(b"none", b"octet").encode(), b"", b"\0\1x", Ack(1).encode(), Wrq(b"x", b"octet").encode()],
)
def test_a_datagram_that_starts_no_transfer_is_charged(charging, datagram):
    server, charged = charging
    server.client().request(datagram)
    assert len(charged) == 1
    assert charged[0] > 0


def test_a_request_that_replaces_an_unanswered_session_is_charged(charging):
    server, charged = charging
    client = server.client()
    client.request(Rrq(b"kilo", b"octet"))
    assert charged == []
    client.request(Rrq(b"seven", b"octet"))
    assert len(charged) == 1
    client.send(Ack(1))
    assert server.idle


def test_a_request_that_evicts_a_session_is_charged(charging):
    server, charged = charging
    for port in (1, 2):
        server.client(port=port).request(Rrq(b"seven", b"octet"))
    assert charged == []
    server.client(port=3).request(Rrq(b"seven", b"octet"))
    assert len(charged) == 1
    server.advance(60)
    assert server.idle
