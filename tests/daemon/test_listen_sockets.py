"""Inherited sockets and sockets of configured addresses."""

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
    """Return a function that creates a bound, blocking socket, as systemd passes it."""
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
        with suppress(OSError):  # the test has closed it
            os.close(descriptor)


V6ONLY = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
SHARED = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _close(bound):
    for entry in bound:
        entry.close()


def test_an_inherited_socket_gets_the_options_of_a_bound_one(passed):
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


def test_an_ipv6_socket_reports_the_destination_of_requests(passed):
    (held,) = adopt([passed("::1", family=socket.AF_INET6)])
    assert held.sockets[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO) == 1
    _close([held])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can exceed rmem_max")
def test_a_receive_buffer_set_by_systemd_is_not_reduced(passed):
    force = (socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    (held,) = adopt([passed(options=[force])])
    assert held.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 128 << 20
    _close([held])


def test_without_listen_the_inherited_sockets_are_used(passed):
    held = adopt([passed(), passed("::1", family=socket.AF_INET6)])
    assert bind(_settings(), held) == held
    _close(held)


def test_an_entry_uses_the_inherited_socket_of_its_address_and_others_are_bound(passed):
    held = adopt([passed()])
    other = free_port()
    listen = ("127.0.0.1", held[0].address[1], {"broadcast": "answer"})
    bound = bind(_settings(("127.0.0.1", other, {}), listen), held)
    assert [entry.address for entry in bound] == [("127.0.0.1", other), held[0].address]
    assert bound[1].sockets is held[0].sockets
    assert [entry.inherited for entry in bound] == [False, True]
    assert [entry.listen.broadcast for entry in bound] == ["ignore", "answer"]
    _close(bound)


def test_options_of_an_inherited_socket_end_with_its_entry(passed):
    held = adopt([passed()])
    (bound,) = bind(_settings(("127.0.0.1", held[0].address[1], {"broadcast": "answer"})), held)
    assert bound.listen.broadcast == "answer"
    assert bind(_settings(), [bound]) == held
    _close(held)


def test_held_sockets_are_used_again_and_others_stay_open(passed):
    first = bind(_settings(("127.0.0.1", free_port(), {}), ("127.0.0.1", free_port(), {})))
    kept, gone = first
    (again,) = bind(_settings(("127.0.0.1", kept.address[1], {})), first)
    assert again.sockets is kept.sockets
    assert gone.sockets[0].fileno() >= 0
    _close(first)


def test_an_inherited_socket_without_entry_is_an_error(passed):
    held = adopt([passed()])
    where = f"127.0.0.1:{held[0].address[1]}"
    port = free_port()
    with pytest.raises(BindError) as error:
        bind(_settings(("127.0.0.1", port, {})), held)
    assert str(error.value) == (
        f"systemd passed a socket of {where}, which no entry of `listen` names; "
        "add it there, or leave `listen` out"
    )
    _close(bind(_settings(("127.0.0.1", port, {}))))  # it was released
    _close(held)


def test_bound_sockets_are_closed_if_a_later_address_is_in_use():
    free, taken = free_port(), free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", taken))
        with pytest.raises(BindError, match="in use by another program"):
            bind(_settings(("127.0.0.1", free, {}), ("127.0.0.1", taken, {})))
    _close(bind(_settings(("127.0.0.1", free, {}))))


def test_one_socket_is_not_enough_for_two_workers(passed):
    held = adopt([passed()])
    with pytest.raises(BindError) as error:
        bind(_settings(workers=2), held)
    assert str(error.value) == (
        f"systemd passed 1 socket of 127.0.0.1:{held[0].address[1]} for 2 workers; "
        "each worker needs one (ReusePort=yes)"
    )
    _close(held)


def _names(bound):
    return [(entry.address[0], entry.listen.broadcast) for entry in bound]


def test_all_ipv6_addresses_are_also_all_ipv4_addresses():
    bound = bind(_settings(("::", free_port(), {"broadcast": "answer"})))
    assert _names(bound) == [("::", "answer"), ("0.0.0.0", "answer")]
    assert bound[0].sockets[0].getsockopt(*V6ONLY) == 1  # IPv4 clients have no mapped addresses
    _close(bound)


@pytest.mark.parametrize("ipv4", ["0.0.0.0", "127.0.0.1"])
def test_an_ipv4_entry_with_the_same_port_makes_them_ipv6_only(ipv4):
    port = free_port()
    bound = bind(_settings(("::", port, {}), (ipv4, port, {})))
    assert _names(bound) == [("::", "ignore"), (ipv4, "ignore")]
    other = bind(_settings(("::", port, {}), (ipv4, free_port(), {})), bound)
    assert [entry.address[:2] for entry in other][:2] == [("::", port), ("0.0.0.0", port)]
    _close({id(entry): entry for entry in (*bound, *other)}.values())


def test_a_reload_uses_both_sockets_again():
    settings = _settings(("::", free_port(), {}))
    bound = bind(settings)
    assert bind(settings, bound) == bound
    _close(bound)


@pytest.mark.parametrize("has_ipv4", [False, True])
def test_a_socket_of_systemd_stays_as_it_is(passed, has_ipv4):
    port = free_port()
    descriptors = [passed("::", port, socket.AF_INET6, options=[(*V6ONLY, 1)])]
    descriptors += [passed("0.0.0.0", port)] if has_ipv4 else []
    held = adopt(descriptors)
    bound = bind(_settings(("::", port, {})), held)
    assert [entry.sockets for entry in bound] == [entry.sockets for entry in held]
    _close(bound)


def test_each_worker_gets_one_of_the_sockets_that_share_a_port(passed):
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
    ("options", "reason"),
    [
        (
            {"address": "::", "family": socket.AF_INET6, "options": [(*V6ONLY, 0)]},
            r"a socket that accepts both IPv4 and IPv6: .*; use two sockets with BindIPv6Only=",
        ),
        (
            {"address": "::ffff:127.0.0.1", "family": socket.AF_INET6, "options": [(*V6ONLY, 0)]},
            r"a socket that accepts both IPv4 and IPv6: .*; use two sockets with BindIPv6Only=",
        ),
        (
            {"kind": socket.SOCK_STREAM},
            "a socket that neither is UDP nor listens: .*; use ListenDatagram=, or ListenStream= ",
        ),
        (
            {"address": "", "family": socket.AF_UNIX},
            "a socket that is not an IP socket; its unit needs ListenDatagram=",
        ),
    ],
    ids=["dual stack", "mapped", "stream", "unix"],
)
def test_an_unsuitable_socket_is_an_error_in_one_line(passed, options, reason):
    with pytest.raises(BindError, match=reason):
        adopt([passed(**options)])


def test_a_descriptor_that_is_not_a_socket_is_an_error_in_one_line():
    read, write = os.pipe()
    with pytest.raises(BindError, match=rf"^systemd passed descriptor {read}: Socket operation"):
        adopt([read])
    os.close(read)
    os.close(write)


def test_a_specific_ipv6_address_may_be_dual_stack(passed):
    """IPv4 packets arrive only at the unspecified or an IPv4-mapped address."""
    (held,) = adopt([passed("::1", family=socket.AF_INET6, options=[(*V6ONLY, 0)])])
    _close([held])


def test_a_host_without_ipv6_can_use_the_default_addresses(monkeypatch):
    def bind_listeners(address, port, count, beside, kind):
        if ":" in address:
            raise OSError(97, "Address family not supported by protocol")
        return [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]

    monkeypatch.setattr("tftpd.daemon.listen_sockets.bind_listeners", bind_listeners)
    with capturedLogs() as captured:
        bound = bind(_settings())
    assert len(bound) == 1
    assert captured[0]["where"] == ":: port 69"
    _close(bound)
