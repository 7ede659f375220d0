"""A request to everyone: who is first serves, and the others are told."""

import pytest

from tests.client.conftest import TID, Talk
from tests.support.fakes import WELL_KNOWN
from tftpd.client.endpoint import resolve_server
from tftpd.client.errors import NotFound, TimedOut
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq

EVERYONE = "127.255.255.255"
OTHER = ("192.0.2.66", 3300)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def asking(net, path):
    talk = Talk(net, blksize=512, windowsize=1)
    assert talk.gets(path, host=EVERYONE) == [Rrq(b"f", b"octet", ((b"tsize", b"0"),))]
    return talk


def test_the_first_to_answer_serves_and_the_others_are_told(net, path):
    talk = asking(net, path)
    assert talk.hears(Oack(((b"tsize", b"3"),)), OTHER) == [Ack(0)]
    assert talk.hears(Oack(((b"tsize", b"9"),)), TID) == [ErrorPacket(5, "Unknown transfer ID")]
    assert talk.hears(Data(1, b"abc"), OTHER) == [Ack(1)]
    assert path.read_bytes() == b"abc"
    assert talk.result.peer == OTHER


def test_only_such_a_request_may_leave_to_everyone(net, path):
    asking(net, path)
    (port,) = net.ports.values()
    assert port.getBroadcastAllowed()
    net.sent.clear()
    Talk(net).gets(path)
    assert [port.getBroadcastAllowed() for port in net.ports.values()] == [True, False]


def test_an_upload_goes_to_the_first_that_takes_it(net):
    talk = Talk(net, blksize=512, windowsize=1)
    assert talk.puts(b"abc", host=EVERYONE) == [Wrq(b"f", b"octet", ((b"tsize", b"3"),))]
    assert talk.hears(Ack(0), OTHER) == [Data(1, b"abc")]
    assert talk.hears(Ack(0), TID) == [ErrorPacket(5, "Unknown transfer ID")]
    talk.hears(Ack(1), OTHER)
    assert talk.result.octets == 3


def test_a_refusal_counts_where_nobody_serves(net, path):
    talk = asking(net, path)
    assert talk.hears(ErrorPacket(1, "no"), OTHER) == []
    assert talk.result is None
    talk.waits(1.5)
    assert isinstance(talk.result, NotFound)


def test_one_that_serves_after_a_refusal_is_taken(net, path):
    talk = asking(net, path)
    talk.hears(ErrorPacket(1, "no"), OTHER)
    assert talk.hears(Data(1, b"abc"), TID) == [Ack(1)]
    assert path.read_bytes() == b"abc"


def test_options_that_all_refuse_are_not_asked_for_again(net, path):
    talk = asking(net, path)
    talk.hears(ErrorPacket(8, "no"), OTHER)
    talk.waits(1.5)
    assert talk.said((EVERYONE, WELL_KNOWN)) == [Rrq(b"f", b"octet")]


def test_where_nobody_is_it_ends(net, path):
    talk = asking(net, path)
    talk.waits(40)
    assert isinstance(talk.result, TimedOut)


@pytest.mark.parametrize(
    ("host", "everyone"),
    [("127.0.0.1", False), (EVERYONE, True), ("224.0.0.1", True)],
)
def test_addresses_of_many_hosts_are_known(host, everyone):
    assert resolve_server(host, WELL_KNOWN, "127.0.0.1").broadcast is everyone


def test_the_path_says_how_large_a_block_may_be():
    assert resolve_server("127.0.0.1", WELL_KNOWN, None).blksize == 65464  # loopback takes 65536
    assert resolve_server("::1", WELL_KNOWN, None).blksize == 65464


def test_where_there_is_no_way_it_says_so_at_once():
    with pytest.raises(OSError, match=r"no way to 127\.0\.0\.1: Cannot assign"):
        resolve_server("127.0.0.1", WELL_KNOWN, "192.0.2.77")


def test_a_network_may_be_asked_from_one_address_of_ours():
    assert resolve_server("localhost", WELL_KNOWN, "127.0.0.1").local == ("127.0.0.1", 0)
