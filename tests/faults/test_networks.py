"""Removed addresses, and ICMP errors, genuine and forged."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.faults.icmp import ICMP, ICMPV6, TOO_LARGE, icmp_error
from tests.faults.watched_daemon import watched_daemon
from tests.support.hosts import host

pytestmark = pytest.mark.check

CONTENT = bytes(range(256)) * 64
LARGE = CONTENT * 8
ADDRESS = "10.9.0.1"
ADDRESS6 = "fd00:9::1"
MTUS = [1400, 1280, 1279, 576, 68, 0]  # 1280 is the minimum of IPv6 (RFC 8200 s5)


@pytest.fixture
def namespace() -> Iterator[object]:
    """Create a host that has addresses besides those of loopback."""
    with host() as created:
        created.run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
        created.run("ip", "address", "add", f"{ADDRESS6}/128", "dev", "lo")
        yield created


def _listen_on(namespace, address=ADDRESS):
    return {"listen": [{"address": address, "port": 69}], "port": 69, "host": namespace}


@pytest.mark.parametrize("listen_address", [ADDRESS, "0.0.0.0"])
def test_transfers_continue_when_a_removed_address_is_added_again(
    tmp_path, namespace, listen_address
):
    with watched_daemon(
        tmp_path, address=ADDRESS, **_listen_on(namespace, listen_address)
    ) as watched:
        (watched.root / "file").write_bytes(CONTENT * 4)
        clients = [watched.download(b"file").more(3) for _ in range(5)]
        clients += [watched.download(b"file").more(25) for _ in range(5)]  # on a connected socket
        upload = watched.upload(b"new", CONTENT).more(20)
        namespace.run("ip", "address", "del", f"{ADDRESS}/32", "dev", "lo")
        for client in clients:
            client.retransmit()
        with pytest.raises(TimeoutError):
            watched.get(b"file", idle_timeout=0.5)
        watched.running.reload()  # listeners stay, although the address cannot be bound now
        namespace.run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
        for client in clients:
            with client:
                assert client.rest() == CONTENT * 4
        with upload:
            upload.rest()
        assert (watched.root / "new").read_bytes() == CONTENT


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS6], ids=["ipv4", "ipv6"])
def test_forged_icmp_errors_stop_no_transfer(tmp_path, namespace, address):
    v6 = ":" in address
    ports = {"mode": "per-session", "port": 69}, {"mode": "single-port", "port": 70}
    listen = [{"address": address, **entry} for entry in ports]
    options = ("blksize", 1400), ("windowsize", 2)
    with watched_daemon(
        tmp_path, address=address, listen=listen, port=69, host=namespace
    ) as watched:
        (watched.root / "file").write_bytes(LARGE)
        with ExitStack() as held:
            with namespace.entered():
                sender = held.enter_context(_icmp_socket(v6))
            clients = []
            for entry in ports:
                watched.running.port = entry["port"]
                download = watched.download(b"file", *options)
                upload = watched.upload(b"%d" % entry["port"], LARGE, *options[:1])
                clients += map(held.enter_context, (download, upload))
            for client in clients:
                client.more(20)  # on connected sockets
            for kind, code in ICMPV6 if v6 else ICMP:
                for mtu in MTUS if (kind, code) in TOO_LARGE else [0]:
                    for client in clients:
                        client.more(1)
                        for port in {client.tid[1], 69, 70}:
                            ends = (address, port), (address, client.port)
                            sender.sendto(icmp_error(kind, code, *ends, mtu), (address, 0))
            for download, upload in (clients[:2], clients[2:]):
                assert download.rest() == LARGE
                upload.rest()
        for entry in ports:
            assert (watched.root / str(entry["port"])).read_bytes() == LARGE
        # With IPv4 the daemon ignores a forged MTU: some boot loaders cannot reassemble fragments.
        assert (_created_fragments(namespace, v6) > 0) == v6


def _icmp_socket(v6):
    """Return a raw socket that sends ICMP messages."""
    if v6:
        return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


def _created_fragments(namespace, v6):
    """Return the number of IP fragments that a host has created."""
    if v6:
        text = namespace.run("cat", "/proc/net/snmp6").stdout.decode()
        return int(dict(line.split() for line in text.splitlines())["Ip6FragCreates"])
    text = namespace.run("cat", "/proc/net/snmp").stdout.decode()
    names, counts = [line.split() for line in text.splitlines() if line.startswith("Ip: ")]
    return int(counts[names.index("FragCreates")])


def test_sessions_of_a_closed_client_port_time_out(tmp_path, namespace):
    retransmit = {"idle_timeout": 1}
    with watched_daemon(
        tmp_path, address=ADDRESS, retransmit=retransmit, **_listen_on(namespace)
    ) as watched:
        (watched.root / "file").write_bytes(CONTENT * 4)
        for blocks in (1, 30):  # before and after the session has a connected socket
            with watched.download(b"file").more(blocks):
                pass
            with watched.upload(b"new", CONTENT).more(blocks):
                pass
        watched.running.awaited(6)
        assert watched.outcomes() == {"done": 2, "timed out": 4}
