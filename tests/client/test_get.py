"""Downloads of a client; the test plays the server, also a hostile one."""

import errno
import io
import os
import stat

import pytest
from twisted.internet.defer import CancelledError

from tests.client.conftest import TID, ClientDriver
from tests.support.fakes import SERVER, WELL_KNOWN
from tftpd.access.paths import TEMPORARY
from tftpd.client.errors import BadAnswer, LocalError, TimedOut
from tftpd.protocol.errors import (
    AccessDenied,
    AlreadyExists,
    DiskFull,
    NotFound,
    Refusal,
    ServerError,
)
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq
from tftpd.protocol.result import Outcome, TransferResult

REQUESTED_OPTIONS = ((b"tsize", b"0"), (b"blksize", b"1468"), (b"windowsize", b"16"))
OTHER_HOST = ("192.0.2.99", 4000)
OTHER_TID = (SERVER, 3001)


def oack_with_size(size, blksize=b"8"):
    return Oack(((b"tsize", b"%d" % size), (b"blksize", blksize)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture
def client(net):
    return ClientDriver(net)


def test_a_download_uses_the_options_that_the_server_grants(client, path):
    assert client.get(path) == [Rrq(b"f", b"octet", REQUESTED_OPTIONS)]
    assert client.receive(oack_with_size(10)) == [Ack(0)]
    assert client.receive(Data(1, b"12345678")) == [Ack(1)]
    assert not path.exists()
    assert client.receive(Data(2, b"90")) == [Ack(2)]
    assert path.read_bytes() == b"1234567890"
    result = client.result
    assert (result.outcome, result.bytes_transferred, result.blksize) == (Outcome.DONE, 10, 8)
    assert (result.direction, result.filename) == (Direction.READ, b"f")


def test_a_server_may_count_blocks_from_0(client, path):
    client.get(path)
    assert client.receive(Data(0, b"a" * 512)) == [Ack(0)]
    assert client.receive(Data(1, b"b")) == [Ack(1)]
    assert path.read_bytes() == b"a" * 512 + b"b"
    assert client.result.first_block == 0


def test_a_server_without_options_gets_no_ack_0(client, path):
    client.get(path)
    assert client.receive(Data(1, b"a" * 512)) == [Ack(1)]
    assert client.receive(Data(2, b"b")) == [Ack(2)]
    assert path.read_bytes() == b"a" * 512 + b"b"


def test_after_error_8_the_client_repeats_the_request_without_options(client, path):
    client.get(path)
    assert client.receive(ErrorPacket(8, "no")) == []
    assert client.sent_to((SERVER, WELL_KNOWN)) == [Rrq(b"f", b"octet")]
    assert client.receive(Data(1, b"abc"), OTHER_TID) == [Ack(1)]
    assert path.read_bytes() == b"abc"


def test_netascii_is_converted_to_local_line_ends(net, path):
    client = ClientDriver(net, mode=Mode.NETASCII)
    assert client.get(path) == [Rrq(b"f", b"netascii", REQUESTED_OPTIONS[1:])]
    client.receive(Data(1, b"one\r\ntwo\r\0"))
    assert path.read_bytes() == b"one\ntwo\r"


def test_an_existing_file_is_replaced_only_when_the_download_is_complete(client, path):
    path.write_bytes(b"old")
    client.get(path)
    client.receive(Data(1, b"n" * 512))
    assert path.read_bytes() == b"old"
    client.receive(Data(2, b""))
    assert path.read_bytes() == b"n" * 512


def test_a_new_file_gets_the_permissions_of_the_umask(client, path):
    before = os.umask(0o027)
    try:
        client.get(path)
        client.receive(Data(1, b""))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_temporary_files_of_killed_clients_are_removed_from_the_directory(client, path, tmp_path):
    below = tmp_path / "below"
    below.mkdir()
    stale, other = (os.fsdecode(TEMPORARY + number) for number in (b"1", b"2"))
    (tmp_path / stale).touch()
    (below / other).touch()
    client.get(path)
    client.receive(Data(1, b"new"))
    assert {entry.name for entry in tmp_path.iterdir()} == {"below", path.name}
    assert [entry.name for entry in below.iterdir()] == [other]


def test_an_open_file_is_written_only_when_the_download_is_complete(client, net):
    to = io.BytesIO()
    client.get(to)
    client.receive(Data(1, b"a" * 512))
    assert to.getvalue() == b""
    client.receive(Data(2, b"b"))
    assert to.getvalue() == b"a" * 512 + b"b"


def test_the_port_is_closed_after_the_last_ack(client, net, path):
    client.get(path)
    assert client.receive(Data(1, b"abc")) == [Ack(1)]
    assert (client.result.outcome, net.ports) == (Outcome.DONE, {})


def test_lost_packets_are_requested_again(client, path):
    request = client.get(path)
    assert client.advance(1) == request
    client.receive(oack_with_size(10))
    assert client.advance(1) == [Ack(0)]
    client.receive(Data(1, b"12345678"))
    assert client.advance(3) == [Ack(1)]
    client.receive(Data(2, b"90"))
    assert path.read_bytes() == b"1234567890"


def test_progress_reports_the_bytes_and_the_size(net, path):
    calls = []
    client = ClientDriver(net, progress=lambda *arguments: calls.append(arguments))
    client.get(path)
    client.receive(oack_with_size(10))
    client.receive(Data(1, b"12345678"))
    client.advance(0.3)
    client.receive(Data(2, b"90"))
    assert calls == [(8, 10), (10, 10)]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0, ServerError), (1, NotFound), (2, AccessDenied), (3, DiskFull), (4, ServerError),
        (6, AlreadyExists), (7, Refusal), (99, ServerError),
    ],
)  # fmt: skip
def test_an_error_packet_becomes_an_exception_with_its_code_and_text(client, path, code, kind):
    client.get(path)
    assert client.receive(ErrorPacket(code, "because")) == []
    if code in (0, 4):  # the options may be the reason
        assert client.receive(ErrorPacket(code, "because")) == []
    assert type(client.result) is kind
    assert (client.result.code, client.result.text) == (code, "because")
    assert client.net.ports == {}


def test_an_error_packet_without_a_text_is_described(client, path):
    client.get(path)
    client.receive(ErrorPacket(3, ""))
    assert (client.result.code, client.result.text) == (3, "the server gave no reason")


def test_an_error_during_a_download_keeps_the_existing_file(client, path, tmp_path):
    path.write_bytes(b"old")
    client.get(path)
    client.receive(Data(1, b"a" * 512))
    client.receive(ErrorPacket(0, "disk failed"))
    assert type(client.result) is ServerError
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_a_server_that_never_answers_causes_a_timeout(net, path):
    client = ClientDriver(net, idle_timeout=5.0)
    client.get(path)
    client.advance(4)
    assert client.result is None
    client.advance(5)
    assert type(client.result) is TimedOut
    assert net.ports == {}


def test_a_server_that_stops_answering_causes_a_timeout(client, path, tmp_path):
    client.get(path)
    client.receive(Data(1, b"a" * 512))
    client.advance(45)
    assert type(client.result) is TimedOut
    assert list(tmp_path.iterdir()) == []


def test_invalid_packets_do_not_extend_the_timeout(net, path):
    client = ClientDriver(net, idle_timeout=5.0)
    client.get(path)
    for _ in range(20):
        client.receive(b"\0\7junk")
        client.receive(Ack(1))
        client.advance(0.5)
    assert type(client.result) is TimedOut


def test_a_server_that_sends_too_slowly_ends_the_transfer(net, path, tmp_path):
    client = ClientDriver(net, idle_timeout=5.0)
    client.get(path)
    client.receive(oack_with_size(4000))
    for number in (1, 2, 3):
        assert client.receive(Data(number, b"12345678"))[-1] == Ack(number)
        client.advance(3.0)
    client.advance(1.0)
    assert client.receive(Data(4, b"12345678")) == [ErrorPacket(0, "Transfer is too slow")]
    assert type(client.result) is TimedOut
    assert str(client.result) == "the transfer is too slow: 32 bytes in 10 s (--min-rate 128)"
    assert list(tmp_path.iterdir()) == []


def test_a_slow_transfer_that_has_its_last_block_is_stored(net, path):
    client = ClientDriver(net, idle_timeout=5.0)
    client.get(path)
    client.receive(oack_with_size(20))
    client.advance(4.9)
    client.receive(Data(1, b"12345678"))
    client.advance(4.9)
    client.receive(Data(2, b"12345678"))
    client.advance(0.2)  # 10 s have passed, and no timer
    client.receive(Data(3, b"1234"))
    assert client.result.outcome is Outcome.DONE


@pytest.mark.parametrize(("min_rate", "outcome"), [(3, TimedOut), (0, TransferResult)])
def test_the_rate_is_measured_again_in_each_interval(net, path, min_rate, outcome):
    client = ClientDriver(net, idle_timeout=5.0, min_rate=min_rate)
    client.get(path)
    client.receive(oack_with_size(76))
    pauses = [2.0] * 5 + [4.5] * 4  # at least 40 bytes in the first 10 s, at most 24 in the next
    for number, pause in enumerate(pauses, 1):
        assert client.result is None or number > 7
        client.receive(Data(number, b"12345678"))
        client.advance(pause)
    client.receive(Data(10, b"1234"))
    assert type(client.result) is outcome


def test_packets_from_another_host_get_error_5_and_are_ignored(client, path):
    client.get(path)
    assert client.receive(Data(1, b"evil"), OTHER_HOST) == [ErrorPacket(5, "Unknown transfer ID")]
    assert client.receive(ErrorPacket(1, "evil"), OTHER_HOST) == []
    client.receive(Data(1, b"good"))
    assert path.read_bytes() == b"good"


def test_packets_from_another_port_of_the_server_get_error_5(client, path):
    client.get(path)
    client.receive(Data(1, b"a" * 512))
    assert client.receive(Data(1, b"evil"), OTHER_TID) == [ErrorPacket(5, "Unknown transfer ID")]
    assert client.receive(ErrorPacket(0, "evil"), OTHER_TID) == []
    assert client.receive(Data(2, b"b")) == [Ack(2)]
    assert path.read_bytes() == b"a" * 512 + b"b"


def test_error_packets_from_other_addresses_are_not_answered(client, path):
    client.get(path)
    for port in range(1000, 1100):
        assert client.receive(ErrorPacket(1, "storm"), ("192.0.2.99", port)) == []
    assert client.result is None
    client.receive(Data(1, b""))


def test_an_oack_with_a_larger_value_than_requested_gets_error_8(client, path, tmp_path):
    client.get(path)
    oack = Oack(((b"blksize", b"9000"),))
    assert client.receive(oack) == [ErrorPacket(8, "Option negotiation refused")]
    assert type(client.result) is BadAnswer
    assert list(tmp_path.iterdir()) == []


def test_a_file_larger_than_announced_is_rejected(client, path, tmp_path):
    client.get(path)
    client.receive(oack_with_size(10))
    client.receive(Data(1, b"12345678"))
    (answer,) = client.receive(Data(2, b"12345678"))
    assert answer.code == 4
    assert type(client.result) is BadAnswer
    assert list(tmp_path.iterdir()) == []


def test_a_file_smaller_than_announced_is_rejected(client, path, tmp_path):
    client.get(path)
    client.receive(oack_with_size(10))
    (answer,) = client.receive(Data(1, b"123"))
    assert answer.code == 4
    assert type(client.result) is BadAnswer
    assert list(tmp_path.iterdir()) == []


def test_a_block_longer_than_negotiated_is_rejected(client, path, tmp_path):
    client.get(path)
    (answer,) = client.receive(Data(1, b"a" * 513))
    assert answer.code == 4
    assert type(client.result) is BadAnswer
    assert list(tmp_path.iterdir()) == []


def test_max_size_limits_the_announced_size_and_the_received_bytes(net, path, tmp_path):
    client = ClientDriver(net, max_size=600)
    client.get(path)
    (answer,) = client.receive(oack_with_size(601))
    assert (answer.code, type(client.result)) == (3, LocalError)
    client = ClientDriver(net, max_size=600)
    client.get(path)
    client.receive(Data(1, b"a" * 512))
    (answer,) = client.receive(Data(2, b"a" * 512))
    assert (answer.code, type(client.result)) == (3, LocalError)
    assert str(client.result) == f"{path}: larger than 600 bytes (--max-size)"
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_at_most_4_gib_unless_another_limit_is_given(net):
    size = (4 << 30) + 1
    for settings, answer in (({}, 3), ({"max_size": size}, None), ({"max_size": None}, None)):
        client = ClientDriver(net, **settings)
        client.get(io.BytesIO())
        (packet,) = client.receive(oack_with_size(size))
        assert getattr(packet, "code", None) == answer
        client.receive(ErrorPacket(0, "end"))


def test_an_open_file_that_cannot_be_written_causes_a_local_error(client):
    with open("/dev/full", "wb", buffering=0) as full:
        client.get(full)
        client.receive(Data(1, b"abc"))
    assert type(client.result) is LocalError
    assert str(client.result) == "/dev/full: No space left on device"


@pytest.mark.parametrize("host", ["no such host", "x" * 64 + ".example"])
def test_an_invalid_host_name_causes_a_local_error(net, path, host):
    client = ClientDriver(net)
    client.get(path, host=host)
    assert type(client.result) is LocalError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none/file", "{}: No such file or directory"),
        ("plain/file", "{}: Not a directory"),
        ("directory", "{}: not a regular file"),
    ],
)
def test_a_destination_that_cannot_be_written_is_reported_before_the_request(
    client, tmp_path, name, message
):
    (tmp_path / "plain").touch()
    (tmp_path / "directory").mkdir()
    assert client.get(tmp_path / name) == []
    assert type(client.result) is LocalError
    assert str(client.result) == message.format(tmp_path / name)


def test_a_directory_that_vanishes_after_the_request_causes_an_error_packet(client, tmp_path):
    path = tmp_path / "sub" / "file"
    path.parent.mkdir()
    client.get(path)
    path.parent.rmdir()
    (answer,) = client.receive(Data(1, b"abc"))
    assert (answer.code, type(client.result)) == (1, LocalError)
    assert str(client.result).startswith(f"{path}: ")


def test_a_full_disk_names_the_local_file_and_the_server_gets_error_3(
    client, path, tmp_path, monkeypatch
):
    class FullFile(io.FileIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    opener = "tftpd.client.files.open"
    monkeypatch.setattr(opener, lambda *of: io.BufferedWriter(FullFile(*of[:2])), raising=False)
    client.get(path)
    (answer,) = client.receive(Data(1, b"abc"))
    assert (answer.code, type(client.result)) == (3, LocalError)
    assert str(client.result) == f"{path}: No space left on device"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answered", [False, True])
def test_cancellation_sends_an_error_and_removes_the_incomplete_file(
    client, net, path, tmp_path, answered
):
    client.get(path)
    to = (SERVER, WELL_KNOWN)
    if answered:
        client.receive(Data(1, b"a" * 512))
        to = TID
    client.done.cancel()
    assert type(client.result) is CancelledError
    assert client.sent_to(to) == [ErrorPacket(0, "Transfer was cancelled")]
    assert (net.ports, list(tmp_path.iterdir())) == ({}, [])


def test_a_port_that_cannot_be_opened_causes_a_local_error(client, net, path):
    net.no_ports = True
    client.get(path)
    assert type(client.result) is LocalError


def test_a_setting_out_of_range_causes_a_value_error(net, path):
    client = ClientDriver(net, blksize=7)
    client.get(path)
    assert type(client.result) is ValueError


def test_the_requested_window_is_limited_to_2_mib(net, path):
    client = ClientDriver(net, blksize=65464, windowsize=65535)
    (request,) = client.get(path)
    assert dict(request.options)[b"windowsize"] == b"32"
    client.receive(Data(1, b""))
