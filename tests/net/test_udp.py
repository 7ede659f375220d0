"""Ports on loopback sockets; each test calls `doRead` itself."""

import errno
import socket

import pytest
from twisted.internet.interfaces import IReadDescriptor, IUDPTransport
from twisted.internet.task import Clock as WallClock
from zope.interface.verify import verifyClass

from tests.support.programs import needs_linux
from tftpd.net import udp
from tftpd.net.interfaces import BurstProtocol, MonotonicClock
from tftpd.net.port_pool import PortRequirements
from tftpd.net.rate_limit import RequestThrottle
from tftpd.net.sockets import bind_listeners, bind_session, client_address
from tftpd.net.udp import SessionPort, UDPPort
from tftpd.server.admission import DropCounters
from tftpd.server.fair_queue import RequestQueue
from tftpd.server.listening_port import ListeningPort

NEEDS = PortRequirements(max_datagram_bytes=100, window_bytes=100, receives=False)


class Readers:
    """Registry of readers, the part of a reactor that a port uses."""

    def __init__(self):
        self.reading = set()

    def addReader(self, reader):
        self.reading.add(reader)

    def removeReader(self, reader):
        self.reading.discard(reader)


class RecordingProtocol(BurstProtocol):
    noisy = False

    def __init__(self):
        self.datagrams = []
        self.stopped = 0

    def datagramReceived(self, datagram, peer):
        self.datagrams.append((datagram, peer, None))

    def requestRepeated(self, incoming):
        return False

    def requestReceived(self, incoming):
        self.datagrams.append((incoming.datagram, incoming.peer, incoming.local))
        self.was_broadcast = incoming.broadcast

    def stopProtocol(self):
        self.stopped += 1


def listening(readers, sock, protocol):
    """Return a listening port whose requests are never delayed."""
    throttle = RequestThrottle()
    queue = RequestQueue(throttle, WallClock(), DropCounters())
    return ListeningPort(readers, sock, protocol, queue, throttle)


@pytest.fixture
def opened():
    """Opens ports and closes them after the test."""
    ends = []

    def open_port(sock, kind=listening, *size):
        port = kind(Readers(), sock, RecordingProtocol(), *size)
        port.start()
        ends.append(port)
        return port

    yield open_port
    for port in ends:
        port.stopListening()


def _say(datagram, family, to, source=None):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if source is not None:
            sock.bind(source)
        sock.sendto(datagram, to)
        return sock.getsockname()


def test_the_port_implements_the_interfaces_of_twisted():
    verifyClass(IUDPTransport, UDPPort)
    verifyClass(IReadDescriptor, UDPPort)


@pytest.mark.parametrize("asked", ["127.0.0.1", "127.0.0.2", "127.1.2.3"])
def test_a_wildcard_port_reports_the_local_address_of_a_request(opened, asked):
    port = opened(*bind_listeners("0.0.0.0", 0))
    _say(b"hi", socket.AF_INET, (asked, port.getHost().port))
    port.doRead()
    ((datagram, peer, local),) = port._protocol.datagrams
    assert (datagram, peer[0], local[0]) == (b"hi", "127.0.0.1", asked)
    assert not port._protocol.was_broadcast


def test_an_ipv6_wildcard_port_reports_the_local_address_and_ignores_ipv4(opened):
    port = opened(*bind_listeners("::", 0))
    number = port.getHost().port
    _say(b"hi", socket.AF_INET6, ("::1", number))
    port.doRead()
    ((_, peer, local),) = port._protocol.datagrams
    assert (peer[0], local) == ("::1", ("::1", 0, 0, 0))
    opened(*bind_listeners("0.0.0.0", number))


def test_a_session_sends_from_the_local_address_of_its_request(opened):
    port = opened(*bind_listeners("0.0.0.0", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        client.settimeout(2)
        client.sendto(b"hi", ("127.0.0.9", port.getHost().port))
        port.doRead()
        session = opened(bind_session(port._protocol.datagrams[0][2], NEEDS), UDPPort, 100)
        session.write(b"there", client.getsockname())
        assert client.recvfrom(100) == (b"there", ("127.0.0.9", session.getHost().port))


@needs_linux
def test_the_listening_port_replies_from_the_local_address_of_each_request(opened):
    port = opened(*bind_listeners("0.0.0.0", 0))
    number = port.getHost().port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        client.settimeout(2)
        for asked in ("127.0.0.9", "127.0.0.8"):
            client.sendto(b"hi", (asked, number))
        port.doRead()
        for _, peer, local in port._protocol.datagrams:
            port.reply(b"x" * 70000, (peer, local))
            port.reply(b"there", (peer, local))
            assert client.recvfrom(100) == (b"there", (local[0], number))


@needs_linux
def test_a_broadcast_datagram_is_recognised(opened):
    port = opened(*bind_listeners("0.0.0.0", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.sendto(b"all", ("127.255.255.255", port.getHost().port))
    port.doRead()
    assert len(port._protocol.datagrams) == 1
    assert port._protocol.was_broadcast
    assert port._protocol.datagrams[0][2][0] == "127.0.0.1"


def test_a_send_error_is_ignored(opened):
    port = opened(bind_session(("127.0.0.1", 0), NEEDS), UDPPort, 100)
    port.write(b"x" * 70000, ("127.0.0.1", 9))
    port.write(b"x", ("127.0.0.1", 0))
    port.write(b"x")


def test_a_session_port_reads_one_datagram_per_event(opened):
    port = opened(bind_session(("127.0.0.1", 0), NEEDS), SessionPort, NEEDS)
    for datagram in (b"a", b"b"):
        _say(datagram, socket.AF_INET, ("127.0.0.1", port.getHost().port))
    port.doRead()
    assert [datagram for datagram, _, _ in port._protocol.datagrams] == [b"a"]
    port.doRead()
    port.doRead()
    assert [datagram for datagram, _, _ in port._protocol.datagrams] == [b"a", b"b"]


@pytest.mark.parametrize("is_connected", [False, True], ids=["one socket", "connected socket"])
def test_read_pending_delivers_all_that_waits(opened, is_connected):
    port = opened(bind_session(("127.0.0.1", 0), NEEDS), SessionPort, NEEDS)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        if is_connected:
            port.connectForLoan(peer.getsockname())
        for datagram in (b"a", b"b"):
            peer.sendto(datagram, ("127.0.0.1", port.getHost().port))
        port.readPending()
    assert [datagram for datagram, _, _ in port._protocol.datagrams] == [b"a", b"b"]
    port.stopListening()
    port.readPending()


def test_session_ports_send_and_receive_bursts(opened):
    needs = PortRequirements(max_datagram_bytes=517, window_bytes=20 * 517, receives=True)
    one, two = (opened(bind_session(("127.0.0.1", 0), needs), SessionPort, needs) for _ in "12")
    burst = [bytes([n]) * 516 for n in range(19)] + [b"end"]
    one.writeBurst(b"".join(burst), 516, ("127.0.0.1", two.getHost().port))
    for _ in burst:
        two.doRead()
    assert [datagram for datagram, _, _ in two._protocol.datagrams] == burst


@pytest.fixture(params=["127.0.0.1", "::1"])
def connected_pair(opened, request):
    """A session's port with a connected socket, and the port of its peer."""
    local = (request.param, 0) if request.param == "127.0.0.1" else (request.param, 0, 0, 0)
    session = opened(bind_session(local, NEEDS), SessionPort, NEEDS)
    peer = opened(bind_session(local, NEEDS), UDPPort, 100)
    session.connectForLoan(_name(peer))
    return session, peer


def _name(port):
    return port._socket.getsockname()


def _datagrams(port):
    return [datagram for datagram, _, _ in port._protocol.datagrams]


@needs_linux
def test_a_session_that_may_be_lent_receives_on_a_connected_socket(connected_pair):
    session, peer = connected_pair
    peer.write(b"hello", _name(session))
    (connected,) = session._readers.reading - {session}
    connected.doRead()
    assert session._protocol.datagrams == [(b"hello", _name(peer), None)]
    session.doRead()
    connected.doRead()
    assert _datagrams(session) == [b"hello"]
    session.writeBurst(b"answer", 100, _name(peer))
    peer.doRead()
    assert _datagrams(peer) == [b"answer"]


@needs_linux
def test_datagrams_from_other_hosts_still_arrive_on_the_first_socket(connected_pair, opened):
    session, _ = connected_pair
    other = opened(bind_session((*_name(session)[:1], 0, *_name(session)[2:]), NEEDS), UDPPort, 9)
    other.write(b"psst", _name(session))
    (connected,) = session._readers.reading - {session}
    connected.doRead()
    session.doRead()
    assert session._protocol.datagrams == [(b"psst", _name(other), None)]
    session.write(b"no", _name(other))
    other.doRead()
    assert other._protocol.datagrams == [(b"no", _name(session), None)]


@needs_linux
def test_an_upload_with_windows_is_connected_before_the_first_window(opened):
    needs = PortRequirements(max_datagram_bytes=517, window_bytes=4 * 517, receives=True)
    session = opened(bind_session(("127.0.0.1", 0), needs), SessionPort, needs)
    peer = opened(bind_session(("127.0.0.1", 0), NEEDS), UDPPort, 1000)
    session.writeBurst(b"ack", 3, _name(peer))
    (connected,) = session._readers.reading - {session}
    for datagram in (b"a" * 516, b"b" * 516, b"c"):
        peer.write(datagram, _name(session))
    connected.doRead()
    assert _datagrams(session) == [b"a" * 516, b"b" * 516, b"c"]
    peer.doRead()
    assert _datagrams(peer) == [b"ack"]


def test_no_other_socket_can_bind_the_port_of_a_session(connected_pair):
    session, _ = connected_pair
    with socket.socket(session._socket.family, socket.SOCK_DGRAM) as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            thief.bind(_name(session))


def test_the_connected_socket_closes_with_its_port(connected_pair):
    session, _ = connected_pair
    session.stopListening()
    session.stopListening()
    assert session._readers.reading == set()
    assert session._protocol.stopped == 1


def test_datagrams_that_arrived_before_connect_keep_their_source(opened, monkeypatch):
    session = opened(bind_session(("127.0.0.1", 0), NEEDS), SessionPort, NEEDS)
    sources = []

    def twin(sock, peer, needs):
        made = bind_session(("127.0.0.1", 0), needs)
        sources.append(_say(b"early", socket.AF_INET, made.getsockname(), ("127.0.0.1", 0)))
        made.connect(peer)
        return made

    monkeypatch.setattr(udp, "bind_connected_twin", twin)
    session.connectForLoan(("127.0.0.1", 9))
    assert session._protocol.datagrams == [(b"early", sources[0], None)]


def test_a_session_continues_if_no_second_socket_can_be_opened(opened, monkeypatch):
    def none_left(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(udp, "bind_connected_twin", none_left)
    one, two = (opened(bind_session(("127.0.0.1", 0), NEEDS), SessionPort, NEEDS) for _ in "12")
    assert one.connectForLoan(_name(two)) is None
    one.writeBurst(b"x", 100, _name(two))
    two.doRead()
    assert _datagrams(two) == [b"x"]


@pytest.mark.parametrize("receives", [False, True], ids=["download", "upload with windows"])
def test_a_second_socket_that_cannot_be_opened_is_tried_once(opened, monkeypatch, receives):
    tries = []

    def none_left(*_):
        tries.append(1)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(udp, "bind_connected_twin", none_left)
    needs = PortRequirements(max_datagram_bytes=517, window_bytes=4 * 517, receives=receives)
    session = opened(bind_session(("127.0.0.1", 0), needs), SessionPort, needs)
    for _ in range(5):
        session.writeBurst(b"x", 100, ("127.0.0.1", 9))
        session.connectForLoan(("127.0.0.1", 9))
    assert tries == [1]


def test_socket_buffers_hold_a_window():
    for receives, option in ((True, socket.SO_RCVBUF), (False, socket.SO_SNDBUF)):
        needs = PortRequirements(max_datagram_bytes=1473, window_bytes=150_000, receives=receives)
        with bind_session(("127.0.0.1", 0), needs) as sock:
            assert sock.getsockopt(socket.SOL_SOCKET, option) >= 300_000


@needs_linux
def test_blocks_larger_than_the_path_mtu_may_be_fragmented():
    for local in (("127.0.0.1", 0), ("::1", 0, 0, 0)):
        with bind_session(local, NEEDS) as sock:
            # IPV6_PMTUDISC_DONT and IP_PMTUDISC_OMIT: without DF
            level, option, value = (41, 23, 0) if len(local) > 2 else (0, 10, 5)
            assert sock.getsockopt(level, option) == value


def test_one_turn_reads_a_bounded_number_of_datagrams(opened):
    port = opened(bind_session(("127.0.0.1", 0), NEEDS), UDPPort, 100)
    for _ in range(100):
        _say(b"x", socket.AF_INET, ("127.0.0.1", port.getHost().port))
    port.doRead()
    assert len(port._protocol.datagrams) == 64
    port.doRead()
    assert len(port._protocol.datagrams) == 100


def test_requests_are_handled_a_few_per_turn(opened):
    port = opened(*bind_listeners("127.0.0.1", 0))
    for _ in range(20):
        _say(b"x", socket.AF_INET, ("127.0.0.1", port.getHost().port))
    received = []
    for _ in range(3):
        port.doRead()
        received.append(len(port._protocol.datagrams))
    assert received == [8, 16, 20]


def test_a_closed_port_stops_its_protocol_once_and_does_not_read(opened):
    port = opened(bind_session(("127.0.0.1", 0), NEEDS), UDPPort, 100)
    assert port._readers.reading == {port}
    port.stopListening()
    port.stopListening()
    port.connectionLost(None)
    port.doRead()
    assert (port._readers.reading, port._protocol.stopped, port.fileno()) == (set(), 1, -1)


@pytest.mark.parametrize("bound", [("127.0.0.1", 0), ("::1", 0, 0, 0)], ids=["IPv4", "IPv6"])
def test_a_port_returns_its_address(opened, bound):
    port = opened(bind_session(bound, NEEDS), UDPPort, 100)
    assert port.getHost().host == bound[0]
    assert port.getHost().port == port._socket.getsockname()[1]


def test_broadcast_can_be_allowed(opened):
    port = opened(bind_session(("127.0.0.1", 0), NEEDS), UDPPort, 100)
    assert not port.getBroadcastAllowed()
    port.setBroadcastAllowed(True)
    assert port.getBroadcastAllowed()


def test_a_connected_port_sends_to_its_peer(opened):
    one, two = (opened(bind_session(("127.0.0.1", 0), NEEDS), UDPPort, 100) for _ in range(2))
    one.connect("127.0.0.1", two.getHost().port)
    one.write(b"hi")
    two.doRead()
    assert two._protocol.datagrams[0][0] == b"hi"


def test_binding_a_port_in_use_raises_oserror_and_leaves_no_socket(opened):
    port = opened(*bind_listeners("127.0.0.1", 0))
    with pytest.raises(OSError, match="in use"):
        bind_listeners("127.0.0.1", port.getHost().port)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("10.0.0.7", 69), "10.0.0.7"),
        (("fe80::1%eth0", 69, 0, 2), "fe80::1"),
        (("::ffff:10.0.0.7", 69, 0, 0), "10.0.0.7"),
    ],
)
def test_the_client_address_has_no_scope_and_no_ipv4_mapping(peer, address):
    assert str(client_address(peer[0])) == address


def test_the_monotonic_clock_ignores_the_wall_clock():
    wall = WallClock()
    clock = MonotonicClock(wall)
    before = clock.seconds()
    wall.advance(1e6)
    assert clock.seconds() - before < 60
    assert clock.callLater(1, lambda: None) in wall.getDelayedCalls()
