"""The blocking form on loopback; a thread plays the server, also a hostile one."""

import select
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from tftpd.client import (
    BadAnswer,
    ClientSettings,
    LocalError,
    ServerError,
    TimedOut,
    TransferError,
    blocking,
    get,
    put,
    transfer,
)
from tftpd.dataplane import NAME, reference

LIMIT = 20.0
LOCK_STEP = ClientSettings(blksize=512, windowsize=1)
ERROR_5 = b"\0\5\0\5Unknown transfer ID\0"


@pytest.fixture(params=["C", "Python", "without epoll"], autouse=True)
def plane(request, monkeypatch):
    """Each test runs with both data planes, and as on a system without epoll."""
    if request.param == "without epoll":
        monkeypatch.delattr(select, "epoll", raising=False)
    elif not hasattr(select, "epoll"):
        pytest.skip("needs epoll")
    elif request.param == "Python":
        monkeypatch.setattr(blocking, "DataPlane", reference.DataPlane)
        monkeypatch.setattr(transfer, "MOVES_WINDOWS", False)
    elif NAME != "C":
        pytest.skip("the extension was not built")


@pytest.fixture
def icmp(plane):
    """Skip a test on a system without epoll: only Linux reports ICMP errors of one peer."""
    if not hasattr(select, "epoll"):
        pytest.skip("needs Linux")


def data(number, payload=b"x" * 512):
    return b"\0\3" + number.to_bytes(2, "big") + payload


def ack(number):
    return b"\0\4" + number.to_bytes(2, "big")


@contextmanager
def udp_socket(address="127.0.0.1"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        sock.settimeout(LIMIT)
        yield sock


@contextmanager
def server(play):
    """Run `play(listener, request, client)` in a thread, and yield the port of the listener."""
    failures = []
    with udp_socket() as listener:

        def run():
            try:
                play(listener, *listener.recvfrom(1024))
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(LIMIT)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def receive(sock, expected):
    assert sock.recv(1024) == expected


def test_a_packet_from_another_port_gets_one_error_5_and_disturbs_nothing(tmp_path):
    def play(listener, request, client):
        with udp_socket() as other, udp_socket() as transfer:
            transfer.sendto(data(1), client)
            receive(transfer, ack(1))
            for _ in range(2):
                other.sendto(data(2, b"wrong"), client)
            receive(other, ERROR_5)
            transfer.sendto(data(2), client)
            receive(transfer, ack(2))
            other.sendto(b"\0\5\0\0wrong\0", client)
            for number in range(3, 100):  # the driver acknowledges these blocks itself
                transfer.sendto(data(number), client)
                receive(transfer, ack(number))
            transfer.sendto(data(100, b"end"), client)
            receive(transfer, ack(100))
            other.settimeout(0.0)
            with pytest.raises(BlockingIOError):
                other.recv(1024)

    path = tmp_path / "f"
    with server(play) as port:
        result = get("127.0.0.1", "f", path, port=port, settings=LOCK_STEP)
    assert (result.blocks, path.read_bytes()) == (100, b"x" * 99 * 512 + b"end")


def test_lost_and_repeated_blocks_are_handled_in_lock_step(tmp_path):
    def play(listener, request, client):
        for number in range(1, 20):
            listener.sendto(data(number, bytes([number]) * 512), client)
            receive(listener, ack(number))
        listener.sendto(data(19, bytes([19]) * 512), client)  # as if the ACK had been lost
        receive(listener, ack(19))
        receive(listener, ack(19))  # block 20 is lost
        listener.sendto(data(20, b""), client)
        receive(listener, ack(20))

    path = tmp_path / "f"
    with server(play) as port:
        result = get("127.0.0.1", "f", path, port=port, settings=LOCK_STEP)
    assert path.read_bytes() == b"".join(bytes([number]) * 512 for number in range(1, 20))
    assert result.retransmits == 2


@pytest.mark.check
def test_block_numbers_roll_over_in_lock_step(tmp_path):
    def play(listener, request, client):
        listener.sendto(b"\0\6blksize\x008\0", client)
        receive(listener, ack(0))
        for index in range(1, 65540):
            listener.sendto(data(index % 65536, index.to_bytes(8, "big")), client)
            receive(listener, ack(index % 65536))
        listener.sendto(data(4, b""), client)
        receive(listener, ack(4))

    path = tmp_path / "f"
    with server(play) as port:
        get("127.0.0.1", "f", path, port=port, settings=ClientSettings(blksize=8, windowsize=1))
    assert path.read_bytes() == b"".join(n.to_bytes(8, "big") for n in range(1, 65540))


def test_a_longer_block_after_full_blocks_is_refused(tmp_path):
    def play(listener, request, client):
        for number in range(1, 5):
            listener.sendto(data(number), client)
            receive(listener, ack(number))
        listener.sendto(data(5, b"x" * 516), client)
        receive(listener, b"\0\5\0\4block of 516 bytes is longer than blksize 512\0")

    with server(play) as port, pytest.raises(BadAnswer):
        get("127.0.0.1", "f", tmp_path / "f", port=port, settings=LOCK_STEP)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("blocks", [2, 3])  # the data plane answers the third one
def test_a_server_that_closes_its_port_ends_the_transfer_at_once(icmp, tmp_path, blocks):
    def play(listener, request, client):
        with udp_socket() as transfer:
            for number in range(1, blocks):
                transfer.sendto(data(number), client)
                receive(transfer, ack(number))
            transfer.sendto(data(blocks), client)

    with server(play) as port, pytest.raises(ServerError, match="ICMP port unreachable"):
        get("127.0.0.1", "f", tmp_path / "f", port=port, settings=LOCK_STEP)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_closes_its_port_before_the_last_ack_is_reported(icmp):
    def play(listener, request, client):
        with udp_socket() as transfer:
            transfer.sendto(ack(0), client)
            receive(transfer, data(1))
            transfer.sendto(ack(1), client)
            receive(transfer, data(2, b"end"))

    with server(play) as port, pytest.raises(TimedOut) as failed:
        put("127.0.0.1", "f", data(1)[4:] + b"end", port=port, settings=LOCK_STEP)
    reason = "the last block was not acknowledged: ICMP port unreachable"
    assert str(failed.value) == f"the server does not answer: {reason}"


@pytest.mark.parametrize("packets", [[b"\0\7junk"], [data(1), b"\0\7junk"]])
def test_a_flood_of_packets_without_effect_does_not_extend_the_timeout(tmp_path, packets):
    ended = threading.Event()

    def play(listener, request, client):
        *first, junk = packets
        for packet in first:
            listener.sendto(packet, client)
        until = time.monotonic() + LIMIT
        while not ended.is_set():
            assert time.monotonic() < until
            for _ in range(50):
                listener.sendto(junk, client)

    settings = ClientSettings(blksize=512, windowsize=1, idle_timeout=0.3)
    with server(play) as port:
        try:
            with pytest.raises(TimedOut):
                get("127.0.0.1", "f", tmp_path / "f", port=port, settings=settings)
        finally:
            ended.set()
    assert list(tmp_path.iterdir()) == []


def test_an_answer_of_another_host_is_named(tmp_path):
    def play(listener, request, client):
        with udp_socket("127.0.0.2") as other:
            other.sendto(data(1, b"x"), client)
            receive(other, ERROR_5)

    settings = ClientSettings(idle_timeout=1.0)
    with server(play) as port, pytest.raises(TimedOut) as failed:
        get("127.0.0.1", "f", tmp_path / "f", port=port, settings=settings)
    assert str(failed.value) == "127.0.0.2 answered instead of 127.0.0.1"


def test_a_broadcast_request_is_answered_by_one_host(tmp_path):
    def play(listener, request, client):
        with udp_socket("127.0.0.3") as transfer:
            transfer.sendto(data(1, b"x"), client)
            receive(transfer, ack(1))

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.255.255.255", 0))
        listener.settimeout(LIMIT)
        port = listener.getsockname()[1]
        thread = threading.Thread(target=lambda: play(listener, *listener.recvfrom(1024)))
        thread.start()
        result = get("127.255.255.255", "f", tmp_path / "f", port=port, settings=LOCK_STEP)
        thread.join(LIMIT)
    assert result.peer[0] == "127.0.0.3"


@pytest.mark.parametrize("windowsize", [1, 8])
def test_lost_blocks_of_an_upload_are_sent_again(windowsize):
    content = b"".join(bytes([number]) * 512 for number in range(40)) + b"end"
    received = {}

    def play(listener, request, client):
        oack = b"\0\6windowsize\0%d\0" % windowsize
        listener.sendto(oack if windowsize > 1 else ack(0), client)
        lost, acked = {3, 17, 40}, 0
        while acked < 41:
            datagram = listener.recv(1024)
            number = int.from_bytes(datagram[2:4], "big")
            if number in lost:
                lost.remove(number)
            elif number == acked + 1:
                received[number] = datagram[4:]
                acked = number
                if acked % windowsize == 0 or acked == 41:
                    listener.sendto(ack(acked), client)

    settings = ClientSettings(blksize=512, windowsize=windowsize)
    with server(play) as port:
        result = put("127.0.0.1", "f", content, port=port, settings=settings)
    assert b"".join(received.values()) == content
    assert result.retransmits >= 3


def test_an_exception_of_the_program_ends_the_transfer_with_an_error(tmp_path):
    def play(listener, request, client):
        listener.sendto(data(1), client)
        while (answer := listener.recv(1024)) == ack(1):
            pass
        assert answer == b"\0\5\0\0Transfer was cancelled\0"

    def progress(done, total):
        raise KeyboardInterrupt

    with server(play) as port, pytest.raises(KeyboardInterrupt):
        get("127.0.0.1", "f", tmp_path / "f", port=port, settings=LOCK_STEP, progress=progress)
    assert list(tmp_path.iterdir()) == []


def test_a_lost_block_is_requested_again_after_the_interval(tmp_path):
    def play(listener, request, client):
        listener.sendto(data(1), client)
        receive(listener, ack(1))
        receive(listener, ack(1))
        listener.sendto(data(2, b"end"), client)
        receive(listener, ack(2))

    with server(play) as port:
        result = get("127.0.0.1", "f", tmp_path / "f", port=port, settings=LOCK_STEP)
    assert result.retransmits == 1


def test_a_lost_block_of_a_window_is_requested_in_the_middle_of_the_window(tmp_path):
    def play(listener, request, client):
        listener.sendto(b"\0\6windowsize\0004\0", client)
        receive(listener, ack(0))
        for first in range(1, 81, 4):
            for number in range(first, first + 4):
                listener.sendto(data(number), client)
            receive(listener, ack(first + 3))
        for number in (81, 82, 84):  # block 83 is lost
            listener.sendto(data(number), client)
        receive(listener, ack(82))
        for number in (83, 84, 85):
            listener.sendto(data(number), client)
        listener.sendto(data(86, b"end"), client)
        receive(listener, ack(86))

    path, settings = tmp_path / "f", ClientSettings(blksize=512, windowsize=4)
    with server(play) as port:
        get("127.0.0.1", "f", path, port=port, settings=settings)
    assert path.read_bytes() == b"x" * 85 * 512 + b"end"


@pytest.mark.parametrize("windowsize", [1, 4])
def test_a_download_that_is_larger_than_the_buffer_of_the_data_plane_is_complete(
    tmp_path, monkeypatch, windowsize
):
    monkeypatch.setattr(transfer, "_LENT_BYTES", 5000)  # 2 windows of 4 blocks, or 9 blocks

    def play(listener, request, client):
        if windowsize > 1:
            listener.sendto(b"\0\6windowsize\0%d\0" % windowsize, client)
            receive(listener, ack(0))
        for number in range(1, 101):
            listener.sendto(data(number, bytes([number]) * 512), client)
            if number % windowsize == 0:
                receive(listener, ack(number))
        listener.sendto(data(101, b"end"), client)
        receive(listener, ack(101))

    path, settings = tmp_path / "f", ClientSettings(blksize=512, windowsize=windowsize)
    with server(play) as port:
        get("127.0.0.1", "f", path, port=port, settings=settings)
    assert path.read_bytes() == b"".join(bytes([n]) * 512 for n in range(1, 101)) + b"end"


def test_blocks_beyond_the_maximum_size_end_a_download(tmp_path):
    ended = threading.Event()

    def play(listener, request, client):
        for number in range(1, 2000):
            listener.sendto(data(number), client)
            if listener.recv(1024) != ack(number):
                ended.set()
                return

    settings = ClientSettings(blksize=512, windowsize=1, max_size=5000)
    with server(play) as port, pytest.raises(LocalError, match="5000"):
        get("127.0.0.1", "f", tmp_path / "f", port=port, settings=settings)
    assert (ended.is_set(), list(tmp_path.iterdir())) == (True, [])


def test_another_thread_cancels_a_transfer_that_runs_without_pause(tmp_path):
    cancelled = threading.Event()

    def play(listener, request, client):
        for number in range(1, 65536):
            listener.sendto(data(number), client)
            if number == 50:
                cancelled.set()
            if (answer := listener.recv(1024)) != ack(number):
                assert answer == b"\0\5\0\0Transfer was cancelled\0"
                return
        raise AssertionError("the transfer was not cancelled")

    with server(play) as port:
        prepared = transfer.get("127.0.0.1", "f", tmp_path / "f", port=port, settings=LOCK_STEP)
        with pytest.raises(TransferError):
            blocking.run_transfer(prepared, cancelled)
    assert list(tmp_path.iterdir()) == []


def test_a_traced_transfer_shows_each_datagram(tmp_path):
    def play(listener, request, client):
        for number in range(1, 30):
            listener.sendto(data(number), client)
            receive(listener, ack(number))
        listener.sendto(data(30, b""), client)
        receive(listener, ack(30))

    seen = []
    with server(play) as port:
        get(
            "127.0.0.1",
            "f",
            tmp_path / "f",
            port=port,
            settings=LOCK_STEP,
            trace=lambda outgoing, datagram, _: seen.append((outgoing, datagram[:4])),
        )
    assert seen[1:] == [
        each for n in range(1, 31) for each in ((False, data(n)[:4]), (True, ack(n)))
    ]
