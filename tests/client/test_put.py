"""Uploads by a client whose server is the test."""

import io
import os
from threading import Thread

import pytest
from twisted.internet.defer import CancelledError

from tests.client.conftest import TID, Talk
from tests.support.fakes import SERVER, WELL_KNOWN
from tftpd.client.errors import (
    AlreadyExists,
    BadAnswer,
    LocalError,
    Refusal,
    ServerError,
    TimedOut,
)
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Wrq
from tftpd.protocol.result import Outcome

SMALL = Oack(((b"tsize", b"5"), (b"blksize", b"8")))


@pytest.fixture
def talk(net):
    return Talk(net)


def test_octets_are_sent_on_the_terms_of_the_server(talk):
    asked = ((b"tsize", b"10"), (b"blksize", b"1468"), (b"windowsize", b"16"))
    assert talk.puts(b"1234567890") == [Wrq(b"f", b"octet", asked)]
    agreed = Oack(((b"blksize", b"8"), (b"windowsize", b"2")))
    assert talk.hears(agreed) == [Data(1, b"12345678"), Data(2, b"90")]
    assert talk.result is None
    assert talk.hears(Ack(2)) == []
    report = talk.result
    assert (report.outcome, report.octets, report.direction) == (
        Outcome.DONE, 10, Direction.WRITE,
    )  # fmt: skip
    assert talk.net.ports == {}


def test_a_server_of_rfc_1350_gets_blocks_of_512(talk):
    talk.puts(b"a" * 600)
    assert talk.hears(Ack(0)) == [Data(1, b"a" * 512)]
    assert talk.hears(Ack(1)) == [Data(2, b"a" * 88)]
    talk.hears(Ack(2))
    assert talk.result.outcome is Outcome.DONE


def test_a_server_that_takes_no_uploads_refuses_by_error_4(talk):
    talk.puts(b"hello")
    talk.hears(ErrorPacket(4, "unsupported request"))
    assert type(talk.result) is Refusal


def test_error_4_in_the_midst_of_an_upload_is_no_refusal(talk):
    talk.puts(b"a" * 600)
    talk.hears(Ack(0))
    talk.hears(Ack(1))
    talk.hears(ErrorPacket(4, "what is that?"))
    assert type(talk.result) is ServerError


def test_a_path_and_an_open_file_and_a_pipe_can_be_sent(net, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    reader, writer = os.pipe()
    os.write(writer, b"hello")
    os.close(writer)
    with open(reader, "rb") as pipe:
        for source in (path, str(path), io.BytesIO(b"hello"), pipe):
            talk = Talk(net)
            (request,) = talk.puts(source)
            assert dict(request.options)[b"tsize"] == b"5"
            assert talk.hears(SMALL) == [Data(1, b"hello")]
            talk.hears(Ack(1))
            assert talk.result.outcome is Outcome.DONE


def test_a_named_pipe_is_read_to_its_end_first(talk, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = Thread(target=lambda: path.write_bytes(b"hello"), daemon=True)
    writer.start()
    (request,) = talk.puts(path)
    writer.join()
    assert dict(request.options)[b"tsize"] == b"5"
    assert talk.hears(SMALL) == [Data(1, b"hello")]
    talk.hears(Ack(1))
    assert talk.result.outcome is Outcome.DONE


def test_netascii_is_sent_with_its_line_ends(net):
    talk = Talk(net, mode=Mode.NETASCII)
    (request,) = talk.puts(b"one\ntwo\r")
    assert (request.mode, b"tsize" in dict(request.options)) == (b"netascii", False)
    assert talk.hears(Ack(0)) == [Data(1, b"one\r\ntwo\r\0")]
    talk.hears(Ack(1))


def test_lost_packets_are_sent_again(talk):
    request = talk.puts(b"hello")
    assert talk.waits(1) == request
    assert talk.hears(SMALL) == [Data(1, b"hello")]
    assert talk.waits(1) == [Data(1, b"hello")]
    talk.hears(Ack(1))
    assert talk.result.outcome is Outcome.DONE


def test_a_refusal_before_and_after_the_first_block(net):
    for answers in ([], [SMALL]):
        talk = Talk(net)
        talk.puts(b"hello")
        for answer in answers:
            talk.hears(answer)
        talk.hears(ErrorPacket(6, "there is one"))
        assert type(talk.result) is AlreadyExists


def test_a_last_block_that_nobody_acknowledges_is_not_stored(talk):
    talk.puts(b"a" * 600)
    talk.hears(Ack(0))
    talk.hears(Ack(1))
    talk.waits(60)
    assert type(talk.result) is TimedOut


def test_a_lying_oack_ends_it(talk):
    talk.puts(b"hello")
    assert talk.hears(Oack(((b"multicast", b""),))) == [
        ErrorPacket(8, "Option negotiation refused")
    ]
    assert type(talk.result) is BadAnswer


def test_a_file_that_is_not_there_is_an_error_of_ours(talk, tmp_path):
    assert talk.puts(tmp_path / "none") == []
    assert type(talk.result) is LocalError


@pytest.mark.parametrize("answered", [False, True])
def test_cancelling_tells_the_server(talk, net, answered):
    talk.puts(b"a" * 600)
    to = (SERVER, WELL_KNOWN)
    if answered:
        talk.hears(Ack(0))
        to = TID
    talk.done.cancel()
    assert type(talk.result) is CancelledError
    assert talk.said(to) == [ErrorPacket(0, "Transfer was cancelled")]
    assert net.ports == {}


@pytest.fixture
def held():
    """Fails where a test leaves a descriptor open."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no list of descriptors")
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_file_is_closed_however_early_it_ends(net, held):
    Talk(net).puts(b"hello")
    net.clock.pump([0.5] * 200)
    refused = Talk(net)
    refused.puts(b"hello")
    refused.hears(ErrorPacket(2, "no"))
    wrong = Talk(net, blksize=7)
    wrong.puts(b"hello")
    assert type(wrong.result) is ValueError


def test_what_was_opened_for_a_cancelled_transfer_is_closed(talk, net, held):
    net.hold_threads = True
    talk.puts(b"hello")
    net.run_threads()  # the name is resolved: now the file is to be opened
    talk.done.cancel()
    assert type(talk.result) is CancelledError
    net.run_threads()
