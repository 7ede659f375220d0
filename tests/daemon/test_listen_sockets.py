"""Sockets that systemd has bound beside those that the configuration names."""

import os
import socket
from contextlib import suppress

import pytest
from twisted.logger import capturedLogs

from tests.support.daemons import free_port
from tftpd.config.settings import Settings
from tftpd.daemon.listen_sockets import BindError, adopt, bind


def _settings(*listen, **more):
    keys = {"directories": [{"root": "/", "read": True}], **more}
    if listen:
        keys["listen"] = [
            {"address": address, "port": port, **options} for address, port, options in listen
        ]
    return Settings.model_validate(keys)


@pytest.fixture
def passed():
    """Makes descriptors of bound sockets, as systemd leaves them: blocking."""
    descriptors = []

    def make(
        address="127.0.0.1", port=0, family=socket.AF_INET, kind=socket.SOCK_DGRAM, options=()
    ):
        sock = socket.socket(family, kind)
        for option in options:
            sock.setsockopt(*option)
        sock.bind((address, port) if family != socket.AF_UNIX else address)
        descriptors.append(sock.detach())
        return descriptors[-1]

    yield make
    for descriptor in descriptors:
        with suppress(OSError):  # a test has closed it
            os.close(descriptor)


V6ONLY = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
SHARED = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _close(bound):
    for each in bound:
        each.close()


def test_an_inherited_socket_gets_what_our_own_have(passed):
    (held,) = adopt([passed()])
    (own,) = bind(_settings(("127.0.0.1", free_port(), {})))
    options = [
        (socket.SOL_SOCKET, socket.SO_RCVBUF),
        (socket.IPPROTO_IP, 8),  # IP_PKTINFO
    ]
    for option in options:
        assert held.sockets[0].getsockopt(*option) == own.sockets[0].getsockopt(*option) > 0
    assert held.sockets[0].gettimeout() == 0
    assert held.inherited
    _close([held, own])


def test_an_ipv6_socket_says_where_requests_arrived(passed):
    (held,) = adopt([passed("::1", family=socket.AF_INET6)])
    assert held.sockets[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO) == 1
    _close([held])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give more than rmem_max")
def test_a_buffer_that_systemd_gave_is_not_made_smaller(passed):
    force = (socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    (held,) = adopt([passed(options=[force])])
    assert held.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 128 << 20
    _close([held])


def test_where_listen_is_left_out_the_inherited_sockets_serve(passed):
    held = adopt([passed(), passed("::1", family=socket.AF_INET6)])
    assert bind(_settings(), held) == held
    _close(held)


def test_an_entry_uses_the_socket_of_its_address_and_the_rest_is_bound(passed):
    held = adopt([passed()])
    other = free_port()
    listen = ("127.0.0.1", held[0].address[1], {"broadcast": "answer"})
    bound = bind(_settings(("127.0.0.1", other, {}), listen), held)
    assert [each.address for each in bound] == [("127.0.0.1", other), held[0].address]
    assert bound[1].sockets is held[0].sockets
    assert [each.inherited for each in bound] == [False, True]
    assert [each.listen.broadcast for each in bound] == ["ignore", "answer"]
    _close(bound)


def test_what_an_entry_had_said_of_an_inherited_socket_goes_with_it(passed):
    held = adopt([passed()])
    (bound,) = bind(_settings(("127.0.0.1", held[0].address[1], {"broadcast": "answer"})), held)
    assert bound.listen.broadcast == "answer"
    assert bind(_settings(), [bound]) == held
    _close(held)


def test_sockets_that_are_held_stay_and_others_are_left_open(passed):
    first = bind(_settings(("127.0.0.1", free_port(), {}), ("127.0.0.1", free_port(), {})))
    kept, gone = first
    (again,) = bind(_settings(("127.0.0.1", kept.address[1], {})), first)
    assert again.sockets is kept.sockets
    assert gone.sockets[0].fileno() >= 0
    _close(first)


def test_an_inherited_socket_that_no_entry_wants_is_told(passed):
    held = adopt([passed()])
    where = f"127.0.0.1:{held[0].address[1]}"
    port = free_port()
    with pytest.raises(BindError) as cannot:
        bind(_settings(("127.0.0.1", port, {})), held)
    assert str(cannot.value) == (
        f"systemd passed a socket of {where}, which no entry of `listen` names; "
        "name it there, or leave `listen` out"
    )
    _close(bind(_settings(("127.0.0.1", port, {}))))  # nothing of it was left bound
    _close(held)


def test_what_was_bound_is_given_up_where_the_next_is_taken():
    free, taken = free_port(), free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", taken))
        with pytest.raises(BindError, match="in use by another program"):
            bind(_settings(("127.0.0.1", free, {}), ("127.0.0.1", taken, {})))
    _close(bind(_settings(("127.0.0.1", free, {}))))


def test_one_socket_cannot_be_spread_over_workers(passed):
    held = adopt([passed()])
    with pytest.raises(BindError) as cannot:
        bind(_settings(workers=2), held)
    assert str(cannot.value) == (
        f"systemd passed 1 socket of 127.0.0.1:{held[0].address[1]} for 2 workers; "
        "each worker needs one (ReusePort=yes)"
    )
    _close(held)


def test_each_worker_has_one_of_the_sockets_that_share_a_port(passed):
    first = passed(options=[SHARED])
    with socket.socket(fileno=os.dup(first)) as sock:
        port = sock.getsockname()[1]
    (held,) = adopt([first, passed(port=port, options=[SHARED])])
    assert len(held.sockets) == 2
    assert bind(_settings(workers=2), [held]) == [held]
    with pytest.raises(BindError, match=r"passed 2 sockets of .* for 1 worker;"):
        bind(_settings(), [held])
    _close([held])


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (
            {"address": "::", "family": socket.AF_INET6, "options": [(*V6ONLY, 0)]},
            r"that takes IPv4 too; use two, BindIPv6Only=ipv6-only$",
        ),
        (
            {"address": "::ffff:127.0.0.1", "family": socket.AF_INET6, "options": [(*V6ONLY, 0)]},
            r"that takes IPv4 too; use two, BindIPv6Only=ipv6-only$",
        ),
        ({"kind": socket.SOCK_STREAM}, "none of UDP; its unit needs ListenDatagram=$"),
        ({"address": "", "family": socket.AF_UNIX}, "none of IP; its unit needs ListenDatagram="),
    ],
    ids=["dual stack", "mapped", "stream", "unix"],
)
def test_what_cannot_serve_is_told_in_one_line(passed, how, why):
    with pytest.raises(BindError, match=why):
        adopt([passed(**how)])


def test_what_is_no_socket_is_told_in_one_line():
    read, write = os.pipe()
    with pytest.raises(BindError, match=rf"^systemd passed descriptor {read}: Socket operation"):
        adopt([read])
    os.close(read)
    os.close(write)


def test_an_ipv6_address_of_its_own_may_be_dual_stack(passed):
    """Only where it is all addresses, or one of IPv4, does IPv4 come in."""
    (held,) = adopt([passed("::1", family=socket.AF_INET6, options=[(*V6ONLY, 0)])])
    _close([held])


def test_a_host_without_ipv6_is_no_fault_of_the_defaults(monkeypatch):
    def bind_listeners(address, port, count, beside):
        if ":" in address:
            raise OSError(97, "Address family not supported by protocol")
        return [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]

    monkeypatch.setattr("tftpd.daemon.listen_sockets.bind_listeners", bind_listeners)
    with capturedLogs() as captured:
        bound = bind(_settings())
    assert len(bound) == 1
    assert captured[0]["said"] == ":: port 69"
    _close(bound)
