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
        self.share = RequestThrottle(self.clock.seconds)
        self.discards = DropCounters()
        callers = RequestQueue(self.share, self.clock, self.discards)
        self.port = ListeningPort(Readers(), sock, Heard(), callers, self.share.transfer_active)
        self.port.start()
        self.address = (asked, sock.getsockname()[1])
        self.client = socket.socket(sock.family, socket.SOCK_DGRAM)
        self.client.settimeout(5)
        self.session = Session()
        self.says(b"\0\1")
        ((_, peer, local),) = self.port._protocol.datagrams
        self.tid = (peer, local)
        self.port.attach_session(self.session, self.tid, needs)

    def says(self, *datagrams):
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


def test_the_port_of_a_session_keeps_to_the_interfaces():
    verifyClass(BurstTransport, SharedPortTransport)
    verifyClass(IReadDescriptor, ListeningPort)


@pytest.mark.parametrize(
    ("bound", "asked"),
    [("0.0.0.0", "127.0.0.9"), ("127.0.0.9", "127.0.0.9"), ("::", "::1"), ("::1", "::1")],
)
def test_sessions_send_from_the_listening_port_of_the_address_that_was_asked(shared, bound, asked):
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


def test_blocks_larger_than_the_path_takes_may_be_fragmented(shared):
    here = shared("0.0.0.0", "127.0.0.1")
    here.session.transport.writeBurst(b"x" * 65468, 65468, here.tid[0])
    assert len(here.client.recv(70000)) == 65468
    assert here.port._socket.getsockopt(socket.IPPROTO_IP, 10) == 0  # IP_PMTUDISC_DONT


def test_what_cannot_be_sent_is_lost(shared):
    here = shared()
    here.session.transport.writeBurst(b"x" * 70000, 70000, here.tid[0])
    here.port._socket.close()
    here.session.transport.write(b"x", here.tid[0])


def test_datagrams_go_to_the_session_and_requests_to_the_listener(shared):
    here = shared()
    here.port._protocol.datagrams.clear()
    here.says(ACK)
    here.says(b"\0\2file")
    assert here.session.heard == [ACK]
    assert [datagram for datagram, _, _ in here.port._protocol.datagrams] == [b"\0\2file"]


def test_a_client_alone_in_lock_step_is_read_once_an_event(shared):
    here = shared()
    here.says(ACK, b"\0\4\0\2")
    assert here.session.heard == [ACK]
    here.port.doRead()
    assert here.session.heard == [ACK, b"\0\4\0\2"]


def test_blocks_of_a_window_are_taken_together(shared):
    here = shared(needs=WINDOWS)
    blocks = [b"\0\3\0" + bytes([number]) for number in range(1, 8)]
    here.says(*blocks)
    assert here.session.heard == [blocks]


def test_the_end_of_a_session_leaves_the_socket_open(shared):
    here = shared()
    here.session.transport.stopListening()
    assert here.session.stopped == 1
    here.port._protocol.datagrams.clear()
    here.says(ACK, b"\0\1")
    assert here.session.heard == []
    assert [datagram for datagram, _, _ in here.port._protocol.datagrams] == [ACK, b"\0\1"]


def test_a_port_that_retires_closes_with_its_last_session(shared):
    here, left = shared(), []
    here.port._protocol.datagrams.clear()
    here.port.stop_accepting(lambda: left.append(here.port.fileno()))
    here.says(b"\0\1")
    here.says(ACK)
    assert (here.session.heard, here.port._protocol.datagrams, left) == ([ACK], [], [])
    transport = here.session.transport
    transport.stopListening()
    transport.stopListening()
    assert left == [-1]
    assert here.port._readers.reading == set()
    assert (here.session.stopped, here.port._protocol.stopped) == (1, 1)


def test_one_without_sessions_closes_at_once(shared):
    here, left = shared(), []
    here.session.transport.stopListening()
    here.port.stop_accepting(lambda: left.append(True))
    assert left == [True]


def test_one_that_was_to_retire_may_take_requests_again(shared):
    here, left = shared(), []
    here.port.stop_accepting(lambda: left.append(True))
    here.port.resume()
    here.port._protocol.datagrams.clear()
    here.says(b"\0\1")
    here.session.transport.stopListening()
    here.says(b"\0\2")
    assert [datagram for datagram, _, _ in here.port._protocol.datagrams] == [b"\0\1", b"\0\2"]
    assert (left, here.port.fileno() > 0) == ([], True)


def test_room_is_that_of_the_buffer_shared_among_uploads(shared):
    here = shared(needs=WINDOWS)
    buffer = here.port._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert here.port.upload_window_budget == buffer // 4 // 2
    here.session.transport.stopListening()
    assert here.port.upload_window_budget == buffer // 4


def test_no_session_connects_or_broadcasts(shared):
    transport = shared().session.transport
    transport.setBroadcastAllowed(True)
    assert not transport.getBroadcastAllowed()
    with pytest.raises(RuntimeError):
        transport.connect("127.0.0.1", 9)


def test_what_a_host_says_too_much_is_taken_from_the_socket_and_others_have_their_turn(shared):
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


def test_blocks_of_a_session_do_not_wait_where_requests_do(shared):
    here = shared()
    here.share.transfer_active()
    here.share.charge(0.001)
    here.says(b"\0\1again", ACK)
    assert here.session.heard == [ACK]
    assert len(here.port._protocol.datagrams) == 1
    here.clock.advance(0.0031)
    assert [datagram for datagram, _, _ in here.port._protocol.datagrams[1:]] == [b"\0\1again"]


def test_transfers_on_the_port_are_busy_when_it_hears_them(shared):
    here = shared()
    here.says(b"\0\1again")
    here.share.charge(0.001)
    assert here.share.delay == 0
    here.says(ACK)
    here.share.charge(0.001)
    assert here.share.delay > 0


@pytest.mark.parametrize("end", ["stop_accepting", "stopListening"])
def test_a_port_that_takes_no_more_requests_forgets_those_that_wait(shared, end):
    here = shared()
    here.share.transfer_active()
    here.share.charge(0.001)
    here.says(b"\0\1again")
    getattr(here.port, end)(*([lambda: None] if end == "stop_accepting" else []))
    assert not here.clock.getDelayedCalls()
    here.clock.advance(1)
    assert len(here.port._protocol.datagrams) == 1
