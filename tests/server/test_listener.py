"""Who gets an answer on the well-known port, and who shares a session."""

import pytest
from twisted.logger import formatEvent, globalLogPublisher

from tests.support.fakes import MemoryServer
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome

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
def test_what_is_no_request_is_answered_with_silence(server, datagram):
    assert server.client().asks(datagram) == []
    assert server.idle


@pytest.mark.parametrize(
    "datagram",
    [b"\0\1", b"\0\1\0", b"\0\1name", b"\0\2name\0", b"\0\1name\0octet", b"\0\2" + b"x" * 600],
    ids=repr,
)
def test_a_malformed_request_is_an_illegal_operation(server, datagram):
    assert server.client().asks(datagram) == [ErrorPacket(4, "Illegal TFTP operation")]
    assert server.idle


def test_padding_and_garbage_after_a_request_do_no_harm(server):
    plain = READ.encode()
    for port, tail in enumerate([b"\0" * 5, b"garbage", b"tail\0", b"\xff" * 500, b"a\0" * 40], 1):
        answer = server.client(port=port).asks(plain + tail)
        assert [type(packet) for packet in answer] == [Data]


def test_a_padded_ack_is_an_ack(server):
    client = server.client()
    client.asks(READ)
    assert [packet.block for packet in client.says(Ack(1).encode() + b"\0" * 25)] == [2]


def test_a_repeated_request_starts_no_second_session(server):
    client = server.client()
    first = client.asks(READ)
    tid = client.tid
    assert client.asks(READ) == []
    assert len(server.sessions) == 1
    assert [type(packet) for packet in first] == [Data]
    client.says(Ack(1))
    assert client.asks(READ) == []
    assert client.tid == tid


def test_a_repeated_request_brings_a_lost_first_packet_again(server):
    client = server.client()
    first = client.asks(READ)
    client.waits(0.95)
    server.net.clock.rightNow += 0.05  # the timer itself has not fired yet
    assert client.asks(READ) == first


def test_a_different_request_from_the_same_tid_replaces_the_old_transfer(server):
    """lpxelinux asks for everything from one port."""
    client = server.client()
    client.asks(READ)
    old = client.tid
    assert client.asks(Rrq(b"seven", b"octet")) == [Data(1, b"1234567")]
    assert client.tid != old
    assert _outcomes(server) == [Outcome.REPLACED]
    assert len(server.sessions) == 1


def test_the_same_request_with_other_options_is_a_different_one(server):
    client = server.client()
    client.asks(Rrq(b"kilo", b"octet", ((b"blksize", b"1024"),)))
    assert [type(packet) for packet in client.asks(READ)] == [Data]
    assert _outcomes(server) == [Outcome.REPLACED]


def test_the_same_request_long_after_the_last_ack_is_a_restarted_client(server):
    client = server.client()
    client.asks(READ)
    client.says(Ack(1))
    client.waits(2.5)
    assert client.asks(READ) == []
    client.waits(1)
    assert client.asks(READ)[-1:] == [Data(1, bytes(range(256)) * 2)]
    assert _outcomes(server) == [Outcome.REPLACED]


def test_the_same_request_after_the_end_is_a_new_transfer(server):
    client = server.client()
    client.asks(Rrq(b"seven", b"octet"))
    client.says(Ack(1))
    assert client.asks(Rrq(b"seven", b"octet")) == [Data(1, b"1234567")]


def test_one_port_may_ask_at_two_addresses(server):
    client = server.client()
    client.asks(READ)
    server.port.local = ("192.0.2.2", 0)
    assert [type(packet) for packet in client.asks(READ)] == [Data]
    assert client.tid[0] == "192.0.2.2"
    assert len(server.sessions) == 2


def test_a_stranger_is_told_once_and_the_transfer_goes_on(server):
    client, stranger = server.client(), server.client(port=666)
    client.asks(READ)
    stranger.tid = client.tid
    assert stranger.says(b"nonsense") == [ErrorPacket(5, "Unknown transfer ID")]
    assert stranger.says(Ack(1), ErrorPacket(0, "die"), Data(1, b"x")) == []
    assert [packet.block for packet in client.says(Ack(1))] == [2]


def test_a_strangers_error_is_neither_answered_nor_believed(server):
    client, stranger = server.client(), server.client(host="192.0.2.66")
    client.asks(READ)
    stranger.tid = client.tid
    assert stranger.says(ErrorPacket(0, "die"), b"\0\5") == []
    assert [packet.block for packet in client.says(Ack(1))] == [2]


def test_strangers_without_end_are_not_answered_without_end(server):
    client = server.client()
    client.asks(READ)
    answers = 0
    for port in range(3000, 3100):
        stranger = server.client(port=port)
        stranger.tid = client.tid
        answers += len(stranger.says(Ack(1)))
    assert answers == 32


def test_an_error_is_never_answered(server):
    client = server.client()
    client.asks(READ)
    assert client.says(ErrorPacket(0, "stop")) == []
    assert client.says(ErrorPacket(0, "stop")) == []
    assert client.waits(30) == []


def test_of_malformed_requests_one_a_second_is_logged(server):
    logged = []

    def observe(event):
        logged.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        for seconds in (0, 0.5, 0.4, 0.2):
            server.waits(seconds)
            assert isinstance(server.client().asks(b"\0\1x")[0], ErrorPacket)
    finally:
        globalLogPublisher.removeObserver(observe)
    first, last = logged
    assert first.startswith("malformed request from ('192.0.2.7', 2070): ")
    assert last == f"{first}, as were 2 more before it"


def test_malformed_packets_from_the_peer_are_dropped(server):
    client = server.client()
    client.asks(READ)
    assert client.says(b"", b"\0", b"\0\x04", b"\0\x04\0", b"\0\x63\0\1", b"\0\1", b"junk") == []
    assert [packet.block for packet in client.says(Ack(1))] == [2]


def test_a_broadcast_request_is_ignored(server):
    server.port.broadcast = True
    assert server.client().asks(READ) == []


def test_a_broadcast_request_is_answered_where_that_is_configured(offer):
    server = MemoryServer(offer, broadcast=True)
    server.port.broadcast = True
    assert [type(packet) for packet in server.client().asks(READ)] == [Data]


def test_a_full_house_is_silent_and_a_repeat_finds_room(limited):
    first, second, third = (limited.client(port=port) for port in (1, 2, 3))
    assert first.asks(READ) != []
    assert second.asks(READ) != []
    assert third.asks(READ) == []
    first.says(ErrorPacket(0, "bye"))
    assert third.asks(READ) != []


def test_a_session_that_dallies_gives_way(limited):
    clients = [limited.client(port=port) for port in (1, 2, 3)]
    for number, client in enumerate(clients):
        client.asks(Wrq(b"in/%d" % number, b"octet"))
        assert client.says(Data(1, b"x")) == [Ack(1)]
    assert len(limited.sessions) == 2


def test_a_fault_of_ours_does_not_reach_the_reactor(server, monkeypatch):
    monkeypatch.setattr("tftpd.server.listener.client_address", lambda peer: 1 // 0)
    assert server.client().asks(READ) == []
    monkeypatch.undo()
    assert server.client().asks(READ) != []


def test_stopping_tells_the_running_and_not_the_dallying(server):
    reader, writer = server.client(port=1), server.client(port=2)
    reader.asks(READ)
    writer.asks(Wrq(b"in/new", b"octet"))
    writer.says(Data(1, b"x"))
    server.sessions.stop()
    assert reader.hears() == [ErrorPacket(0, "Server is stopping")]
    assert writer.hears() == []
    assert _outcomes(server) == [Outcome.DONE, Outcome.STOPPED]
    assert server.idle
