"""Sessions on a listening port, over real sockets."""

import socket

import pytest
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from zope.interface.verify import verifyClass

from tests.net.test_udp import Heard, Readers
from tftpd.net.interfaces import BurstProtocol, BurstTransport, PortRequirements
from tftpd.net.rate_limit import RequestThrottle
from tftpd.net.sockets import bind_listeners
from tftpd.server.admission import DropCounters
from tftpd.server.fair_queue import RequestQueue
from tftpd.server.listening_port import ListeningPort, SharedPortTransport

LOCK_STEP = PortRequirements(max_datagram_bytes=516, window_bytes=516, receives=False)
WINDOWS = PortRequirements(max_datagram_bytes=517, window_bytes=8 * 517, receives=True)
ACK = b"\0\4\0\1"


class Session(BurstProtocol):
    """Keeps what it gets, by calls."""

    noisy = False

    def __init__(self):
        self.heard = []
        self.stopped = 0

    def datagramReceived(self, datagram, peer):
        self.heard.append(datagram)

    def burstReceived(self, datagrams, peer):
        self.heard.append(list(datagrams))

    def stopProtocol(self):
        self.stopped += 1


class Shared:
    """A listening port, a client at it, and the session of that client."""

    def __init__(self, bound="127.0.0.1", asked="127.0.0.1", needs=LOCK_STEP):
        (sock,) = bind_listeners(bound, 0)
        self.clock = Clock()
        self.throttle = RequestThrottle(self.clock.seconds)
        self.drops = DropCounters()
        queue = RequestQueue(self.throttle, self.clock, self.drops)
        self.port = ListeningPort(Readers(), sock, Heard(), queue, self.throttle.transfer_active)
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
    for each in made:
        each.close()


def test_the_ports_implement_their_interfaces():
    verifyClass(BurstTransport, SharedPortTransport)
    verifyClass(IReadDescriptor, ListeningPort)


@pytest.mark.parametrize(
    ("bound", "asked"),
    [("0.0.0.0", "127.0.0.9"), ("127.0.0.9", "127.0.0.9"), ("::", "::1"), ("::1", "::1")],
)
def test_sessions_send_from_the_listening_port_and_the_local_address_of_the_request(
    shared, bound, asked
):
    here = shared(bound, asked)
    blocks = [bytes([number]) * 516 for number in range(70)] + [b"end"]
    here.session.transport.writeBurst(b"".join(blocks), 516, here.tid[0])
    here.session.transport.write(b"one", here.tid[0])
    here.session.transport.writeBurst(b"two", 3, here.tid[0])
    came = [here.client.recvfrom(1000) for _ in range(73)]
    assert [datagram for datagram, _ in came] == [*blocks, b"one", b"two"]
    assert {source[:2] for _, source in came} == {here.address}
    host = here.session.transport.getHost()
    assert (host.host, host.port) == here.address


def test_blocks_larger_than_the_path_mtu_may_be_fragmented(shared):
    here = shared("0.0.0.0", "127.0.0.1")
    here.session.transport.writeBurst(b"x" * 65468, 65468, here.tid[0])
    assert len(here.client.recv(70000)) == 65468
    assert here.port._socket.getsockopt(socket.IPPROTO_IP, 10) == 0  # IP_PMTUDISC_DONT


def test_send_errors_are_ignored(shared):
    here = shared()
    here.session.transport.writeBurst(b"x" * 70000, 70000, here.tid[0])
    here.port._socket.close()
    here.session.transport.write(b"x", here.tid[0])


def test_datagrams_are_dispatched_to_the_session_and_requests_to_the_listener(shared):
    here = shared()
    here.port._protocol.datagrams.clear()
    here.send(ACK)
    here.send(b"\0\2file")
    assert here.session.heard == [ACK]
    assert [datagram for datagram, _, _ in here.port._protocol.datagrams] == [b"\0\2file"]


def test_a_single_lockstep_client_is_read_once_per_event(shared):
    here = shared()
    here.send(ACK, b"\0\4\0\2")
    assert here.session.heard == [ACK]
    here.port.doRead()
    assert here.session.heard == [ACK, b"\0\4\0\2"]


def test_blocks_of_a_window_are_delivered_together(shared):
    here = shared(needs=WINDOWS)
    blocks = [b"\0\3\0" + bytes([number]) for number in range(1, 8)]
    here.send(*blocks)
    assert here.session.heard == [blocks]


def test_the_end_of_a_session_leaves_the_socket_open(shared):
    here = shared()
    here.session.transport.stopListening()
    assert here.session.stopped == 1
    here.port._protocol.datagrams.clear()
    here.send(ACK, b"\0\1")
    assert here.session.heard == []
    assert [datagram for datagram, _, _ in here.port._protocol.datagrams] == [ACK, b"\0\1"]


def test_a_draining_port_closes_with_its_last_session(shared):
    here, left = shared(), []
    here.port._protocol.datagrams.clear()
    here.port.stop_accepting(lambda: left.append(here.port.fileno()))
    here.send(b"\0\1")
    here.send(ACK)
    assert (here.session.heard, here.port._protocol.datagrams, left) == ([ACK], [], [])
    transport = here.session.transport
    transport.stopListening()
    transport.stopListening()
    assert left == [-1]
    assert here.port._readers.reading == set()
    assert (here.session.stopped, here.port._protocol.stopped) == (1, 1)


def test_a_draining_port_without_sessions_closes_at_once(shared):
    here, left = shared(), []
    here.session.transport.stopListening()
    here.port.stop_accepting(lambda: left.append(True))
    assert left == [True]


def test_a_draining_port_can_accept_requests_again(shared):
    here, left = shared(), []
    here.port.stop_accepting(lambda: left.append(True))
    here.port.resume()
    here.port._protocol.datagrams.clear()
    here.send(b"\0\1")
    here.session.transport.stopListening()
    here.send(b"\0\2")
    assert [datagram for datagram, _, _ in here.port._protocol.datagrams] == [b"\0\1", b"\0\2"]
    assert (left, here.port.fileno() > 0) == ([], True)


def test_uploads_share_the_receive_buffer(shared):
    here = shared(needs=WINDOWS)
    buffer = here.port._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert here.port.upload_window_budget == buffer // 4 // 2
    here.session.transport.stopListening()
    assert here.port.upload_window_budget == buffer // 4


def test_a_shared_port_cannot_be_connected_or_broadcast(shared):
    transport = shared().session.transport
    transport.setBroadcastAllowed(True)
    assert not transport.getBroadcastAllowed()
    with pytest.raises(RuntimeError):
        transport.connect("127.0.0.1", 9)


def test_a_flooding_client_does_not_fill_the_socket_buffer(shared):
    here = shared()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as honest:
        honest.bind(("127.0.0.2", 0))
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with stranger:
            for _ in range(60):
                stranger.sendto(b"\0\1much", here.address)
        honest.sendto(b"\0\1once", here.address)
        here.port.doRead()
        here.clock.advance(0)
    heard = [datagram for datagram, _, _ in here.port._protocol.datagrams[1:]]
    assert heard.index(b"\0\1once") < 3
    assert len(heard) == 61


def test_the_throttle_delays_requests_and_not_sessions(shared):
    here = shared()
    here.throttle.transfer_active()
    here.throttle.charge(0.001)
    here.send(b"\0\1again", ACK)
    assert here.session.heard == [ACK]
    assert len(here.port._protocol.datagrams) == 1
    here.clock.advance(0.0031)
    assert [datagram for datagram, _, _ in here.port._protocol.datagrams[1:]] == [b"\0\1again"]


def test_datagrams_of_sessions_make_transfers_active(shared):
    here = shared()
    here.send(b"\0\1again")
    here.throttle.charge(0.001)
    assert here.throttle.delay == 0
    here.send(ACK)
    here.throttle.charge(0.001)
    assert here.throttle.delay > 0


@pytest.mark.parametrize("end", ["stop_accepting", "stopListening"])
def test_a_port_that_stops_accepting_clears_its_queue(shared, end):
    here = shared()
    here.throttle.transfer_active()
    here.throttle.charge(0.001)
    here.send(b"\0\1again")
    getattr(here.port, end)(*([lambda: None] if end == "stop_accepting" else []))
    assert not here.clock.getDelayedCalls()
    here.clock.advance(1)
    assert len(here.port._protocol.datagrams) == 1
