"""Bursts on real sockets: with UDP_SEGMENT, or as single datagrams."""

import errno
import socket
import threading

import pytest

from tftpd.net import segmentation
from tftpd.net.segmentation import SegmentedSender, enable_gro, recv_burst, recv_coalesced


@pytest.fixture
def pair():
    """Two bound, non-blocking sockets; the buffer of the second one holds a burst."""
    socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for sock in socks:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
    yield socks
    for sock in socks:
        sock.close()


def _heard(sock):
    datagrams = []
    while True:
        try:
            datagrams.append(sock.recv(70000))
        except BlockingIOError:
            return datagrams


def _datagrams(count, size, last):
    return [bytes([n]) * size for n in range(count - 1)] + [b"z" * last]


@pytest.mark.parametrize(
    ("count", "size", "last"),
    [(2, 516, 516), (3, 1472, 4), (64, 516, 100), (130, 100, 7), (3, 30000, 30000), (2, 65000, 9)],
)
@pytest.mark.parametrize("segments", [True, False], ids=["segmented", "one by one"])
def test_a_burst_arrives_as_its_datagrams(pair, count, size, last, segments):
    sender, receiver = pair
    bursts = SegmentedSender(sender)
    bursts._has_gso = segments and bursts._has_gso
    datagrams = _datagrams(count, size, last)
    bursts.send(b"".join(datagrams), size, receiver.getsockname())
    assert _heard(receiver) == datagrams


def test_a_connected_socket_needs_no_address(pair):
    sender, receiver = pair
    sender.connect(receiver.getsockname())
    bursts = SegmentedSender(sender)
    bursts.send(b"aabbc", 2)
    bursts.send(memoryview(b"d"), 2)
    bursts._has_gso = False
    bursts.send(memoryview(b"eef"), 2)
    assert _heard(receiver) == [b"aa", b"bb", b"c", b"d", b"ee", b"f"]


class NoGsoSocket:
    """Socket without UDP_SEGMENT."""

    def __init__(self, number):
        self.number = number
        self.asked = 0
        self.sent = []

    def sendmsg(self, *_):
        self.asked += 1
        raise OSError(self.number, "cannot")

    def sendto(self, datagram, _):
        self.sent.append(datagram)


@pytest.mark.skipif(not segmentation._LINUX, reason="only Linux segments")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EMSGSIZE, errno.EIO, errno.ENOPROTOOPT])
def test_segmentation_is_not_tried_again_after_it_failed(number):
    sock = NoGsoSocket(number)
    bursts = SegmentedSender(sock)
    for _ in range(2):
        bursts.send(b"aab", 2, ("127.0.0.1", 9))
    assert (sock.asked, sock.sent) == (2, [b"aa", b"b"] * 2)


class RefusedOnceSocket(NoGsoSocket):
    """Socket with a pending ICMP error."""

    def sendmsg(self, parts, *_):
        if not self.asked:
            super().sendmsg()
        self.sent += parts


@pytest.mark.skipif(not segmentation._LINUX, reason="only Linux segments")
@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.EMSGSIZE])
def test_an_icmp_error_does_not_disable_segmentation(number):
    sock = RefusedOnceSocket(number)
    bursts = SegmentedSender(sock)
    for _ in range(2):
        bursts.send(b"aab", 2, ("127.0.0.1", 9))
    assert sock.sent == [b"aab"] * 2


@pytest.mark.skipif(not segmentation._LINUX, reason="only Linux segments")
def test_a_full_buffer_does_not_disable_segmentation():
    sock = NoGsoSocket(errno.EAGAIN)
    bursts = SegmentedSender(sock)
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            bursts.send(b"aab", 2, ("127.0.0.1", 9))
    assert (sock.asked, sock.sent) == (2, [])


@pytest.mark.skipif(not segmentation._LINUX, reason="only Linux gathers")
def test_coalesced_datagrams_are_split(pair):
    sender, receiver = pair
    assert enable_gro(receiver)
    datagrams = _datagrams(10, 516, 99)
    SegmentedSender(sender).send(b"".join(datagrams), 516, receiver.getsockname())
    assert _bursts(receiver) == [(datagrams, sender.getsockname())]


def _bursts(sock):
    received = []
    recv_coalesced(sock, lambda datagrams, peer: received.append((list(datagrams), peer)))
    return received


def test_all_datagrams_are_delivered_with_their_source(pair):
    sender, receiver = pair
    assert _bursts(receiver) == []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        for source, datagram in ((sender, b"a"), (other, b"bb"), (sender, b"")):
            source.sendto(datagram, receiver.getsockname())
        assert _bursts(receiver) == [
            ([b"a"], sender.getsockname()),
            ([b"bb"], other.getsockname()),
            ([b""], sender.getsockname()),
        ]


def test_one_turn_reads_a_bounded_number_of_bursts(pair):
    sender, receiver = pair
    for _ in range(70):
        sender.sendto(b"x", receiver.getsockname())
    assert len(_bursts(receiver)) == 64
    assert len(_bursts(receiver)) == 6


def test_gro_is_not_enabled_on_other_systems_than_linux(monkeypatch, pair):
    monkeypatch.setattr(segmentation, "_LINUX", False)
    assert not enable_gro(pair[0])
    assert not SegmentedSender(pair[0])._has_gso


class InterruptedSocket:
    """Socket whose read fills the buffer and then lets `meanwhile` run before it returns."""

    def __init__(self, datagram, meanwhile):
        self._datagram = datagram
        self._meanwhile = meanwhile

    def recvmsg_into(self, buffers, ancillary_bytes, flags):
        buffers[0][: len(self._datagram)] = self._datagram
        self._meanwhile()
        return len(self._datagram), [], 0, ("192.0.2.7", 1069)


def test_reads_in_two_threads_at_once_do_not_mix_their_data():
    others = []

    def read_in_another_thread():
        sock = InterruptedSocket(b"bbbb", lambda: None)
        thread = threading.Thread(target=lambda: others.append(recv_burst(sock)[0]))
        thread.start()
        thread.join()

    assert recv_burst(InterruptedSocket(b"aaaa", read_in_another_thread))[0] == (b"aaaa",)
    assert others == [(b"bbbb",)]
