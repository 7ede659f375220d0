"""Replies on the listening port, repeated requests and unknown TIDs."""

from dataclasses import replace
from ipaddress import ip_network

import pytest
from twisted.logger import formatEvent, globalLogPublisher

from tests.support.fakes import SERVER, MemoryServer
from tftpd.access.profiles import Profile, ProfileMatch, Profiles
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.server.admission import DropReason
from tftpd.server.fair_queue import IncomingDatagram

READ = Rrq(b"kilo", b"octet")


def _outcomes(server):
    return [report.outcome for report in server.reports]


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\0",
        b"\0\0",
        b"\0\x07dir\0octet\0",
        b"\xff\xff\xff\xff",
        Data(1, b"x").encode(),
        Ack(0).encode(),
        ErrorPacket(4, "no").encode(),
        Oack(()).encode() + b"\0\0",
    ],
    ids=repr,
)
def test_a_datagram_that_is_not_a_request_gets_no_reply(server, datagram):
    assert server.client().request(datagram) == []
    assert server.idle


@pytest.mark.parametrize(
    "datagram",
    [b"\0\1", b"\0\1\0", b"\0\1name", b"\0\2name\0", b"\0\1name\0octet", b"\0\2" + b"x" * 600],
    ids=repr,
)
def test_a_malformed_request_gets_illegal_operation(server, datagram):
    assert server.client().request(datagram) == [ErrorPacket(4, "Illegal TFTP operation")]
    assert server.idle


def test_padding_and_garbage_after_a_request_are_ignored(server):
    plain = READ.encode()
    for port, tail in enumerate([b"\0" * 5, b"garbage", b"tail\0", b"\xff" * 500, b"a\0" * 40], 1):
        answer = server.client(port=port).request(plain + tail)
        assert [type(packet) for packet in answer] == [Data]


def test_a_padded_ack_is_accepted(server):
    client = server.client()
    client.request(READ)
    assert [packet.block for packet in client.send(Ack(1).encode() + b"\0" * 25)] == [2]


def test_a_repeated_request_starts_no_second_session(server):
    client = server.client()
    first = client.request(READ)
    tid = client.tid
    assert client.request(READ) == []
    assert len(server.sessions) == 1
    assert [type(packet) for packet in first] == [Data]
    client.send(Ack(1))
    assert client.request(READ) == []
    assert client.tid == tid


def test_a_repeated_request_repeats_the_first_packet(server):
    client = server.client()
    first = client.request(READ)
    client.advance(0.95)
    server.net.clock.rightNow += 0.05  # the timer itself has not fired yet
    assert client.request(READ) == first


@pytest.mark.parametrize("options", [(), ((b"timeout", b"5"),)], ids=["adaptive", "fixed"])
def test_a_repeated_request_is_answered_a_second_after_the_last_reply(server, options):
    """The first request may be forged: then the client has not seen any reply."""
    client = server.client()
    request = Rrq(b"kilo", b"octet", options)
    reply = client.request(request)
    for seconds in (1.2, 3):
        client.advance(seconds)
        server.advance(1.01)
        client.receive()
        assert client.request(request) == reply
        assert client.request(request) == []


def test_a_different_request_from_the_same_tid_replaces_the_old_transfer(server):
    """lpxelinux requests all files from one port."""
    client = server.client()
    client.request(READ)
    old = client.tid
    assert client.request(Rrq(b"seven", b"octet")) == [Data(1, b"1234567")]
    assert client.tid != old
    assert _outcomes(server) == [Outcome.REPLACED]
    assert len(server.sessions) == 1


@pytest.mark.parametrize(
    "forged",
    [Rrq(b"none", b"octet"), b"\0\1x", Wrq(b"in/evil", b"octet"), Rrq(b"seven", b"octet")],
    ids=str,
)
def test_a_request_that_nobody_answers_does_not_end_a_transfer_of_its_tid(server, forged):
    client = server.client()
    client.request(READ)
    client.send(Ack(1))
    tid = client.tid
    client.request(forged)
    client.advance(9)
    client.tid = tid
    assert client.send(Ack(2)) == [Data(3, b"")]
    client.send(Ack(3))
    assert Outcome.DONE in _outcomes(server)


def test_a_transfer_that_makes_progress_is_replaced_when_the_new_one_is_answered(server):
    client = server.client()
    client.request(READ)
    client.send(Ack(1))
    assert client.request(Wrq(b"in/new", b"octet")) == [Ack(0)]
    assert _outcomes(server) == []
    assert client.send(Data(1, b"x")) == [Ack(1)]
    assert _outcomes(server) == [Outcome.REPLACED, Outcome.DONE]


def test_the_same_name_with_other_options_is_a_different_request(server):
    client = server.client()
    client.request(Rrq(b"kilo", b"octet", ((b"blksize", b"1024"),)))
    assert [type(packet) for packet in client.request(READ)] == [Data]
    assert _outcomes(server) == [Outcome.REPLACED]


def test_a_repeated_request_long_after_the_last_ack_restarts_the_transfer(server):
    client = server.client()
    client.request(READ)
    client.send(Ack(1))
    client.advance(2.5)
    assert client.request(READ) == []
    client.advance(1)
    assert client.request(READ)[-1:] == [Data(1, bytes(range(256)) * 2)]
    assert _outcomes(server) == []  # the request may be forged
    client.send(Ack(1))
    assert _outcomes(server) == [Outcome.REPLACED]


FORGED = [READ, Rrq(b"none", b"octet"), Wrq(b"in/evil", b"octet"), Rrq(b"seven", b"octet")]


@pytest.mark.parametrize("forged", FORGED, ids=str)
def test_a_forged_request_does_not_end_a_transfer_that_pauses(server, forged):
    client = server.client()
    client.request(READ)
    client.send(Ack(1))
    tid = client.tid
    for _ in range(4):
        client.advance(4)
        client.request(forged)
    client.tid = tid
    assert client.send(Ack(2)) == [Data(3, b"")]
    client.send(Ack(3))
    assert Outcome.DONE in _outcomes(server)


@pytest.mark.parametrize("forged", FORGED, ids=str)
def test_a_forged_request_does_not_end_a_transfer_whose_last_block_was_lost(server, forged):
    client = server.client()
    client.request(READ)
    client.send(Ack(1), Ack(2))
    tid = client.tid
    client.request(forged)
    client.advance(4)
    client.tid = tid
    assert client.send(Ack(2))[:1] == [Data(3, b"")]
    client.send(Ack(3))
    assert Outcome.DONE in _outcomes(server)


@pytest.mark.parametrize("forged", FORGED, ids=str)
def test_a_forged_request_does_not_end_an_upload_whose_last_ack_was_lost(server, forged):
    client = server.client()
    client.request(Wrq(b"in/new", b"octet"))
    assert client.send(Data(1, b"x")) == [Ack(1)]
    tid = client.tid
    client.request(forged)
    client.tid = tid
    assert client.send(Data(1, b"x")) == [Ack(1)]


def test_a_transfer_that_pauses_sends_nothing_after_a_request_until_its_client_does(server):
    """A restarted client could take its blocks for those of the new transfer."""
    client = server.client()
    client.request(READ)
    client.send(Ack(1))
    old = client.tid
    client.advance(3.5)
    client.request(READ)
    del server.net.sent[:]
    server.advance(60)
    assert old not in {source for source, _, _ in server.net.sent}
    server.advance(20)
    assert _outcomes(server) == [Outcome.TIMED_OUT, Outcome.TIMED_OUT]


def test_the_same_request_after_the_end_is_a_new_transfer(server):
    client = server.client()
    client.request(Rrq(b"seven", b"octet"))
    client.send(Ack(1))
    assert client.request(Rrq(b"seven", b"octet")) == [Data(1, b"1234567")]


def test_one_client_port_may_use_two_local_addresses(server):
    client = server.client()
    client.request(READ)
    server.port.local = ("192.0.2.2", 0)
    assert [type(packet) for packet in client.request(READ)] == [Data]
    assert client.tid[0] == "192.0.2.2"
    assert len(server.sessions) == 2


def test_an_unknown_tid_gets_one_error_and_the_transfer_continues(server):
    client, other = server.client(), server.client(port=666)
    client.request(READ)
    other.tid = client.tid
    assert other.send(b"nonsense") == [ErrorPacket(5, "Unknown transfer ID")]
    assert other.send(Ack(1), ErrorPacket(0, "die"), Data(1, b"x")) == []
    assert [packet.block for packet in client.send(Ack(1))] == [2]


def test_an_error_from_an_unknown_tid_is_ignored(server):
    client, other = server.client(), server.client(host="192.0.2.66")
    client.request(READ)
    other.tid = client.tid
    assert other.send(ErrorPacket(0, "die"), b"\0\5") == []
    assert [packet.block for packet in client.send(Ack(1))] == [2]


def test_the_number_of_replies_to_unknown_tids_is_bounded(server):
    client = server.client()
    client.request(READ)
    answers = 0
    for port in range(3000, 3100):
        other = server.client(port=port)
        other.tid = client.tid
        answers += len(other.send(Ack(1)))
    assert answers == 32


def test_an_error_is_never_answered(server):
    client = server.client()
    client.request(READ)
    assert client.send(ErrorPacket(0, "stop")) == []
    assert client.send(ErrorPacket(0, "stop")) == []
    assert client.advance(30) == []


def test_malformed_requests_are_logged_once_per_second(server):
    logged = []

    def observe(event):
        logged.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        for seconds in (0, 0.5, 0.4, 0.2):
            server.advance(seconds)
            assert isinstance(server.client().request(b"\0\1x")[0], ErrorPacket)
    finally:
        globalLogPublisher.removeObserver(observe)
    first, last = logged
    assert first.startswith("malformed request from 192.0.2.7:2070: ")
    assert last == f"{first} (2 similar messages suppressed)"


def test_malformed_packets_from_the_peer_are_dropped(server):
    client = server.client()
    client.request(READ)
    assert client.send(b"", b"\0", b"\0\x04", b"\0\x04\0", b"\0\x63\0\1", b"\0\1", b"junk") == []
    assert [packet.block for packet in client.send(Ack(1))] == [2]


def test_a_broadcast_request_is_ignored(server):
    server.port.broadcast = True
    assert server.client().request(READ) == []


def test_a_broadcast_request_is_answered_if_configured(offer):
    server = MemoryServer(offer, broadcast=True)
    server.port.broadcast = True
    assert [type(packet) for packet in server.client().request(READ)] == [Data]


def test_at_the_session_limit_a_request_is_dropped_and_its_repeat_is_served(limited):
    first, second, third = (limited.client(port=port) for port in (1, 2, 3))
    assert first.request(READ) != []
    assert second.request(READ) != []
    assert third.request(READ) == []
    first.send(ErrorPacket(0, "bye"))
    assert third.request(READ) != []


def test_a_dallying_session_ends_for_a_new_one(limited):
    clients = [limited.client(port=port) for port in (1, 2, 3)]
    for number, client in enumerate(clients):
        client.request(Wrq(b"in/%d" % number, b"octet"))
        assert client.send(Data(1, b"x")) == [Ack(1)]
    assert len(limited.sessions) == 2


def test_an_internal_error_does_not_reach_the_reactor(server, monkeypatch):
    monkeypatch.setattr("tftpd.server.listener.client_address", lambda peer: 1 // 0)
    assert server.client().request(READ) == []
    monkeypatch.undo()
    assert server.client().request(READ) != []


def test_a_stop_sends_an_error_to_running_sessions_and_not_to_dallying_ones(server):
    reader, writer = server.client(port=1), server.client(port=2)
    reader.request(READ)
    writer.request(Wrq(b"in/new", b"octet"))
    writer.send(Data(1, b"x"))
    server.sessions.stop()
    assert reader.receive() == [ErrorPacket(0, "Server is stopping")]
    assert writer.receive() == []
    assert _outcomes(server) == [Outcome.DONE, Outcome.STOPPED]
    assert server.idle


@pytest.mark.parametrize(
    ("host", "port", "is_answered"),
    [
        ("192.0.2.7", 69, False),  # another server, perhaps
        ("127.0.0.1", 40_007, False),  # a session of this host
        ("192.0.2.7", 40_007, True),
        ("127.0.0.1", 2070, True),
    ],
)
def test_a_request_from_the_port_of_a_server_is_dropped(offer, host, port, is_answered):
    """Two forged requests could make two servers copy a file to each other."""
    server = MemoryServer(
        lambda report: replace(offer(report), own_ports=frozenset(range(40_000, 40_010)))
    )
    assert bool(server.client(host, port).request(READ)) == is_answered
    assert server.listener._drops.take()[DropReason.SERVER_PORT] == (not is_answered)
    assert server.reports == []


def test_a_request_from_the_well_known_port_is_dropped_at_another_port(server):
    server.port.number = 1069
    assert server.client("192.0.2.7", 69).request(READ) == []
    assert server.listener._drops.take()[DropReason.SERVER_PORT] == 1


def test_a_profile_allows_requests_from_the_port_of_the_server(offer):
    old = Profile("old", ProfileMatch(clients=(ip_network("192.0.2.7"),)), server_port=True)
    server = MemoryServer(lambda report: replace(offer(report), profiles=Profiles([old])))
    assert server.client("192.0.2.7", 69).request(READ)
    assert not server.client("192.0.2.8", 69).request(READ)


def test_a_repeated_request_does_not_wait_in_the_queue_until_its_session_has_ended(server):
    client = server.client()
    client.request(READ)

    def repeat(request):
        local = (SERVER, 0)
        incoming = IncomingDatagram(request, client.address, local, False, 0.0)
        return server.listener.requestRepeated(incoming)

    assert repeat(READ.encode())
    assert server.listener._drops.take()[DropReason.REPEATED] == 1
    assert not repeat(Rrq(b"seven", b"octet").encode())
    assert not repeat(b"\0\1")
    client.send(Ack(1), Ack(2), Ack(3))
    assert not repeat(READ.encode())


def test_the_time_in_the_queue_is_not_charged_as_cpu_time(server):
    charged = []
    runtime = server.listener._runtime
    server.listener._runtime = replace(runtime, charge_wasted_cpu=charged.append)
    server.advance(0.04)
    peer = ("192.0.2.7", 2070)
    server.listener.requestReceived(IncomingDatagram(b"?", peer, (SERVER, 0), False, 0.0))
    assert charged == [0.0]
