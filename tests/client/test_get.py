"""Downloads by a client whose server is the test, some of them hostile."""

import io
import os
import stat

import pytest
from twisted.internet.defer import CancelledError

from tests.client.conftest import TID, Talk
from tests.support.fakes import SERVER, WELL_KNOWN
from tftpd.client.errors import (
    AccessDenied,
    AlreadyExists,
    BadAnswer,
    LocalError,
    NotFound,
    Refusal,
    ServerError,
    TimedOut,
)
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq
from tftpd.protocol.result import Outcome

ASKED = ((b"tsize", b"0"), (b"blksize", b"1468"), (b"windowsize", b"16"))
STRANGER = ("192.0.2.99", 4000)
OTHER_TID = (SERVER, 3001)


def sized(size, blksize=b"8"):
    return Oack(((b"tsize", b"%d" % size), (b"blksize", blksize)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture
def talk(net):
    return Talk(net)


def test_a_file_is_fetched_on_the_terms_of_the_server(talk, path):
    assert talk.gets(path) == [Rrq(b"f", b"octet", ASKED)]
    assert talk.hears(sized(10)) == [Ack(0)]
    assert talk.hears(Data(1, b"12345678")) == [Ack(1)]
    assert not path.exists()
    assert talk.hears(Data(2, b"90")) == [Ack(2)]
    assert path.read_bytes() == b"1234567890"
    report = talk.result
    assert (report.outcome, report.octets, report.blksize) == (Outcome.DONE, 10, 8)
    assert (report.direction, report.filename) == (Direction.READ, b"f")


def test_a_server_of_rfc_1350_gets_no_ack_0(talk, path):
    talk.gets(path)
    assert talk.hears(Data(1, b"a" * 512)) == [Ack(1)]
    assert talk.hears(Data(2, b"b")) == [Ack(2)]
    assert path.read_bytes() == b"a" * 512 + b"b"


def test_after_error_8_it_goes_without_options(talk, path):
    talk.gets(path)
    assert talk.hears(ErrorPacket(8, "no")) == []
    assert talk.said((SERVER, WELL_KNOWN)) == [Rrq(b"f", b"octet")]
    assert talk.hears(Data(1, b"abc"), OTHER_TID) == [Ack(1)]
    assert path.read_bytes() == b"abc"


def test_netascii_becomes_local_text_whatever_size_is_told(net, path):
    talk = Talk(net, mode=Mode.NETASCII)
    assert talk.gets(path) == [Rrq(b"f", b"netascii", ASKED[1:])]
    talk.hears(Data(1, b"one\r\ntwo\r\0"))
    assert path.read_bytes() == b"one\ntwo\r"


def test_an_older_file_is_replaced_as_a_whole(talk, path):
    path.write_bytes(b"old")
    talk.gets(path)
    talk.hears(Data(1, b"n" * 512))
    assert path.read_bytes() == b"old"
    talk.hears(Data(2, b""))
    assert path.read_bytes() == b"n" * 512


def test_a_new_file_has_the_permissions_of_any_new_file(talk, path):
    before = os.umask(0o027)
    try:
        talk.gets(path)
        talk.hears(Data(1, b""))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_an_open_file_gets_all_or_nothing(talk, net):
    to = io.BytesIO()
    talk.gets(to)
    talk.hears(Data(1, b"a" * 512))
    assert to.getvalue() == b""
    talk.hears(Data(2, b"b"))
    assert to.getvalue() == b"a" * 512 + b"b"


def test_the_last_ack_is_repeated_for_a_while(talk, net, path):
    talk.gets(path)
    talk.hears(Data(1, b"abc"))
    assert talk.result.outcome is Outcome.DONE
    talk.waits(1)
    assert talk.hears(Data(1, b"abc")) == [Ack(1)]
    talk.waits(5)
    assert net.ports == {}


def test_lost_packets_are_asked_for_again(talk, path):
    request = talk.gets(path)
    assert talk.waits(1) == request
    talk.hears(sized(10))
    assert talk.waits(1) == [Ack(0)]
    talk.hears(Data(1, b"12345678"))
    assert talk.waits(3) == [Ack(1)]
    talk.hears(Data(2, b"90"))
    assert path.read_bytes() == b"1234567890"


def test_progress_is_told_with_the_size(talk, path):
    told = []
    talk.gets(path, progress=lambda *how: told.append(how))
    talk.hears(sized(10))
    talk.hears(Data(1, b"12345678"))
    talk.waits(0.3)
    talk.hears(Data(2, b"90"))
    assert told == [(8, 10), (10, 10)]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0, ServerError), (1, NotFound), (2, AccessDenied), (3, Refusal), (4, ServerError),
        (6, AlreadyExists), (7, Refusal), (99, ServerError),
    ],
)  # fmt: skip
def test_an_error_of_the_server_has_its_type_its_code_and_its_text(talk, path, code, kind):
    talk.gets(path)
    assert talk.hears(ErrorPacket(code, "because")) == []
    assert type(talk.result) is kind
    assert (talk.result.code, talk.result.text) == (code, "because")
    assert talk.net.ports == {}


def test_an_error_in_the_midst_leaves_nothing(talk, path, tmp_path):
    path.write_bytes(b"old")
    talk.gets(path)
    talk.hears(Data(1, b"a" * 512))
    talk.hears(ErrorPacket(0, "disk failed"))
    assert type(talk.result) is ServerError
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_a_server_that_never_answers_is_given_up(net, path):
    talk = Talk(net, patience=5.0)
    talk.gets(path)
    talk.waits(4)
    assert talk.result is None
    talk.waits(5)
    assert type(talk.result) is TimedOut
    assert net.ports == {}


def test_a_server_that_falls_silent_is_given_up(talk, path, tmp_path):
    talk.gets(path)
    talk.hears(Data(1, b"a" * 512))
    talk.waits(45)
    assert type(talk.result) is TimedOut
    assert list(tmp_path.iterdir()) == []


def test_junk_without_end_does_not_keep_it_waiting(net, path):
    talk = Talk(net, patience=5.0)
    talk.gets(path)
    for _ in range(20):
        talk.hears(b"\0\7junk")
        talk.hears(Ack(1))
        talk.waits(0.5)
    assert type(talk.result) is TimedOut


def test_another_host_is_told_error_5_and_heard_no_further(talk, path):
    talk.gets(path)
    assert talk.hears(Data(1, b"evil"), STRANGER) == [ErrorPacket(5, "Unknown transfer ID")]
    assert talk.hears(ErrorPacket(1, "evil"), STRANGER) == []
    talk.hears(Data(1, b"good"))
    assert path.read_bytes() == b"good"


def test_another_port_of_the_server_is_a_stranger_once_one_has_answered(talk, path):
    talk.gets(path)
    talk.hears(Data(1, b"a" * 512))
    assert talk.hears(Data(1, b"evil"), OTHER_TID) == [ErrorPacket(5, "Unknown transfer ID")]
    assert talk.hears(ErrorPacket(0, "evil"), OTHER_TID) == []
    assert talk.hears(Data(2, b"b")) == [Ack(2)]
    assert path.read_bytes() == b"a" * 512 + b"b"


def test_a_storm_of_errors_from_strangers_is_not_answered(talk, path):
    talk.gets(path)
    for port in range(1000, 1100):
        assert talk.hears(ErrorPacket(1, "storm"), ("192.0.2.99", port)) == []
    assert talk.result is None
    talk.hears(Data(1, b""))


def test_a_lying_oack_gets_error_8(talk, path, tmp_path):
    talk.gets(path)
    lie = Oack(((b"blksize", b"9000"),))
    assert talk.hears(lie) == [ErrorPacket(8, "Option negotiation refused")]
    assert type(talk.result) is BadAnswer
    assert list(tmp_path.iterdir()) == []


def test_more_than_the_announced_size_is_refused(talk, path, tmp_path):
    talk.gets(path)
    talk.hears(sized(10))
    talk.hears(Data(1, b"12345678"))
    (answer,) = talk.hears(Data(2, b"12345678"))
    assert answer.code == 4
    assert type(talk.result) is BadAnswer
    assert list(tmp_path.iterdir()) == []


def test_less_than_the_announced_size_is_no_file(talk, path, tmp_path):
    talk.gets(path)
    talk.hears(sized(10))
    (answer,) = talk.hears(Data(1, b"123"))
    assert answer.code == 4
    assert type(talk.result) is BadAnswer
    assert list(tmp_path.iterdir()) == []


def test_a_block_longer_than_agreed_is_refused(talk, path, tmp_path):
    talk.gets(path)
    (answer,) = talk.hears(Data(1, b"a" * 513))
    assert answer.code == 4
    assert type(talk.result) is BadAnswer
    assert list(tmp_path.iterdir()) == []


def test_max_size_bounds_what_is_announced_and_what_comes(net, path, tmp_path):
    talk = Talk(net)
    talk.gets(path, max_size=600)
    (answer,) = talk.hears(sized(601))
    assert (answer.code, type(talk.result)) == (3, LocalError)
    talk = Talk(net)
    talk.gets(path, max_size=600)
    talk.hears(Data(1, b"a" * 512))
    (answer,) = talk.hears(Data(2, b"a" * 512))
    assert (answer.code, type(talk.result)) == (3, LocalError)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_once_all_is_here_is_an_error_of_ours(talk):
    with open("/dev/full", "wb", buffering=0) as full:
        talk.gets(full)
        talk.hears(Data(1, b"abc"))
    assert type(talk.result) is LocalError
    assert str(talk.result) == "No space left on device"


@pytest.mark.parametrize("host", ["no such host", "x" * 64 + ".example"])
def test_a_host_that_cannot_be_is_an_error_of_ours(net, path, host):
    talk = Talk(net)
    talk.gets(path, host=host)
    assert type(talk.result) is LocalError


def test_a_directory_that_is_not_there_is_told_to_the_server_too(talk, tmp_path):
    talk.gets(tmp_path / "none" / "file")
    (answer,) = talk.hears(Data(1, b"abc"))
    assert isinstance(answer, ErrorPacket)
    assert type(talk.result) is LocalError


@pytest.mark.parametrize("answered", [False, True])
def test_cancelling_tells_the_server_and_leaves_nothing(talk, net, path, tmp_path, answered):
    talk.gets(path)
    to = (SERVER, WELL_KNOWN)
    if answered:
        talk.hears(Data(1, b"a" * 512))
        to = TID
    talk.done.cancel()
    assert type(talk.result) is CancelledError
    assert talk.said(to) == [ErrorPacket(0, "Transfer was cancelled")]
    assert (net.ports, list(tmp_path.iterdir())) == ({}, [])


def test_no_port_is_an_error_of_ours(talk, net, path):
    net.no_ports = True
    talk.gets(path)
    assert type(talk.result) is LocalError


def test_what_no_request_can_ask_is_a_value_error(net, path):
    talk = Talk(net, blksize=7)
    talk.gets(path)
    assert type(talk.result) is ValueError


def test_a_window_is_asked_for_only_as_large_as_memory_allows(net, path):
    talk = Talk(net, blksize=65464, windowsize=65535)
    (request,) = talk.gets(path)
    assert dict(request.options)[b"windowsize"] == b"32"
    talk.hears(Data(1, b""))


def test_an_error_after_the_last_block_comes_too_late(net, talk, path):
    talk.gets(path)
    net.hold_threads = True
    assert talk.hears(Data(1, b"whole")) == []
    assert talk.hears(ErrorPacket(0, "no more")) == []
    net.run_threads()
    assert talk.said(TID) == [Ack(1)]
    assert (talk.result.outcome, path.read_bytes()) == (Outcome.DONE, b"whole")
