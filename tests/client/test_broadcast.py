"""Requests to broadcast and multicast addresses."""

import pytest

from tests.client.conftest import TID, ClientDriver
from tests.support.fakes import WELL_KNOWN
from tftpd.client.endpoint import resolve_server
from tftpd.client.errors import LocalError, TimedOut
from tftpd.protocol.errors import NotFound
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq

BROADCAST = "127.255.255.255"
OTHER = ("192.0.2.66", 3300)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def start_broadcast(net, path):
    client = ClientDriver(net, blksize=512, windowsize=1)
    assert client.get(path, host=BROADCAST) == [Rrq(b"f", b"octet", ((b"tsize", b"0"),))]
    return client


def test_the_first_answer_is_used_and_other_servers_get_error_5(net, path):
    client = start_broadcast(net, path)
    assert client.receive(Oack(((b"tsize", b"3"),)), OTHER) == [Ack(0)]
    assert client.receive(Oack(((b"tsize", b"9"),)), TID) == [ErrorPacket(5, "Unknown transfer ID")]
    assert client.receive(Data(1, b"abc"), OTHER) == [Ack(1)]
    assert path.read_bytes() == b"abc"
    assert client.result.peer == OTHER


def test_only_a_broadcast_request_enables_broadcasts_on_its_port(net, path):
    start_broadcast(net, path)
    (port,) = net.ports.values()
    assert port.getBroadcastAllowed()
    net.sent.clear()
    ClientDriver(net).get(path)
    assert [port.getBroadcastAllowed() for port in net.ports.values()] == [True, False]


def test_an_upload_goes_to_the_first_server_that_accepts_it(net):
    client = ClientDriver(net, blksize=512, windowsize=1)
    assert client.put(b"abc", host=BROADCAST) == [Wrq(b"f", b"octet", ((b"tsize", b"3"),))]
    assert client.receive(Ack(0), OTHER) == [Data(1, b"abc")]
    assert client.receive(Ack(0), TID) == [ErrorPacket(5, "Unknown transfer ID")]
    client.receive(Ack(1), OTHER)
    assert client.result.bytes_transferred == 3


def test_a_refusal_counts_if_no_other_server_answers(net, path):
    client = start_broadcast(net, path)
    assert client.receive(ErrorPacket(1, "no"), OTHER) == []
    assert client.result is None
    client.advance(1.5)
    assert isinstance(client.result, NotFound)


def test_a_server_that_answers_after_a_refusal_is_used(net, path):
    client = start_broadcast(net, path)
    client.receive(ErrorPacket(1, "no"), OTHER)
    assert client.receive(Data(1, b"abc"), TID) == [Ack(1)]
    assert path.read_bytes() == b"abc"


def test_the_request_is_repeated_without_options_if_all_servers_refuse_them(net, path):
    client = start_broadcast(net, path)
    client.receive(ErrorPacket(8, "no"), OTHER)
    client.advance(0.6)
    assert client.sent_to((BROADCAST, WELL_KNOWN)) == [Rrq(b"f", b"octet")]


def test_a_broadcast_without_answer_causes_a_timeout(net, path):
    client = start_broadcast(net, path)
    client.advance(40)
    assert isinstance(client.result, TimedOut)


@pytest.mark.parametrize(
    ("host", "broadcast"),
    [("127.0.0.1", False), (BROADCAST, True), ("224.0.0.1", True)],
)
def test_broadcast_and_multicast_addresses_are_detected(host, broadcast):
    assert resolve_server(host, WELL_KNOWN, "127.0.0.1").broadcast is broadcast


def test_the_block_size_follows_the_path_mtu():
    assert resolve_server("127.0.0.1", WELL_KNOWN, None).blksize == 65464  # loopback takes 65536
    assert resolve_server("::1", WELL_KNOWN, None).blksize == 65464


def test_an_unreachable_server_is_reported_at_once():
    with pytest.raises(LocalError, match=r"cannot send from .*: Cannot assign"):
        resolve_server("127.0.0.1", WELL_KNOWN, "192.0.2.77")


def test_the_local_address_can_be_chosen():
    assert resolve_server("localhost", WELL_KNOWN, "127.0.0.1").local == ("127.0.0.1", 0)
