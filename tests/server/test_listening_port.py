"""Sessions on a listening port with real sockets."""

import socket

import pytest
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from zope.interface.verify import verifyClass

from tests.net.test_udp import Readers, RecordingProtocol
from tests.support.programs import needs_linux
from tftpd.net.interfaces import BurstProtocol, BurstTransport
from tftpd.net.port_pool import PortRequirements
from tftpd.net.rate_limit import RequestThrottle
from tftpd.net.sockets import bind_listeners
from tftpd.server.admission import DropCounters
from tftpd.server.fair_queue import RequestQueue
from tftpd.server.listening_port import ListeningPort, SharedPortTransport

LOCK_STEP = PortRequirements(max_datagram_bytes=516, window_bytes=516, receives=False)
WINDOWS = PortRequirements(max_datagram_bytes=517, window_bytes=8 * 517, receives=True)
ACK = b"\0\4\0\1"


class Session(BurstProtocol):
    """Protocol that keeps what each call delivers."""

    noisy = False

    def __init__(self):
        self.received = []
        self.stopped = 0

    def datagramReceived(self, datagram, peer):
        self.received.append(datagram)

    def burstReceived(self, datagrams, peer):
        self.received.append(list(datagrams))

    def stopProtocol(self):
        self.stopped += 1


class Shared:
    """Listening port, a client, and the session of that client."""

    def __init__(self, bound="127.0.0.1", asked="127.0.0.1", needs=LOCK_STEP):
        (sock,) = bind_listeners(bound, 0)
        self.clock = Clock()
        self.throttle = RequestThrottle(self.clock.seconds)
        self.drops = DropCounters()
        queue = RequestQueue(self.throttle, self.clock, self.drops)
        self.port = ListeningPort(Readers(), sock, RecordingProtocol(), queue, self.throttle)
        self.port.start()
        self.address = (asked, sock.getsockname()[1])
        self.client = socket.socket(sock.family, socket.SOCK_DGRAM)
        self.client.settimeout(5)
        self.session = Session()
        self.send(b"\0\1")
        ((_, peer, local),) = self.port._protocol.datagrams
        self.tid = (peer, local)
        self.port.attach_session(self.session, self.tid, needs)

    def send(self, *datagrams):
        for datagram in datagrams:
            self.client.sendto(datagram, self.address)
        self.port.doRead()

    def close(self):
        self.client.close()
        self.port.stopListening()


@pytest.fixture
def shared():
    made = []

    def make(*args, **kwargs):
        made.append(Shared(*args, **kwargs))
        return made[-1]

    yield make
    for fixture in made:
        fixture.close()


def test_the_ports_implement_their_interfaces():
    verifyClass(BurstTransport, SharedPortTransport)
    verifyClass(IReadDescriptor, ListeningPort)


@needs_linux
@pytest.mark.parametrize(
    ("bound", "asked"),
    [("0.0.0.0", "127.0.0.9"), ("127.0.0.9", "127.0.0.9"), ("::", "::1"), ("::1", "::1")],
)
def test_sessions_send_from_the_listening_port_and_the_local_address_of_the_request(
    shared, bound, asked
):
    fixture = shared(bound, asked)
    blocks = [bytes([number]) * 516 for number in range(70)] + [b"end"]
    fixture.session.transport.writeBurst(b"".join(blocks), 516, fixture.tid[0])
    fixture.session.transport.write(b"one", fixture.tid[0])
    fixture.session.transport.writeBurst(b"two", 3, fixture.tid[0])
    came = [fixture.client.recvfrom(1000) for _ in range(73)]
    assert [datagram for datagram, _ in came] == [*blocks, b"one", b"two"]
    assert {source[:2] for _, source in came} == {fixture.address}
    host = fixture.session.transport.getHost()
    assert (host.host, host.port) == fixture.address


@needs_linux
def test_blocks_larger_than_the_path_mtu_may_be_fragmented(shared):
    fixture = shared("0.0.0.0", "127.0.0.1")
    fixture.session.transport.writeBurst(b"x" * 65468, 65468, fixture.tid[0])
    assert len(fixture.client.recv(70000)) == 65468
    assert fixture.port._socket.getsockopt(socket.IPPROTO_IP, 10) == 5  # IP_PMTUDISC_OMIT


def test_send_errors_are_ignored(shared):
    fixture = shared()
    fixture.session.transport.writeBurst(b"x" * 70000, 70000, fixture.tid[0])
    fixture.port._socket.close()
    fixture.session.transport.write(b"x", fixture.tid[0])


def test_datagrams_are_dispatched_to_the_session_and_requests_to_the_listener(shared):
    fixture = shared()
    fixture.port._protocol.datagrams.clear()
    fixture.send(ACK)
    fixture.send(b"\0\2file")
    assert fixture.session.received == [ACK]
    assert [datagram for datagram, _, _ in fixture.port._protocol.datagrams] == [b"\0\2file"]


def test_a_single_lockstep_client_is_read_once_per_event(shared):
    fixture = shared()
    fixture.send(ACK, b"\0\4\0\2")
    assert fixture.session.received == [ACK]
    fixture.port.doRead()
    assert fixture.session.received == [ACK, b"\0\4\0\2"]


def test_blocks_of_a_window_are_delivered_together(shared):
    fixture = shared(needs=WINDOWS)
    blocks = [b"\0\3\0" + bytes([number]) for number in range(1, 8)]
    fixture.send(*blocks)
    assert fixture.session.received == [blocks]


def test_the_end_of_a_session_leaves_the_socket_open(shared):
    fixture = shared()
    fixture.session.transport.stopListening()
    assert fixture.session.stopped == 1
    fixture.port._protocol.datagrams.clear()
    fixture.send(ACK, b"\0\1")
    assert fixture.session.received == []
    assert [datagram for datagram, _, _ in fixture.port._protocol.datagrams] == [ACK, b"\0\1"]


def test_a_draining_port_closes_with_its_last_session(shared):
    fixture, drained = shared(), []
    fixture.port._protocol.datagrams.clear()
    fixture.port.stop_accepting(lambda: drained.append(fixture.port.fileno()))
    fixture.send(b"\0\1")
    fixture.send(ACK)
    assert (fixture.session.received, fixture.port._protocol.datagrams, drained) == ([ACK], [], [])
    transport = fixture.session.transport
    transport.stopListening()
    transport.stopListening()
    assert drained == [-1]
    assert fixture.port._readers.reading == set()
    assert (fixture.session.stopped, fixture.port._protocol.stopped) == (1, 1)


def test_a_draining_port_without_sessions_closes_at_once(shared):
    fixture, drained = shared(), []
    fixture.session.transport.stopListening()
    fixture.port.stop_accepting(lambda: drained.append(True))
    assert drained == [True]


def test_a_draining_port_can_accept_requests_again(shared):
    fixture, drained = shared(), []
    fixture.port.stop_accepting(lambda: drained.append(True))
    fixture.port.resume()
    fixture.port._protocol.datagrams.clear()
    fixture.send(b"\0\1")
    fixture.session.transport.stopListening()
    fixture.send(b"\0\2")
    assert [datagram for datagram, _, _ in fixture.port._protocol.datagrams] == [b"\0\1", b"\0\2"]
    assert (drained, fixture.port.fileno() > 0) == ([], True)


def test_uploads_share_the_receive_buffer(shared):
    fixture = shared(needs=WINDOWS)
    buffer = fixture.port._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert fixture.port.upload_window_budget == buffer // 4 // 2
    fixture.session.transport.stopListening()
    assert fixture.port.upload_window_budget == buffer // 4


def test_a_shared_port_cannot_be_connected_or_broadcast(shared):
    transport = shared().session.transport
    transport.setBroadcastAllowed(True)
    assert not transport.getBroadcastAllowed()
    with pytest.raises(RuntimeError):
        transport.connect("127.0.0.1", 9)


def test_a_flooding_client_does_not_fill_the_socket_buffer(shared):
    fixture = shared()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as normal:
        normal.bind(("127.0.0.2", 0))
        flooding = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with flooding:
            for number in range(60):
                flooding.sendto(b"\0\1much%d" % number, fixture.address)
        normal.sendto(b"\0\1once", fixture.address)
        fixture.port.doRead()
        fixture.clock.advance(0)
    received = [datagram for datagram, _, _ in fixture.port._protocol.datagrams[1:]]
    assert received.index(b"\0\1once") < 3
    assert len(received) == 61


def test_the_throttle_delays_requests_and_not_sessions(shared):
    fixture = shared()
    fixture.throttle.transfer_active()
    fixture.throttle.charge(0.001)
    fixture.send(b"\0\1again", ACK)
    assert fixture.session.received == [ACK]
    assert len(fixture.port._protocol.datagrams) == 1
    fixture.clock.advance(0.0031)
    assert [datagram for datagram, _, _ in fixture.port._protocol.datagrams[1:]] == [b"\0\1again"]


def test_datagrams_of_sessions_make_transfers_active(shared):
    fixture = shared()
    fixture.send(b"\0\1again")
    fixture.throttle.charge(0.001)
    assert fixture.throttle.delay == 0
    fixture.send(ACK)
    fixture.throttle.charge(0.001)
    assert fixture.throttle.delay > 0


@pytest.mark.parametrize("end", ["stop_accepting", "stopListening"])
def test_a_port_that_stops_accepting_clears_its_queue(shared, end):
    fixture = shared()
    fixture.throttle.transfer_active()
    fixture.throttle.charge(0.001)
    fixture.send(b"\0\1again")
    getattr(fixture.port, end)(*([lambda: None] if end == "stop_accepting" else []))
    assert not fixture.clock.getDelayedCalls()
    fixture.clock.advance(1)
    assert len(fixture.port._protocol.datagrams) == 1


def test_a_repeated_request_is_handled_before_the_datagrams_that_follow_it(shared):
    """Otherwise it could start another session after the last ACK of its own one."""
    fixture = shared()
    handled = []
    fixture.port._protocol.requestRepeated = lambda incoming: (
        handled.append((incoming.datagram, list(fixture.session.received))) or True
    )
    fixture.send(b"\0\1repeated\0", ACK)
    assert handled == [(b"\0\1repeated\0", [])]
    assert fixture.session.received == [ACK]
    assert len(fixture.port._protocol.datagrams) == 1


def test_a_few_requests_are_handled_at_once_in_the_order_of_their_arrival(shared):
    fixture = shared()
    fixture.send(*(b"\0\1%d\0" % number for number in range(8)))
    received = [datagram for datagram, _, _ in fixture.port._protocol.datagrams[1:]]
    assert received == [b"\0\1%d\0" % number for number in range(8)]
    assert not fixture.clock.getDelayedCalls()


def test_the_requests_after_an_expensive_one_wait(shared):
    fixture = shared()
    receive = fixture.port._protocol.requestReceived

    def expensive(incoming):
        receive(incoming)
        fixture.throttle.transfer_active()
        fixture.throttle.charge(0.001)

    fixture.port._protocol.requestReceived = expensive
    fixture.send(b"\0\1one\0", b"\0\1two\0")
    assert [datagram for datagram, _, _ in fixture.port._protocol.datagrams[1:]] == [b"\0\1one\0"]
    fixture.clock.advance(0.0031)
    assert len(fixture.port._protocol.datagrams) == 3
