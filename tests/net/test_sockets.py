"""Local address of a datagram from the control messages of the kernel."""

import socket

import pytest

from tftpd.net import sockets
from tftpd.net.port_pool import PortRequirements
from tftpd.net.sockets import parse_pktinfo

IP_PKTINFO = 8


def _told(ours, destination):
    data = bytes(4) + socket.inet_aton(ours) + socket.inet_aton(destination)
    return parse_pktinfo((socket.IPPROTO_IP, IP_PKTINFO, data))


@pytest.mark.parametrize(
    ("ours", "destination", "local", "broadcast"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.1", False),
        ("192.0.2.1", "192.0.2.255", "192.0.2.1", True),
        ("192.0.2.1", "255.255.255.255", "192.0.2.1", True),
        # A datagram that arrived before IP_PKTINFO was set has no local address.
        ("0.0.0.0", "192.0.2.1", "192.0.2.1", False),
        ("0.0.0.0", "255.255.255.255", "255.255.255.255", True),
        ("0.0.0.0", "224.0.0.1", "224.0.0.1", True),
    ],
)
def test_the_local_address_of_a_request_is_reported(ours, destination, local, broadcast):
    assert _told(ours, destination) == ((local, 0), broadcast)


@pytest.mark.parametrize(
    ("destination", "broadcast"),
    [("127.0.0.1", False), ("255.255.255.255", True), ("224.0.0.1", True)],
)
def test_the_bsds_report_the_destination_only(monkeypatch, destination, broadcast):
    monkeypatch.setattr(sockets, "_IP_RECVDSTADDR", 7)
    parse_pktinfo.cache_clear()
    message = socket.IPPROTO_IP, 7, socket.inet_aton(destination)
    assert parse_pktinfo(message) == ((destination, 0), broadcast)


def test_only_linux_binds_two_sockets_to_one_port(monkeypatch):
    """The BSDs refuse it, and Windows delivers to any of the two."""
    needs = PortRequirements(600, 600, receives=False)
    monkeypatch.setattr(sockets, "_LINUX", False)
    with (
        sockets.bind_session(("127.0.0.1", 0), needs) as sock,
        pytest.raises(OSError, match="not supported"),
    ):
        sockets.bind_connected_twin(sock, ("127.0.0.1", 9), needs)
