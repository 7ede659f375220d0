"""Uploads of a client; the test plays the server."""

import io
import os
from pathlib import Path
from threading import Thread

import pytest
from twisted.internet.defer import CancelledError

from tests.client.conftest import TID, ClientDriver
from tests.support.fakes import SERVER, WELL_KNOWN, let_pass
from tftpd.client.errors import BadAnswer, LocalError, TimedOut
from tftpd.protocol.errors import AlreadyExists, Refusal, ServerError
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Wrq
from tftpd.protocol.result import Outcome

ERROR_8_TEXT = "Option negotiation refused"
OACK_WITH_BLKSIZE_8 = Oack(((b"tsize", b"5"), (b"blksize", b"8")))


@pytest.fixture
def client(net):
    return ClientDriver(net)


def test_an_upload_uses_the_options_that_the_server_grants(client):
    requested = ((b"tsize", b"10"), (b"blksize", b"1468"), (b"windowsize", b"16"))
    assert client.put(b"1234567890") == [Wrq(b"f", b"octet", requested)]
    granted = Oack(((b"blksize", b"8"), (b"windowsize", b"2")))
    assert client.receive(granted) == [Data(1, b"12345678"), Data(2, b"90")]
    assert client.result is None
    assert client.receive(Ack(2)) == []
    result = client.result
    assert (result.outcome, result.bytes_transferred, result.direction) == (
        Outcome.DONE, 10, Direction.WRITE,
    )  # fmt: skip
    assert client.net.ports == {}


def test_a_server_without_options_gets_blocks_of_512_bytes(client):
    client.put(b"a" * 600)
    assert client.receive(Ack(0)) == [Data(1, b"a" * 512)]
    assert client.receive(Ack(1)) == [Data(2, b"a" * 88)]
    client.receive(Ack(2))
    assert client.result.outcome is Outcome.DONE


def test_an_upload_may_count_blocks_from_0(net):
    client = ClientDriver(net, first_block=0)
    client.put(b"a" * 600)
    assert client.receive(Ack(0)) == [Data(0, b"a" * 512)]
    assert client.receive(Ack(0)) == [Data(1, b"a" * 88)]
    client.receive(Ack(1))
    assert (client.result.outcome, client.result.first_block) == (Outcome.DONE, 0)


def test_a_server_that_acknowledges_too_slowly_ends_the_transfer(net):
    client = ClientDriver(net, idle_timeout=5.0)
    client.put(b"a" * 4000)
    client.receive(Oack(((b"blksize", b"8"),)))
    for number in (1, 2, 3):
        client.advance(3.0)
        assert client.receive(Ack(number))[-1] == Data(number + 1, b"a" * 8)
    client.advance(1.0)
    assert client.receive(Ack(4)) == [ErrorPacket(0, "Transfer is too slow")]
    assert type(client.result) is TimedOut


def test_error_4_in_reply_to_the_request_is_a_refusal(client):
    client.put(b"hello")
    client.receive(ErrorPacket(4, "unsupported request"))
    assert client.advance(0) == [Wrq(b"f", b"octet")]  # the options may be the reason
    client.receive(ErrorPacket(4, "unsupported request"))
    assert type(client.result) is Refusal


def test_a_server_that_ignores_options_gets_the_file(client):
    client.put(b"hello")
    assert client.advance(1.6)[1:] == [Wrq(b"f", b"octet")]
    assert client.receive(Ack(0)) == [Data(1, b"hello")]
    client.receive(Ack(1))
    assert (client.result.outcome, client.result.fell_back) == (Outcome.DONE, True)


def test_a_late_oack_is_refused_and_the_upload_goes_to_the_first_plain_answer(client):
    client.put(b"hello")
    client.advance(1.6)
    late = (SERVER, 3001)
    assert client.receive(OACK_WITH_BLKSIZE_8, late) == [ErrorPacket(8, ERROR_8_TEXT)]
    assert client.receive(Ack(0)) == [Data(1, b"hello")]
    assert client.receive(Ack(0), late) == [ErrorPacket(5, "Unknown transfer ID")]
    client.receive(Ack(1))
    assert client.result.outcome is Outcome.DONE


def test_an_upload_may_request_no_options(net):
    client = ClientDriver(net, has_options=False)
    assert client.put(b"hello") == [Wrq(b"f", b"octet")]
    client.receive(ErrorPacket(4, ""))
    assert type(client.result) is Refusal


@pytest.mark.parametrize("first_block", [1, 0])
def test_a_hint_names_first_block_0_if_the_server_acknowledges_block_0_only(net, first_block):
    client = ClientDriver(net, first_block=first_block)
    client.put(b"hello")
    client.receive(Ack(0))
    client.advance(100)
    assert type(client.result) is TimedOut
    assert ("--first-block 0" in client.result.text) == (first_block == 1)


def test_error_4_during_an_upload_is_not_a_refusal(client):
    client.put(b"a" * 600)
    client.receive(Ack(0))
    client.receive(Ack(1))
    client.receive(ErrorPacket(4, "illegal operation"))
    assert type(client.result) is ServerError


def test_paths_open_files_and_pipes_can_be_sent(net, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    reader, writer = os.pipe()
    os.write(writer, b"hello")
    os.close(writer)
    with open(reader, "rb") as pipe:
        for source in (path, str(path), io.BytesIO(b"hello"), pipe):
            client = ClientDriver(net)
            (request,) = client.put(source)
            assert dict(request.options)[b"tsize"] == b"5"
            assert client.receive(OACK_WITH_BLKSIZE_8) == [Data(1, b"hello")]
            client.receive(Ack(1))
            assert client.result.outcome is Outcome.DONE


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="/proc is not available")
def test_a_file_without_size_is_sent_with_its_content(client):
    (request,) = client.put("/proc/self/comm")
    size = len(Path("/proc/self/comm").read_bytes())
    assert dict(request.options)[b"tsize"] == b"%d" % size
    (data,) = client.receive(Oack(((b"tsize", b"%d" % size),)))
    assert len(data.payload) == size
    client.receive(Ack(1))


def test_an_empty_file_is_sent(client, tmp_path):
    (tmp_path / "empty").touch()
    client.put(tmp_path / "empty")
    assert client.receive(Ack(0)) == [Data(1, b"")]
    client.receive(Ack(1))
    assert client.result.outcome is Outcome.DONE


def test_a_named_pipe_is_read_to_its_end_before_the_request(client, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = Thread(target=lambda: path.write_bytes(b"hello"), daemon=True)
    writer.start()
    (request,) = client.put(path)
    writer.join()
    assert dict(request.options)[b"tsize"] == b"5"
    assert client.receive(OACK_WITH_BLKSIZE_8) == [Data(1, b"hello")]
    client.receive(Ack(1))
    assert client.result.outcome is Outcome.DONE


def test_netascii_uploads_convert_line_ends(net):
    client = ClientDriver(net, mode=Mode.NETASCII)
    (request,) = client.put(b"one\ntwo\r")
    assert (request.mode, b"tsize" in dict(request.options)) == (b"netascii", False)
    assert client.receive(Ack(0)) == [Data(1, b"one\r\ntwo\r\0")]
    client.receive(Ack(1))


def test_lost_packets_are_retransmitted(client):
    request = client.put(b"hello")
    assert client.advance(1) == request
    assert client.receive(OACK_WITH_BLKSIZE_8) == [Data(1, b"hello")]
    assert client.advance(1) == [Data(1, b"hello")]
    client.receive(Ack(1))
    assert client.result.outcome is Outcome.DONE


def test_a_refusal_may_arrive_before_and_after_the_first_block(net):
    for packets in ([], [OACK_WITH_BLKSIZE_8]):
        client = ClientDriver(net)
        client.put(b"hello")
        for answer in packets:
            client.receive(answer)
        client.receive(ErrorPacket(6, "file exists"))
        assert type(client.result) is AlreadyExists


def test_a_last_block_without_ack_causes_a_timeout(client):
    client.put(b"a" * 600)
    client.receive(Ack(0))
    client.receive(Ack(1))
    client.advance(60)
    assert type(client.result) is TimedOut


def test_an_oack_with_an_unrequested_option_ends_the_upload(client):
    client.put(b"hello")
    assert client.receive(Oack(((b"multicast", b""),))) == [
        ErrorPacket(8, "Option negotiation refused")
    ]
    assert type(client.result) is BadAnswer


def test_a_source_that_cannot_be_read_is_reported_before_the_request(client, tmp_path):
    for path, message in (
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        assert client.put(path) == []
        assert type(client.result) is LocalError
        assert str(client.result) == f"{path}: {message}"


def test_a_local_file_that_is_cut_during_the_upload_is_named(client, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a" * 600)
    client.put(path)
    path.write_bytes(b"")
    (answer,) = client.receive(Ack(0))
    assert (answer.code, type(client.result)) == (0, LocalError)
    assert str(client.result) == f"{path}: File changed while it was being sent"


@pytest.mark.parametrize("answered", [False, True])
def test_cancellation_sends_an_error(client, net, answered):
    client.put(b"a" * 600)
    to = (SERVER, WELL_KNOWN)
    if answered:
        client.receive(Ack(0))
        to = TID
    client.done.cancel()
    assert type(client.result) is CancelledError
    assert client.sent_to(to) == [ErrorPacket(0, "Transfer was cancelled")]
    assert net.ports == {}


@pytest.fixture
def no_leaked_descriptors():
    """Fail if the test leaves a file descriptor open."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("/proc is not available")
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_file_is_closed_if_the_upload_fails_early(net, no_leaked_descriptors):
    ClientDriver(net).put(b"hello")
    let_pass(net.clock, 100)
    refused = ClientDriver(net)
    refused.put(b"hello")
    refused.receive(ErrorPacket(2, "no"))
    wrong = ClientDriver(net, blksize=7)
    wrong.put(b"hello")
    assert type(wrong.result) is ValueError


def test_a_file_opened_for_a_cancelled_upload_is_closed(client, net, no_leaked_descriptors):
    net.hold_threads = True
    client.put(b"hello")
    net.run_threads()  # the name is resolved; the next thread opens the file
    client.done.cancel()
    assert type(client.result) is CancelledError
    net.run_threads()
