"""Addresses that go and come, and ICMP errors, true and forged."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.faults.forging import ICMP, ICMPV6, TOO_LARGE, about
from tests.faults.watching import watched
from tests.support.hosts import host

pytestmark = pytest.mark.check

CONTENT = bytes(range(256)) * 64
LARGE = CONTENT * 8
OURS = "10.9.0.1"
OURS6 = "fd00:9::1"
MTUS = [1400, 1280, 1279, 576, 68, 0]  # below 1280 no IPv6 host has to go (RFC 8200 s5)


@pytest.fixture
def place() -> Iterator[object]:
    """A host that has other addresses beside loopback's."""
    with host() as here:
        here.run("ip", "address", "add", f"{OURS}/32", "dev", "lo")
        here.run("ip", "address", "add", f"{OURS6}/128", "dev", "lo")
        yield here


def somewhere(where, address=OURS):
    return {"listen": [{"address": address, "port": 69}], "port": 69, "host": where}


@pytest.mark.parametrize("listens", [OURS, "0.0.0.0"])
def test_an_address_that_goes_and_comes_back_finds_its_transfers_again(tmp_path, place, listens):
    with watched(tmp_path, address=OURS, **somewhere(place, listens)) as watch:
        (watch.root / "file").write_bytes(CONTENT * 4)
        running = [watch.download(b"file").more(3) for _ in range(5)]
        running += [watch.download(b"file").more(25) for _ in range(5)]  # on a second socket
        writing = watch.upload(b"new", CONTENT).more(20)
        place.run("ip", "address", "del", f"{OURS}/32", "dev", "lo")
        for each in running:
            each.say(each._last)
        with pytest.raises(TimeoutError):
            watch.get(b"file", patience=0.5)
        watch.running.reload()  # the listeners stay, though none could be bound there now
        place.run("ip", "address", "add", f"{OURS}/32", "dev", "lo")
        for each in running:
            with each:
                assert each.rest() == CONTENT * 4
        with writing:
            writing.rest()
        assert (watch.root / "new").read_bytes() == CONTENT


@pytest.mark.parametrize("ours", [OURS, OURS6], ids=["ipv4", "ipv6"])
def test_forged_icmp_errors_of_all_kinds_stop_no_transfer(tmp_path, place, ours):
    v6 = ":" in ours
    ports = {"mode": "per-session", "port": 69}, {"mode": "single-port", "port": 70}
    listen = [{"address": ours, **each} for each in ports]
    options = ("blksize", 1400), ("windowsize", 2)
    with watched(tmp_path, address=ours, listen=listen, port=69, host=place) as watch:
        (watch.root / "file").write_bytes(LARGE)
        with ExitStack() as held:
            with place.entered():
                forger = held.enter_context(raw(v6))
            clients = []
            for each in ports:
                watch.running.port = each["port"]
                reading = watch.download(b"file", *options)
                writing = watch.upload(b"%d" % each["port"], LARGE, *options[:1])
                clients += map(held.enter_context, (reading, writing))
            for client in clients:
                client.more(20)  # on sockets connected to it
            for kind, code in ICMPV6 if v6 else ICMP:
                for mtu in MTUS if (kind, code) in TOO_LARGE else [0]:
                    for client in clients:
                        client.more(1)
                        for port in {client.tid[1], 69, 70}:
                            ends = (ours, port), (ours, client.port)
                            forger.sendto(about(kind, code, *ends, mtu), (ours, 0))
            for reading, writing in (clients[:2], clients[2:]):
                assert reading.rest() == LARGE
                writing.rest()
        for each in ports:
            assert (watch.root / str(each["port"])).read_bytes() == LARGE
        assert fragments(place, v6) > 0  # the kernel believed them


def raw(v6):
    """Program that sends ICMP messages."""
    if v6:
        return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


def fragments(where, v6):
    """Return the number of IP fragments that a host has created."""
    if v6:
        said = where.run("cat", "/proc/net/snmp6").stdout.decode()
        return int(dict(line.split() for line in said.splitlines())["Ip6FragCreates"])
    said = where.run("cat", "/proc/net/snmp").stdout.decode()
    names, counts = [line.split() for line in said.splitlines() if line.startswith("Ip: ")]
    return int(counts[names.index("FragCreates")])


def test_a_client_that_dies_is_told_of_by_icmp_and_given_up(tmp_path, place):
    quick = {"idle_timeout": 1}
    with watched(tmp_path, address=OURS, retransmit=quick, **somewhere(place)) as watch:
        (watch.root / "file").write_bytes(CONTENT * 4)
        for blocks in (1, 30):  # before and after there is a socket connected to it
            with watch.download(b"file").more(blocks):
                pass
            with watch.upload(b"new", CONTENT).more(blocks):
                pass
        watch.running.awaited(6)
        assert watch.outcomes() == {"done": 2, "timed out": 4}
