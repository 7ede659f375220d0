"""Addresses that go and come, and ICMP errors, true and forged."""

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.faults.watching import watched
from tests.hosts import host

CONTENT = bytes(range(256)) * 64
OURS = "10.9.0.1"

# Type and codes of RFC 792, 1122, 1191 and 1812, all that carry what they are about.
ICMP = [
    *((3, code) for code in range(16)),  # unreachable: net, host, protocol, port, too large, ...
    (4, 0),  # source quench
    *((5, code) for code in range(4)),  # redirect
    (11, 0),  # time to live
    (11, 1),  # reassembly
    *((12, code) for code in range(3)),  # parameter problem
]


@pytest.fixture
def place() -> Iterator[object]:
    """A host that has another address beside loopback's."""
    with host() as here:
        here.run("ip", "address", "add", f"{OURS}/32", "dev", "lo")
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


def quoting(kind, code, source, target, more=0):
    """An ICMP error about a datagram of 512 octets that `source` is said to have sent."""
    udp = struct.pack("!HHHH", source[1], target[1], 524, 0)
    ip = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        544,
        1,
        0,
        64,
        17,
        0,
        *map(socket.inet_aton, (source[0], target[0])),
    )
    body = struct.pack("!BBHI", kind, code, 0, more) + ip + udp + b"\0\3\0\1"
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    total += total >> 16
    return body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]


def test_forged_icmp_errors_of_all_kinds_stop_no_transfer(tmp_path, place):
    with watched(tmp_path, address=OURS, **somewhere(place)) as watch:
        (watch.root / "file").write_bytes(CONTENT * 4)
        with place.entered():
            forger = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        options = ("blksize", 1024), ("windowsize", 2)
        reading = watch.download(b"file", *options).more(20)  # on sockets connected to it
        writing = watch.upload(b"new", CONTENT * 4, *options[:1]).more(20)
        with forger, reading, writing:
            for kind, code in ICMP:
                for client in (reading.more(1), writing.more(1)):
                    for port in (client.tid[1], 69):
                        mtu = 576 if (kind, code) == (3, 4) else 0
                        ends = ((OURS, port), ("10.9.0.1", client.port))
                        forger.sendto(quoting(kind, code, *ends, mtu), (OURS, 0))
            assert reading.rest() == CONTENT * 4
            writing.rest()
        assert (watch.root / "new").read_bytes() == CONTENT * 4
        said = place.run("cat", "/proc/net/snmp").stdout.decode()
        names, counts = [line.split() for line in said.splitlines() if line.startswith("Ip: ")]
        assert int(counts[names.index("FragCreates")]) > 0  # the kernel believed them


def test_a_client_that_dies_is_told_of_by_icmp_and_given_up(tmp_path, place):
    quick = {"patience": 1}
    with watched(tmp_path, address=OURS, retransmit=quick, **somewhere(place)) as watch:
        (watch.root / "file").write_bytes(CONTENT * 4)
        for blocks in (1, 30):  # before and after there is a socket connected to it
            with watch.download(b"file").more(blocks):
                pass
            with watch.upload(b"new", CONTENT).more(blocks):
                pass
        watch.running.awaited(6)
        assert watch.outcomes() == {"done": 2, "timed out": 4}
