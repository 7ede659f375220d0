"""Sessions that stay on the well-known port, in memory: what comes, by state and by packet."""

from dataclasses import replace

import pytest

from tests.server.test_drop_counters import _nonzero
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryServer
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.server.admission import AdmissionLimits, DropCounters, DropReason

READ, OTHER = Rrq(b"kilo", b"octet"), Rrq(b"seven", b"octet")
WRITE = Wrq(b"in/new", b"octet")
KILO = bytes(range(256)) * 4
FIRST, SECOND = Data(1, KILO[:512]), Data(2, KILO[512:])
HERE = (SERVER, WELL_KNOWN)


@pytest.fixture
def server(offer):
    built = MemoryServer(offer, single_port=True)
    yield built
    built.net.run_threads()
    built.waits(120)
    assert built.idle


def _outcomes(server):
    return [report.outcome for report in server.reports]


def _sources(server):
    """Where what was sent since the last time came from."""
    return {source for source, _, _ in server.net.sent}


def _unknown(client):
    """A client that never asked."""


def _reading(client):
    client.asks(READ)


def _midway(client):
    client.asks(READ)
    client.says(Ack(1))


def _agreeing(client):
    client.asks(Rrq(b"kilo", b"octet", ((b"blksize", b"1024"),)))


def _writing(client):
    client.asks(WRITE)


def _dallying(client):
    client.asks(WRITE)
    assert client.says(Data(1, b"x")) == [Ack(1)]


def _ended(client):
    client.asks(OTHER)
    client.says(Ack(1))


def _aborted(client):
    client.asks(READ)
    client.says(ErrorPacket(0, "stop"))


MALFORMED = [b"\0\1name", b"\0\2"]
NOT_ANSWERED = [ErrorPacket(0, "stop"), b"", b"\0", b"\0\5", b"\0\x07junk", b"\0\3\0", *MALFORMED]
STATES = [_unknown, _reading, _midway, _agreeing, _writing, _dallying, _ended, _aborted]
ANSWERS = {
    (_reading, "Ack(1)"): [SECOND],
    (_midway, "Ack(2)"): [Data(3, b"")],
    (_agreeing, "Ack(0)"): [Data(1, KILO)],
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
def test_what_is_no_request_goes_to_the_session_of_its_tid_or_nowhere(server, state, name):
    client = server.client()
    state(client)
    assert client.says(PACKETS[name]) == ANSWERS.get((state, name), [])
    assert client.tid is None  # all came from the well-known port


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("datagram", NOT_ANSWERED, ids=repr)
def test_errors_and_nonsense_are_never_answered_within_a_transfer(server, state, datagram):
    client = server.client()
    state(client)
    told = [ErrorPacket(4, "Illegal TFTP operation")]
    # Whose transfer is over is told what is wrong with a request, as is a stranger.
    silent = datagram not in MALFORMED or state not in (_unknown, _ended, _aborted)
    assert client.says(datagram) == ([] if silent else told)


@pytest.mark.parametrize("state", [_reading, _midway, _agreeing, _writing, _dallying])
def test_an_error_of_the_peer_ends_its_transfer(server, state):
    client = server.client()
    state(client)
    assert client.says(ErrorPacket(0, "stop")) == []
    if state is not _dallying:
        assert _outcomes(server) == [Outcome.ABORTED]
        assert server.idle


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("request_", [OTHER, Wrq(b"in/other", b"octet")], ids=["read", "write"])
def test_another_request_begins_another_transfer_in_every_state(server, state, request_):
    client = server.client()
    state(client)
    answer = Data(1, b"1234567") if request_ is OTHER else Ack(0)
    assert client.asks(request_) == [answer]
    assert len(server.sessions) == len(server.port.sessions) == 1
    running = state in (_reading, _midway, _agreeing, _writing)
    assert (Outcome.REPLACED in _outcomes(server)) == running


def test_a_repeated_request_starts_no_second_session(server):
    client = server.client()
    assert client.asks(READ) == [FIRST]
    assert client.asks(READ) == []
    assert client.says(Ack(1)) == [SECOND]
    assert client.asks(READ) == []
    assert len(server.sessions) == 1


def test_a_client_that_was_restarted_gets_its_file_anew(server):
    client = server.client()
    _midway(client)
    client.waits(3.5)
    assert client.asks(READ)[-1:] == [FIRST]
    assert _outcomes(server) == [Outcome.REPLACED]


def test_clients_are_told_apart_by_address_and_port(server):
    clients = [server.client(f"192.0.2.{host}", port) for host in (1, 2) for port in (1, 2)]
    for client in clients:
        assert client.asks(READ) == [FIRST]
    for client in clients:
        assert client.says(Ack(1)) == [SECOND]
    assert len(server.sessions) == 4


def test_a_client_that_asked_at_one_address_is_unknown_at_another(server):
    client = server.client()
    client.asks(READ)
    server.port.local = ("192.0.2.2", 0)
    assert client.says(Ack(1), ErrorPacket(0, "stop")) == []
    assert client.asks(READ) == [FIRST]
    assert len(server.sessions) == 2
    assert client.says(Ack(1)) == [SECOND]
    server.port.local = (SERVER, 0)
    assert client.says(Ack(1)) == [SECOND]


def test_answers_come_from_the_address_that_was_asked(server):
    server.port.local = ("192.0.2.2", 0)
    client = server.client()
    server.net.deliver(READ.encode(), client.address, HERE)
    assert _sources(server) == {("192.0.2.2", WELL_KNOWN)}


def test_a_stranger_gets_silence_and_harms_nobody(server):
    client, stranger = server.client(), server.client(port=666)
    client.asks(READ)
    assert stranger.says(Ack(1), Data(1, b"x"), ErrorPacket(0, "die"), b"junk") == []
    assert client.says(Ack(1)) == [SECOND]


def test_timers_run_as_on_a_port_of_its_own(server):
    client = server.client()
    assert client.asks(READ) == [FIRST]
    assert client.waits(1.2) == [FIRST]
    assert client.waits(60) == [FIRST]
    assert _outcomes(server) == [Outcome.TIMED_OUT]


def test_a_whole_upload_is_stored_and_dallies_on_the_port(server, root):
    client = server.client()
    assert client.asks(WRITE) == [Ack(0)]
    assert client.says(Data(1, KILO[:512])) == [Ack(1)]
    assert client.says(Data(2, KILO[512:])) == [Ack(2)]
    assert client.says(Data(3, b"")) == [Ack(3)]
    assert client.waits(1) == []
    assert client.says(Data(3, b"")) == [Ack(3)]
    assert (root / "in" / "new").read_bytes() == KILO


def test_an_upload_ends_while_a_thread_is_at_work_on_it(server, root):
    client = server.client()
    server.net.hold_threads = True
    client.asks(WRITE)
    assert client.says(Data(1, b"x")) == []
    assert client.says(ErrorPacket(0, "stop")) == []
    assert client.asks(OTHER) == [Data(1, b"1234567")]
    server.net.run_threads()


def test_windows_of_uploads_fit_into_what_the_port_has_room_for(server):
    server.port.upload_window_budget = 5000
    options = ((b"blksize", b"1000"), (b"windowsize", b"16"))
    (oack,) = server.client(port=1).asks(Wrq(b"in/new", b"octet", options))
    assert dict(oack.options)[b"windowsize"] == b"5"
    server.port.upload_window_budget = 10
    (oack,) = server.client(port=2).asks(Wrq(b"in/newer", b"octet", options))
    assert dict(oack.options)[b"windowsize"] == b"1"
    # Ours leave one after the other: reads have the windows they ask for.
    (oack,) = server.client(port=3).asks(Rrq(b"kilo", b"octet", options))
    assert dict(oack.options)[b"windowsize"] == b"16"


def test_room_is_shared_among_uploads_alone(server):
    for port in range(1, 4):
        server.client(port=port).asks(READ)
    assert server.port.sessions.uploads == 0
    uploads = [server.client(port=port) for port in (4, 5)]
    for number, client in enumerate(uploads):
        client.asks(Wrq(b"in/%d" % number, b"octet"))
    assert server.port.sessions.uploads == 2
    uploads[0].says(ErrorPacket(0, "stop"))
    assert server.port.sessions.uploads == 1
    assert uploads[1].says(Data(1, b"x")) == [Ack(1)]
    assert len(server.sessions) == 4  # it dallies
    assert server.port.sessions.uploads == 0


def test_windows_are_taken_as_they_came_and_a_request_after_them(server, root):
    """Blocks that arrived in one turn, then another request of the same client."""
    client = server.client()
    guests, tid = server.port.sessions, (client.address, (SERVER, 0))
    client.asks(Wrq(b"in/new", b"octet", ((b"blksize", b"512"), (b"windowsize", b"2"))))
    assert guests.dispatch(Data(1, KILO[:512]).encode(), tid)
    assert guests.dispatch(Data(2, KILO[512:]).encode(), tid)
    assert client.hears() == []
    guests.flush()
    assert client.hears() == [Ack(2)]
    assert guests.dispatch(Data(3, b"").encode(), tid)
    assert not guests.dispatch(OTHER.encode(), tid)
    assert client.hears() == [Ack(3)]
    assert (root / "in" / "new").read_bytes() == KILO
    assert client.asks(OTHER) == [Data(1, b"1234567")]
    client.says(Ack(1))


def test_what_waits_for_a_session_that_ended_meanwhile_is_lost(server):
    client = server.client()
    guests, tid = server.port.sessions, (client.address, (SERVER, 0))
    client.asks(Wrq(b"in/new", b"octet", ((b"windowsize", b"2"),)))
    assert guests.dispatch(Data(1, b"x" * 512).encode(), tid)
    server.sessions.stop()
    guests.flush()
    assert client.hears() == [ErrorPacket(0, "Server is stopping")]


def test_late_packets_of_a_transfer_that_is_over_are_counted(offer):
    discards = DropCounters()
    server = MemoryServer(offer, discards=discards, single_port=True)
    client = server.client()
    _ended(client)
    client.says(Ack(1), b"\0\1name")
    assert _nonzero(discards) == {DropReason.NO_REQUEST: 1, DropReason.MALFORMED: 1}


def test_refusals_and_limits_are_those_of_the_other_mode(offer):
    server = MemoryServer(
        lambda report: replace(offer(report), admission=AdmissionLimits(sessions=1)),
        single_port=True,
    )
    assert server.client(port=1).asks(Rrq(b"nothing", b"octet")) == [
        ErrorPacket(1, "File not found")
    ]
    assert server.client(port=1).asks(READ) == [FIRST]
    assert server.client(port=2).asks(READ) == []
    assert _outcomes(server) == [Outcome.REFUSED, Outcome.DROPPED]


def test_sessions_of_one_mode_go_on_in_it_when_the_listener_takes_the_other(server):
    stays, moves = server.client(port=1), server.client(port=2)
    assert stays.asks(READ) == [FIRST]
    server.listener.single_port = False
    assert moves.asks(READ) == [FIRST]
    assert moves.tid != HERE
    server.listener.single_port = True
    for client in (stays, moves):
        assert client.says(Ack(1)) == [SECOND]
    assert stays.tid is None


def test_stopping_tells_those_that_run(server):
    client = server.client()
    client.asks(READ)
    server.sessions.stop()
    assert client.hears() == [ErrorPacket(0, "Server is stopping")]
    assert server.idle
