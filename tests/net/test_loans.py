"""Sessions that lend their blocks to a data plane, over loopback, with each plane."""

import errno
import os
import socket
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from tests.dataplane.conftest import ack, data, plane_type
from tests.net.test_udp import Readers
from tests.support import hosts
from tests.support.programs import needs_linux
from tftpd.access.paths import split_name
from tftpd.access.policy import Grant, WritePolicy
from tftpd.access.profiles import DEFAULT_PROFILE
from tftpd.net import receive_session, send_session
from tftpd.net.epoll import EpollReader
from tftpd.net.interfaces import SessionRuntime
from tftpd.net.port_pool import PortRequirements
from tftpd.net.rate_limit import BandwidthLimit, RequestThrottle, TrafficShaper
from tftpd.net.receive_session import MAX_BUFFER_BYTES, ReceiveSession
from tftpd.net.send_session import SendSession
from tftpd.net.session import SessionParams
from tftpd.net.udp import open_session_port
from tftpd.net.wrappers import ProtocolTap
from tftpd.protocol.errors import ErrorText
from tftpd.protocol.negotiation import Mode, TransferOptions
from tftpd.protocol.packets import Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.storage.source import FileSource, MemorySource
from tftpd.storage.upload import Upload

__all__ = ["plane_type"]

pytestmark = needs_linux

BLKSIZE = 64  # the ring of a download has 513 blocks
CONTENT = b"".join(b"%063d\n" % number for number in range(1500)) + b"end"
BLOCKS = [CONTENT[start : start + BLKSIZE] for start in range(0, len(CONTENT), BLKSIZE)]
FAST = RetransmitPolicy(min_interval=0.05, initial_interval=0.05, idle_timeout=5.0)


def _no_tap(session):
    return session


class Host:
    """A host with one session, and the socket of its client."""

    def __init__(self, plane_type, monkeypatch, family=socket.AF_INET):
        monkeypatch.setattr("tftpd.net.epoll.DataPlane", plane_type)
        # The client is in the same thread: to wait for it in a turn cannot help.
        monkeypatch.setattr("tftpd.net.epoll._LINGER_SECONDS", 0.0)
        self.address = ("127.0.0.1", 0) if family == socket.AF_INET else ("::1", 0, 0, 0)
        self.readers = EpollReader(Readers(), RequestThrottle())
        self.clock = Clock()
        self.clock.rightNow = time.monotonic()
        self.client = socket.socket(family, socket.SOCK_DGRAM)
        self.client.bind(self.address)
        self.client.settimeout(5.0)
        self.results = []
        self.threads = []
        self.server = None

    def download(
        self,
        source,
        windowsize=1,
        mode=Mode.OCTET,
        tap=_no_tap,
        timing=FAST,
        blksize=BLKSIZE,
        **params,
    ):
        options = TransferOptions(blksize=blksize, windowsize=windowsize, mode=mode)
        request = Rrq(b"f", b"octet")
        session = SendSession(self._runtime, options, timing, self._params(request, params), source)
        self._start(session, PortRequirements(1024, windowsize * blksize, False), tap)

    def upload(self, sink, windowsize=1, tap=_no_tap, timing=FAST, **params):
        options = TransferOptions(blksize=BLKSIZE, windowsize=windowsize)
        request = Wrq(b"f", b"octet")
        params = self._params(request, params)
        session = ReceiveSession(self._runtime, options, timing, params, sink)
        window_bytes = windowsize * (BLKSIZE + 4)
        self._start(session, PortRequirements(BLKSIZE + 1028, window_bytes, True), tap)

    def read(self):
        """Handle what has arrived, and the timers that are due."""
        now = time.monotonic()
        self.clock.advance(now - self.clock.seconds())
        self.readers.doRead()

    def send(self, *datagrams, source=None):
        for datagram in datagrams:
            (source or self.client).sendto(datagram, self.server)
        self.read()

    def receive(self, source=None):
        """Return what the session has sent so far."""
        source, received = source or self.client, []
        source.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                datagram, self.server = source.recvfrom(5000)
                received.append(datagram)
        return received

    def wait(self):
        """Wait until the session sends something by its timer."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            self.read()
            received = self.receive()
            if received:
                return received
            time.sleep(0.005)
        raise AssertionError("the session sent nothing")

    def acknowledge(self, first, last):
        """Acknowledge blocks one by one; each is answered with the next one."""
        for number in range(first, last + 1):
            self.send(ack(number % 65536))
            assert self.receive() == [data((number + 1) % 65536, BLOCKS[number])], number

    def store(self, first, last):
        """Send blocks one by one; each gets its ACK."""
        for number in range(first, last + 1):
            self.send(data(number, BLOCKS[number - 1]))
            assert self.receive() == [ack(number)], number

    @property
    def is_lent(self):
        return self.session._loan is not None

    def close(self):
        if not self.session._ended:
            self.session.stop(Outcome.STOPPED)
        self.readers.close()
        self.client.close()

    @property
    def _runtime(self):
        return SessionRuntime(self.clock, None, self._in_thread)

    def _in_thread(self, work):
        self.threads.append(work)
        return maybeDeferred(work)

    def _params(self, request, params):
        return SessionParams(request, self.client.getsockname(), self.results.append, **params)

    def _start(self, session, needs, tap):
        self.session = session
        open_session_port(self.readers, tap(session), self.address, needs)
        session.begin()


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def any_host(plane_type, monkeypatch, request):
    host = Host(plane_type, monkeypatch, request.param)
    yield host
    host.close()


@pytest.fixture
def host(plane_type, monkeypatch):
    host = Host(plane_type, monkeypatch)
    yield host
    host.close()


@pytest.fixture
def source(tmp_path):
    return _open(tmp_path / "f", CONTENT)


@pytest.fixture
def sink(tmp_path):
    return _create(tmp_path)


def _open(path, content):
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    return FileSource(fd, os.fstat(fd))


def _create(directory, **policy):
    grant = Grant(directory, split_name(b"new"), WritePolicy(**policy))
    return Upload.open(grant, None, netascii=False)


# --- Downloads ---


def test_a_download_is_lent_after_its_first_ack_and_ends_as_without_a_loan(any_host, source):
    any_host.download(source)
    assert any_host.receive() == [data(1, BLOCKS[0])]
    assert not any_host.is_lent
    any_host.acknowledge(1, 1500)
    assert any_host.is_lent
    any_host.send(ack(1501))
    (result,) = any_host.results
    assert (result.outcome, result.blocks, result.retransmits) == (Outcome.DONE, 1501, 0)
    assert result.bytes_transferred == len(CONTENT)
    assert any_host.receive() == []


def test_a_file_that_fits_into_the_ring_is_not_lent(host):
    host.download(MemorySource(CONTENT[: 500 * BLKSIZE]))
    host.receive()
    host.acknowledge(1, 10)
    assert not host.is_lent


def test_netascii_is_lent_too(host):
    host.download(MemorySource(b"\n" * 40000), mode=Mode.NETASCII)
    host.receive()
    for number in range(1, 1200):
        host.send(ack(number))
        assert host.receive() == [data(number + 1, b"\r\n" * 32)]
    assert host.is_lent


def _next_window(host, first, windowsize):
    numbers = range(first, min(first + windowsize, 1502))
    assert host.receive() == [data(number, BLOCKS[number - 1]) for number in numbers]


def test_windows_are_lent_if_the_plane_is_faster(host, source, monkeypatch):
    monkeypatch.setattr(send_session, "MOVES_WINDOWS", True)
    host.download(source, windowsize=8)
    for first in range(1, 1502, 8):
        _next_window(host, first, 8)
        host.send(ack(min(first + 7, 1501)))
        assert first > 900 or host.is_lent
    assert [result.outcome for result in host.results] == [Outcome.DONE]


def test_an_ack_inside_a_window_starts_the_next_window_there(host, source, monkeypatch):
    monkeypatch.setattr(send_session, "MOVES_WINDOWS", True)
    host.download(source, windowsize=8)
    _next_window(host, 1, 8)
    host.send(ack(8))
    _next_window(host, 9, 8)
    assert host.is_lent
    host.send(ack(13))
    _next_window(host, 14, 8)
    for first in range(22, 1502, 8):
        host.send(ack(first - 1))
        _next_window(host, first, 8)
    host.send(ack(1501))
    assert [result.outcome for result in host.results] == [Outcome.DONE]
    assert host.session.machine.retransmits == 3


def test_no_window_is_lent_by_a_sender_to_a_plane_that_is_slower(host, source, monkeypatch):
    monkeypatch.setattr(send_session, "MOVES_WINDOWS", False)
    host.download(source, windowsize=8)
    _next_window(host, 1, 8)
    host.send(ack(8))
    _next_window(host, 9, 8)
    assert not host.is_lent


def test_a_duplicate_ack_gets_no_answer_and_the_transfer_is_lent_again(host, source):
    host.download(source)
    host.receive()
    host.acknowledge(1, 9)
    host.send(ack(9))
    assert (host.receive(), host.is_lent) == ([], True)
    host.acknowledge(10, 600)
    assert host.results == []


def test_a_lost_block_is_sent_again_at_the_deadline(host, source):
    host.download(source)
    host.receive()
    host.acknowledge(1, 600)
    assert host.is_lent
    assert host.wait() == [data(601, BLOCKS[600])]
    assert not host.is_lent
    host.acknowledge(601, 610)
    assert host.is_lent
    assert host.session.machine.retransmits == 1


def test_the_timer_moves_on_while_the_plane_serves_acks(host, source):
    host.download(source)
    host.receive()
    until = time.monotonic() + 0.5  # ten times the interval
    number = 0
    while time.monotonic() < until and number < 1400:
        number += 1
        host.acknowledge(number, number)
        time.sleep(0.001)
    assert (host.session.machine.retransmits, host.session.machine.timeouts) == (0, 0)


def test_the_machine_knows_the_position_while_the_transfer_is_lent(host, source):
    host.download(source)
    host.receive()
    host.acknowledge(1, 700)
    assert host.is_lent
    assert host.session.machine.blocks == 700
    assert host.session.machine.bytes_transferred == 700 * BLKSIZE
    assert host.session.machine.idle_time(time.monotonic()) < 1
    assert host.session.machine.smoothed_rtt < 1


def test_an_error_of_the_client_ends_a_lent_transfer(host, source):
    host.download(source)
    host.receive()
    host.acknowledge(1, 20)
    host.send(b"\0\5\0\0enough\0")
    (result,) = host.results
    assert (result.outcome, result.detail, result.blocks) == (Outcome.ABORTED, "enough", 20)


def test_another_host_gets_error_5_and_the_loan_continues(host, source):
    host.download(source)
    host.receive()
    host.acknowledge(1, 20)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        host.send(ack(21), source=other)
        (reply,) = host.receive(other)
        assert reply[:4] == b"\0\5\0\5"
    assert host.is_lent
    host.acknowledge(21, 30)


def test_a_repeated_request_has_no_effect(host, source):
    host.download(source)
    host.receive()
    host.acknowledge(1, 20)
    host.session.on_request_repeated()
    assert (host.receive(), host.is_lent) == ([], True)
    host.acknowledge(21, 30)


class RepeatedRequests:
    """A listener: tells the session of a host that its request was repeated."""

    takes_requests = True

    def __init__(self, host):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = self.socket.getsockname()
        self.fileno = self.socket.fileno
        self._host = host
        host.readers.addReader(self)

    def doRead(self):
        self.socket.recv(100)
        self._host.session.on_request_repeated()


def test_a_request_that_is_repeated_when_the_ring_is_used_up_does_not_hang_the_server(host, source):
    host.download(source)
    host.receive()
    host.acknowledge(1, 511)
    listener = RepeatedRequests(host)
    host.client.sendto(b"\0\1f\0octet\0", listener.address)
    host.send(ack(512))  # uses up the ring, which the repeated request has filled meanwhile
    assert host.receive() == [data(513, BLOCKS[512])]
    host.acknowledge(513, 1100)
    listener.socket.close()


def test_a_request_that_is_repeated_when_the_buffer_is_full_keeps_the_upload(host, sink, tmp_path):
    host.upload(sink)
    host.receive()
    host.store(1, MAX_BUFFER_BYTES // BLKSIZE)
    listener = RepeatedRequests(host)
    host.client.sendto(b"\0\2f\0octet\0", listener.address)
    host.store(1 + MAX_BUFFER_BYTES // BLKSIZE, 1501)
    assert (tmp_path / "new").read_bytes() == CONTENT
    listener.socket.close()


def test_a_lent_session_that_is_held_sends_a_lost_block_again_as_soon_as_its_peer_answers(
    host, source
):
    host.download(source)
    host.receive()
    host.acknowledge(1, 20)
    host.session.hold()
    host.acknowledge(21, 22)
    started = time.monotonic()
    assert host.wait() == [data(23, BLOCKS[22])]
    assert time.monotonic() - started < 2  # not after the idle timeout


def test_a_lent_session_that_is_stopped_sends_its_error(host, source):
    host.download(source)
    host.receive()
    host.acknowledge(1, 20)
    host.session.stop(Outcome.STOPPED, ErrorText.STOPPING)
    (error,) = host.receive()
    assert error[:4] == b"\0\5\0\0"
    (result,) = host.results
    assert (result.outcome, result.blocks) == (Outcome.STOPPED, 20)


def test_an_icmp_error_counts_the_blocks_of_the_loan_as_proof(host, source):
    host.download(source)
    host.receive()
    host.acknowledge(1, 20)
    host.session.connectionRefused()
    assert host.results == []  # one error may be forged
    host.acknowledge(21, 22)


class ColdSource(MemorySource):
    """A file that is not in the page cache."""

    def read(self, buffers, offset, blocking):
        if not blocking and offset >= 520 * BLKSIZE:
            raise BlockingIOError
        return super().read(buffers, offset, blocking)


def test_cold_pages_are_read_in_a_thread(host):
    host.download(ColdSource(CONTENT))
    host.receive()
    host.acknowledge(1, 1500)
    assert host.threads
    host.send(ack(1501))
    assert [result.outcome for result in host.results] == [Outcome.DONE]


def test_a_truncated_file_ends_a_lent_transfer_with_an_error(host, tmp_path):
    host.download(_open(tmp_path / "f", CONTENT))
    host.receive()
    host.acknowledge(1, 500)
    os.truncate(tmp_path / "f", 550 * BLKSIZE)
    number = 500
    while not host.results:
        number += 1
        host.send(ack(number))
        received = host.receive()
    assert received[-1][:4] == b"\0\5\0\0"
    assert host.results[0].outcome is Outcome.FAILED
    assert host.results[0].detail == ErrorText.FILE_CHANGED


@pytest.mark.parametrize("kind", ["tap", "shaper", "duplicates"])
def test_a_transfer_whose_datagrams_python_must_see_is_not_lent(host, source, kind):
    how = {
        "tap": {"tap": lambda session: ProtocolTap(session, lambda *_: None)},
        "shaper": {"shaper": TrafficShaper(host.clock, [BandwidthLimit(1e9)])},
        "duplicates": {"profile": replace(DEFAULT_PROFILE, duplicates=1)},
    }[kind]
    host.download(source, **how)
    host.receive()
    for number in range(1, 30):
        host.send(ack(number))
        assert host.receive()[0] == data(number + 1, BLOCKS[number])
    assert not host.is_lent


def test_an_error_that_is_longer_than_a_block_is_one_datagram(host, monkeypatch):
    monkeypatch.setattr(send_session, "MOVES_WINDOWS", True)
    host.download(MemorySource(CONTENT), windowsize=4, blksize=8)
    assert len(host.receive()) == 4
    for number in range(4, 80, 4):
        host.send(ack(number))
        assert len(host.receive()) == 4
    assert host.is_lent
    host.session.stop(Outcome.STOPPED, ErrorText.STOPPING)
    (error,) = host.receive()
    assert error == b"\0\5\0\0" + ErrorText.STOPPING.encode() + b"\0"


@pytest.mark.check
def test_windows_of_blocks_that_are_longer_than_the_path_mtu_are_sent_in_fragments(
    plane_type, monkeypatch
):
    monkeypatch.setattr(send_session, "MOVES_WINDOWS", True)
    with hosts.host() as computer:
        computer.run("ip", "link", "set", "lo", "mtu", "1500")
        with computer.entered():
            host = Host(plane_type, monkeypatch)
            host.download(MemorySource(bytes(1_000_000)), windowsize=4, blksize=4000)
            assert len(host.receive()) == 4
            for number in range(4, 200, 4):  # UDP_SEGMENT cannot be used
                host.send(ack(number))
                assert len(host.receive()) == 4, number
            assert host.is_lent
            host.close()


# --- Uploads ---


def test_an_upload_is_lent_after_its_first_block_and_stored_at_its_end(any_host, sink, tmp_path):
    any_host.upload(sink)
    assert any_host.receive() == [ack(0)]
    any_host.store(1, 1500)
    assert any_host.is_lent
    any_host.store(1501, 1501)
    assert (tmp_path / "new").read_bytes() == CONTENT
    (result,) = any_host.results
    assert (result.outcome, result.blocks) == (Outcome.DONE, 1501)
    assert result.bytes_transferred == len(CONTENT)


def test_the_buffer_of_an_upload_is_written_when_it_is_full(host, sink):
    # A timeout would empty the buffer earlier.
    host.upload(sink, timing=RetransmitPolicy())
    host.receive()
    host.store(1, 1)
    host.store(2, 1 + MAX_BUFFER_BYTES // BLKSIZE)
    assert (sink.size, host.is_lent) == (BLKSIZE + MAX_BUFFER_BYTES, True)
    assert host.session.machine.bytes_transferred == sink.size


def test_a_duplicate_block_is_acknowledged_again(host, sink, tmp_path):
    host.upload(sink)
    host.receive()
    host.store(1, 20)
    host.store(20, 20)
    host.store(21, 1501)
    assert (tmp_path / "new").read_bytes() == CONTENT


def test_a_lost_ack_is_sent_again_at_the_deadline(host, sink, tmp_path):
    host.upload(sink)
    host.receive()
    host.store(1, 20)
    assert host.is_lent
    assert host.wait() == [ack(20)]
    host.store(21, 1501)
    assert (tmp_path / "new").read_bytes() == CONTENT


def test_the_position_of_a_lent_upload_is_known_and_counts_once(host, sink):
    host.upload(sink)
    host.receive()
    host.store(1, 20)
    for _ in range(2):
        assert host.session.machine.bytes_transferred == 20 * BLKSIZE
    host.store(21, 40)
    assert host.session.machine.blocks == 40


def test_the_time_of_the_last_block_is_known_while_the_upload_is_lent(host, sink):
    host.upload(sink)
    host.receive()
    host.store(1, 1)
    began = sink.active_at
    for number in range(2, 12):
        time.sleep(0.02)
        host.store(number, number)
    assert (host.session.machine.timeouts, sink.size, host.is_lent) == (0, BLKSIZE, True)
    assert sink.active_at > began + 0.05  # the timer of the session fires every 0.05 s


def test_a_long_error_of_the_client_is_truncated_as_without_a_loan(host, source):
    host.download(source)
    host.receive()
    host.acknowledge(1, 20)
    host.send(b"\0\5\0\0" + b"x" * 5000)
    (result,) = host.results
    assert result.detail == "x" * 1020


def test_the_reason_for_a_much_too_long_block_is_as_without_a_loan(host, sink):
    host.upload(sink)
    host.receive()
    host.store(1, 20)
    host.send(data(21, bytes(5000)))
    (error,) = host.receive()
    assert b"more than 1087 bytes" in error


def test_an_upload_beyond_the_largest_size_is_refused_at_the_same_block(host, tmp_path):
    sink = _create(tmp_path, max_size=300 * BLKSIZE)
    host.upload(sink)
    host.receive()
    host.store(1, 300)
    host.send(data(301, BLOCKS[300]))
    (error,) = host.receive()
    assert error[:4] == b"\0\5\0\3"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_a_lent_upload_with_one_error(host, sink, tmp_path, monkeypatch):
    host.upload(sink)
    host.receive()
    host.store(1, 20)

    write = os.write

    def full(fd, data):
        if fd == sink._fd:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(os, "write", full)
    number, received = 20, []
    while not any(datagram[:4] == b"\0\5\0\3" for datagram in received):
        number += 1
        host.send(data(number, BLOCKS[number - 1]))
        received += host.receive()
        assert number < 1100
    assert received[-2] == ack(number)
    assert list(tmp_path.iterdir()) == []
    assert [result.outcome for result in host.results] == [Outcome.FAILED]


def _windows(host, first, last, windowsize):
    for start in range(first, last + 1, windowsize):
        numbers = range(start, min(start + windowsize, last + 1))
        host.send(*[data(number, BLOCKS[number - 1]) for number in numbers])
        assert host.receive() == [ack(numbers[-1])]


def test_windows_of_an_upload_are_lent_if_the_plane_is_faster(host, sink, tmp_path, monkeypatch):
    monkeypatch.setattr(receive_session, "MOVES_WINDOWS", True)
    host.upload(sink, windowsize=4)
    host.receive()
    _windows(host, 1, 1500, 4)
    assert host.is_lent
    _windows(host, 1501, 1501, 4)
    assert (tmp_path / "new").read_bytes() == CONTENT


def test_the_session_handles_the_rollover_of_an_upload(host, tmp_path, monkeypatch):
    monkeypatch.setattr(receive_session, "MOVES_WINDOWS", True)
    host.upload(_create(tmp_path), windowsize=64)
    host.receive()
    lent = []
    for start in range(1, 65_536 + 192, 64):
        numbers = range(start, start + 64)
        host.send(*[data(number % 65536, bytes(BLKSIZE)) for number in numbers])
        assert host.receive() == [ack(numbers[-1] % 65536)]
        lent.append(host.is_lent)
    assert all(lent)
    host.send(data(193, b""))
    assert (tmp_path / "new").read_bytes() == bytes(BLKSIZE * (65_536 + 192))


def test_a_window_that_its_sender_begins_earlier_is_handled_by_the_session(
    host, sink, tmp_path, monkeypatch
):
    monkeypatch.setattr(receive_session, "MOVES_WINDOWS", True)
    host.upload(sink, windowsize=4)
    host.receive()
    _windows(host, 1, 40, 4)
    host.send(data(38, BLOCKS[37]), data(39, BLOCKS[38]), data(40, BLOCKS[39]))
    assert not host.is_lent
    host.send(data(41, BLOCKS[40]))
    assert host.receive() == [ack(41)]  # the end of the window from block 38 on
    _windows(host, 42, 1501, 4)
    assert (tmp_path / "new").read_bytes() == CONTENT


def test_a_window_with_a_gap_is_handled_by_the_session(host, sink, tmp_path, monkeypatch):
    monkeypatch.setattr(receive_session, "MOVES_WINDOWS", True)
    host.upload(sink, windowsize=4)
    host.receive()
    _windows(host, 1, 40, 4)
    assert host.is_lent
    host.send(*[data(number, BLOCKS[number - 1]) for number in (41, 42, 44)])
    assert host.wait()[-1] == ack(42)
    _windows(host, 43, 1501, 4)
    assert (tmp_path / "new").read_bytes() == CONTENT


def test_no_window_is_lent_to_a_plane_that_is_slower_than_the_session(host, sink, monkeypatch):
    monkeypatch.setattr(receive_session, "MOVES_WINDOWS", False)
    host.upload(sink, windowsize=4)
    host.receive()
    _windows(host, 1, 40, 4)
    assert not host.is_lent


def test_a_session_can_end_while_its_commit_runs(host, sink, tmp_path):
    host.upload(sink)
    host.receive()
    host.store(1, 1500)
    pending = Deferred()
    host.session._runtime = SessionRuntime(host.clock, None, lambda work: pending)
    host.send(data(1501, BLOCKS[1500]))
    assert (host.receive(), host.is_lent) == ([], False)
    host.session.stop(Outcome.STOPPED)
    pending.callback(None)
    assert not (tmp_path / "new").exists()
