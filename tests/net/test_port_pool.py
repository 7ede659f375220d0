"""Ports from a range: random, unique and released."""

import socket
from contextlib import ExitStack
from itertools import pairwise

import pytest

from tests.net.test_udp import Readers, RecordingProtocol
from tests.support.daemons import own_address
from tests.support.fakes import MemoryServer
from tftpd.net.port_pool import PortRange, PortRequirements, PortsExhausted
from tftpd.net.sockets import bind_session
from tftpd.net.udp import SessionPort
from tftpd.protocol.packets import Data, Rrq, Wrq
from tftpd.protocol.result import Outcome

# An address that no other test uses, with ports below the kernel's ephemeral range.
LOCAL = (own_address(), 0)
LOW, HIGH = 21000, 21199


@pytest.fixture
def stack():
    with ExitStack() as opened:
        yield opened


def _needs(ports):
    return PortRequirements(max_datagram_bytes=100, window_bytes=100, receives=False, ports=ports)


def _open_port(stack, ports):
    port = SessionPort(
        Readers(), bind_session(LOCAL, _needs(ports)), RecordingProtocol(), _needs(ports)
    )
    port.start()
    stack.callback(port.stopListening)
    return port


def test_every_number_of_the_range_is_used_once_in_random_order(stack):
    ports = PortRange(LOW, HIGH)
    numbers = [_open_port(stack, ports).getHost().port for _ in range(LOW, HIGH + 1)]
    assert sorted(numbers) == list(range(LOW, HIGH + 1))
    assert sum(abs(a - b) == 1 for a, b in pairwise(numbers)) < 20


def test_two_ranges_give_different_orders(stack):
    first, second = PortRange(LOW, HIGH), PortRange(LOW + 1000, HIGH + 1000)
    one = [_open_port(stack, first).getHost().port for _ in range(20)]
    two = [_open_port(stack, second).getHost().port - 1000 for _ in range(20)]
    assert one != two


def test_an_exhausted_range_raises_until_a_port_closes(stack):
    ports = PortRange(LOW, LOW + 1)
    first, _ = (_open_port(stack, ports) for _ in range(2))
    with pytest.raises(PortsExhausted, match=f"all ports from {LOW} to {LOW + 1} are taken"):
        _open_port(stack, ports)
    number = first.getHost().port
    first.stopListening()
    first.stopListening()
    assert _open_port(stack, ports).getHost().port == number
    with pytest.raises(PortsExhausted):
        _open_port(stack, ports)


def test_numbers_that_other_processes_use_are_skipped(stack):
    others, ours = PortRange(LOW, LOW + 9), PortRange(LOW, LOW + 9)
    for _ in range(5):
        _open_port(stack, others)
    taken = {_open_port(stack, ours).getHost().port for _ in range(5)}
    assert len(taken) == 5
    with pytest.raises(PortsExhausted):
        _open_port(stack, ours)


def test_one_request_tries_a_bounded_number_of_ports():
    class Taken:
        tries = 0

        def bind(self, name):
            self.tries += 1
            raise OSError(98, "Address already in use")

    sock = Taken()
    with pytest.raises(PortsExhausted):
        PortRange(1024, 65535).bind(sock, LOCAL)
    assert sock.tries == 64


def test_an_address_of_another_host_raises_a_different_error():
    with (
        pytest.raises(OSError, match="assign") as failed,
        bind_session(("192.0.2.1", 0), _needs(PortRange(LOW, HIGH))),
    ):
        pass
    assert not isinstance(failed.value, PortsExhausted)


def test_a_connected_socket_has_the_same_port_number(stack):
    ports = PortRange(LOW, LOW)
    session = _open_port(stack, ports)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(LOCAL)
        for _ in range(20):
            session.writeBurst(b"x", 100, peer.getsockname())
        assert {peer.recvfrom(10)[1][1] for _ in range(20)} == {LOW}
    session.stopListening()
    _open_port(stack, ports)


@pytest.mark.parametrize("request_", [Rrq(b"kilo", b"octet"), Wrq(b"in/new", b"octet")])
def test_a_request_is_dropped_if_all_ports_are_taken_and_its_repeat_is_served(
    offer, root, request_
):
    server = MemoryServer(offer, ports=PortRange(LOW, HIGH))
    server.net.ports_exhausted = True
    client = server.client()
    assert client.request(request_) == []
    assert server.idle
    assert list((root / "in").iterdir()) == []
    (report,) = server.reports
    assert (report.outcome, report.detail) == (Outcome.DROPPED, "all ports are taken")
    server.net.ports_exhausted = False
    assert len(client.request(request_)) == 1
    if isinstance(request_, Wrq):
        client.send(Data(1, b"x"))
