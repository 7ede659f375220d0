"""Single-port mode in memory: each kind of packet in each state."""

from dataclasses import replace

import pytest

from tests.server.test_drop_counters import _nonzero
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryServer
from tests.support.programs import needs_linux
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.server.admission import AdmissionLimits, DropCounters, DropReason

READ, OTHER = Rrq(b"kilo", b"octet"), Rrq(b"seven", b"octet")
WRITE = Wrq(b"in/new", b"octet")
KILO = bytes(range(256)) * 4
FIRST, SECOND = Data(1, KILO[:512]), Data(2, KILO[512:])
WELL_KNOWN_PORT = (SERVER, WELL_KNOWN)


@pytest.fixture
def server(offer):
    built = MemoryServer(offer, single_port=True)
    yield built
    built.net.run_threads()
    built.advance(120)
    assert built.idle


def _outcomes(server):
    return [report.outcome for report in server.reports]


def _sources(server):
    """Return the source addresses of the datagrams in the net."""
    return {source for source, _, _ in server.net.sent}


def _unknown(client):
    """A client without a request."""


def _reading(client):
    client.request(READ)


def _midway(client):
    client.request(READ)
    client.send(Ack(1))


def _negotiating(client):
    client.request(Rrq(b"kilo", b"octet", ((b"blksize", b"1024"),)))


def _writing(client):
    client.request(WRITE)


def _dallying(client):
    client.request(WRITE)
    assert client.send(Data(1, b"x")) == [Ack(1)]


def _ended(client):
    client.request(OTHER)
    client.send(Ack(1))


def _aborted(client):
    client.request(READ)
    client.send(ErrorPacket(0, "stop"))


MALFORMED = [b"\0\1name", b"\0\2"]
NOT_ANSWERED = [ErrorPacket(0, "stop"), b"", b"\0", b"\0\5", b"\0\x07junk", b"\0\3\0", *MALFORMED]
STATES = [_unknown, _reading, _midway, _negotiating, _writing, _dallying, _ended, _aborted]
ANSWERS = {
    (_reading, "Ack(1)"): [SECOND],
    (_midway, "Ack(2)"): [Data(3, b"")],
    (_negotiating, "Ack(0)"): [Data(1, KILO)],
    (_writing, "Data(1)"): [Ack(1)],
    (_writing, "Data(1, short)"): [Ack(1)],
    (_dallying, "Data(1)"): [Ack(1)],
    (_dallying, "Data(1, short)"): [Ack(1)],
}
PACKETS = {
    "Ack(0)": Ack(0),
    "Ack(1)": Ack(1),
    "Ack(2)": Ack(2),
    "Ack(9)": Ack(9),
    "Data(1)": Data(1, b"y" * 512),
    "Data(1, short)": Data(1, b"y"),
    "Data(9)": Data(9, b"y"),
    "Oack": Oack(((b"blksize", b"8"),)),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", PACKETS)
def test_a_datagram_that_is_not_a_request_reaches_only_the_session_of_its_tid(server, state, name):
    client = server.client()
    state(client)
    assert client.send(PACKETS[name]) == ANSWERS.get((state, name), [])
    assert client.tid is None  # all packets came from the listening port


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("datagram", NOT_ANSWERED, ids=repr)
def test_errors_and_malformed_packets_in_a_transfer_get_no_reply(server, state, datagram):
    client = server.client()
    state(client)
    told = [ErrorPacket(4, "Illegal TFTP operation")]
    # A client whose transfer is over gets an ERROR for a malformed request, as any other.
    silent = datagram not in MALFORMED or state not in (_unknown, _ended, _aborted)
    assert client.send(datagram) == ([] if silent else told)


@pytest.mark.parametrize("state", [_reading, _midway, _negotiating, _writing, _dallying])
def test_an_error_from_the_peer_ends_its_transfer(server, state):
    client = server.client()
    state(client)
    assert client.send(ErrorPacket(0, "stop")) == []
    if state is not _dallying:
        assert _outcomes(server) == [Outcome.ABORTED]
        assert server.idle


@pytest.mark.parametrize("state", [state for state in STATES if state is not _midway])
@pytest.mark.parametrize("request_", [OTHER, Wrq(b"in/other", b"octet")], ids=["read", "write"])
def test_another_request_starts_another_transfer_in_every_state(server, state, request_):
    client = server.client()
    state(client)
    answer = Data(1, b"1234567") if request_ is OTHER else Ack(0)
    assert client.request(request_) == [answer]
    assert len(server.sessions) == len(server.port.sessions) == 1
    running = state in (_reading, _negotiating, _writing)
    assert (Outcome.REPLACED in _outcomes(server)) == running


@pytest.mark.parametrize("request_", [OTHER, Rrq(b"none", b"octet"), b"\0\1x"], ids=str)
def test_another_request_does_not_end_a_transfer_that_makes_progress(server, request_):
    client = server.client()
    _midway(client)
    assert client.request(request_) == []
    assert client.send(Ack(2)) == [Data(3, b"")]


def test_another_request_replaces_a_transfer_that_has_paused(server):
    client = server.client()
    _midway(client)
    client.advance(3.5)
    assert client.request(OTHER) == [Data(1, b"1234567")]
    assert _outcomes(server) == [Outcome.REPLACED]


def test_a_repeated_request_starts_no_second_session(server):
    client = server.client()
    assert client.request(READ) == [FIRST]
    assert client.request(READ) == []
    assert client.send(Ack(1)) == [SECOND]
    assert client.request(READ) == []
    assert len(server.sessions) == 1


def test_a_restarted_client_gets_its_file_from_the_start(server):
    client = server.client()
    _midway(client)
    client.advance(3.5)
    assert client.request(READ)[-1:] == [FIRST]
    assert _outcomes(server) == [Outcome.REPLACED]


def test_clients_are_distinguished_by_address_and_port(server):
    clients = [server.client(f"192.0.2.{host}", port) for host in (1, 2) for port in (1, 2)]
    for client in clients:
        assert client.request(READ) == [FIRST]
    for client in clients:
        assert client.send(Ack(1)) == [SECOND]
    assert len(server.sessions) == 4


def test_a_session_of_one_local_address_is_unknown_at_another(server):
    client = server.client()
    client.request(READ)
    server.port.local = ("192.0.2.2", 0)
    assert client.send(Ack(1), ErrorPacket(0, "stop")) == []
    assert client.request(READ) == [FIRST]
    assert len(server.sessions) == 2
    assert client.send(Ack(1)) == [SECOND]
    server.port.local = (SERVER, 0)
    assert client.send(Ack(1)) == [SECOND]


def test_replies_are_sent_from_the_local_address_of_the_request(server):
    server.port.local = ("192.0.2.2", 0)
    client = server.client()
    server.net.deliver(READ.encode(), client.address, WELL_KNOWN_PORT)
    assert _sources(server) == {("192.0.2.2", WELL_KNOWN)}


def test_an_unknown_tid_gets_no_reply_and_affects_no_session(server):
    client, other = server.client(), server.client(port=666)
    client.request(READ)
    assert other.send(Ack(1), Data(1, b"x"), ErrorPacket(0, "die"), b"junk") == []
    assert client.send(Ack(1)) == [SECOND]


def test_retransmission_works_as_on_a_separate_port(server):
    client = server.client()
    assert client.request(READ) == [FIRST]
    assert client.advance(1.2) == [FIRST]
    assert client.advance(60) == [FIRST]
    assert _outcomes(server) == [Outcome.TIMED_OUT]


def test_a_complete_upload_is_stored_and_dallies(server, root):
    client = server.client()
    assert client.request(WRITE) == [Ack(0)]
    assert client.send(Data(1, KILO[:512])) == [Ack(1)]
    assert client.send(Data(2, KILO[512:])) == [Ack(2)]
    assert client.send(Data(3, b"")) == [Ack(3)]
    assert client.advance(1) == []
    assert client.send(Data(3, b"")) == [Ack(3)]
    assert (root / "in" / "new").read_bytes() == KILO


@needs_linux
def test_an_upload_can_end_while_a_thread_uses_its_file(server, root):
    client = server.client()
    server.net.hold_threads = True
    client.request(WRITE)
    assert client.send(Data(1, b"x")) == []
    assert client.send(ErrorPacket(0, "stop")) == []
    assert client.request(OTHER) == []
    server.net.run_threads()
    assert client.receive() == [Ack(1)]
    assert client.request(OTHER) == [Data(1, b"1234567")]


def test_upload_windows_fit_the_receive_buffer(server):
    server.port.upload_window_budget = 5000
    options = ((b"blksize", b"1000"), (b"windowsize", b"16"))
    (oack,) = server.client(port=1).request(Wrq(b"in/new", b"octet", options))
    assert dict(oack.options)[b"windowsize"] == b"5"
    server.port.upload_window_budget = 10
    (oack,) = server.client(port=2).request(Wrq(b"in/newer", b"octet", options))
    assert dict(oack.options)[b"windowsize"] == b"1"
    # Outgoing windows need no receive buffer: a read gets the window that it requests.
    (oack,) = server.client(port=3).request(Rrq(b"kilo", b"octet", options))
    assert dict(oack.options)[b"windowsize"] == b"16"


def test_only_unfinished_uploads_share_the_receive_buffer(server):
    for port in range(1, 4):
        server.client(port=port).request(READ)
    assert server.port.sessions.uploads == 0
    uploads = [server.client(port=port) for port in (4, 5)]
    for number, client in enumerate(uploads):
        client.request(Wrq(b"in/%d" % number, b"octet"))
    assert server.port.sessions.uploads == 2
    uploads[0].send(ErrorPacket(0, "stop"))
    assert server.port.sessions.uploads == 1
    assert uploads[1].send(Data(1, b"x")) == [Ack(1)]
    assert len(server.sessions) == 4  # one dallies
    assert server.port.sessions.uploads == 0


def test_blocks_of_a_window_are_handled_before_a_later_request(server, root):
    """Blocks that arrived in one turn, then another request of the same client."""
    client = server.client()
    sessions, tid = server.port.sessions, (client.address, (SERVER, 0))
    client.request(Wrq(b"in/new", b"octet", ((b"blksize", b"512"), (b"windowsize", b"2"))))
    assert sessions.dispatch(Data(1, KILO[:512]).encode(), tid)
    assert sessions.dispatch(Data(2, KILO[512:]).encode(), tid)
    assert client.receive() == []
    sessions.flush()
    assert client.receive() == [Ack(2)]
    assert sessions.dispatch(Data(3, b"").encode(), tid)
    assert not sessions.dispatch(OTHER.encode(), tid)
    assert client.receive() == [Ack(3)]
    assert (root / "in" / "new").read_bytes() == KILO
    assert client.request(OTHER) == [Data(1, b"1234567")]
    client.send(Ack(1))


def test_datagrams_for_a_session_that_has_ended_are_dropped(server):
    client = server.client()
    sessions, tid = server.port.sessions, (client.address, (SERVER, 0))
    client.request(Wrq(b"in/new", b"octet", ((b"windowsize", b"2"),)))
    assert sessions.dispatch(Data(1, b"x" * 512).encode(), tid)
    server.sessions.stop()
    sessions.flush()
    assert client.receive() == [ErrorPacket(0, "Server is stopping")]


def test_late_packets_of_a_finished_transfer_are_counted(offer):
    drops = DropCounters()
    server = MemoryServer(offer, drops=drops, single_port=True)
    client = server.client()
    _ended(client)
    client.send(Ack(1), b"\0\1name")
    assert _nonzero(drops) == {DropReason.NO_REQUEST: 1, DropReason.MALFORMED: 1}


def test_refusals_and_limits_are_the_same_as_with_separate_ports(offer):
    server = MemoryServer(
        lambda report: replace(offer(report), admission=AdmissionLimits(sessions=1)),
        single_port=True,
    )
    assert server.client(port=1).request(Rrq(b"nothing", b"octet")) == [
        ErrorPacket(1, "File not found")
    ]
    assert server.client(port=1).request(READ) == [FIRST]
    assert server.client(port=2).request(READ) == []
    assert _outcomes(server) == [Outcome.REFUSED, Outcome.DROPPED]


def test_sessions_keep_their_mode_when_the_listener_changes_it(server):
    stays, moves = server.client(port=1), server.client(port=2)
    assert stays.request(READ) == [FIRST]
    server.listener.single_port = False
    assert moves.request(READ) == [FIRST]
    assert moves.tid != WELL_KNOWN_PORT
    server.listener.single_port = True
    for client in (stays, moves):
        assert client.send(Ack(1)) == [SECOND]
    assert stays.tid is None


def test_a_stop_sends_an_error_to_running_sessions(server):
    client = server.client()
    client.request(READ)
    server.sessions.stop()
    assert client.receive() == [ErrorPacket(0, "Server is stopping")]
    assert server.idle


def test_an_icmp_error_ends_a_transfer_that_has_not_moved_three_windows(server):
    client = server.client()
    client.request(READ)
    client.send(Ack(1))
    (session,) = server.sessions
    session.connectionRefused()
    assert _outcomes(server) == [Outcome.ABORTED]
    assert server.idle


def test_a_single_icmp_error_does_not_end_a_transfer_that_has_moved(server):
    client = server.client()
    client.request(Rrq(b"kilo", b"octet", ((b"blksize", b"8"),)))
    client.send(*map(Ack, range(5)))
    (session,) = server.sessions
    session.connectionRefused()
    session.connectionRefused()
    assert [packet.block for packet in client.send(Ack(5))] == [6]
    session.connectionRefused()
    assert _outcomes(server) == [Outcome.ABORTED]


def test_after_the_last_block_an_icmp_error_stands_for_the_last_ack(server):
    client = server.client()
    client.request(READ)
    client.send(Ack(1), Ack(2))
    (session,) = server.sessions
    session.connectionRefused()
    assert _outcomes(server) == [Outcome.UNCONFIRMED]


@needs_linux
def test_an_icmp_error_does_not_stop_a_complete_upload(server, root):
    client = server.client()
    server.net.hold_threads = True
    client.request(WRITE)
    client.send(Data(1, b"x"))
    (session,) = server.sessions
    session.connectionRefused()
    server.net.run_threads()
    assert _outcomes(server) == [Outcome.DONE]
