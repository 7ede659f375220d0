"""Packet traces of a running daemon, read by tshark."""

import signal
import subprocess

import pytest

from tests.support.daemons import daemon, free_port, until
from tests.support.plain import ServerError, get, put
from tests.support.programs import program

pytestmark = pytest.mark.check

RRQ, WRQ, DATA, ACK, ERROR, OACK = range(1, 7)

FIELDS = [
    *("ip.src", "ipv6.src", "udp.srcport", "ip.dst", "ipv6.dst", "udp.dstport"),
    *("tftp.opcode", "udp.checksum.status", "tftp.block"),
]


@pytest.fixture(scope="module")
def tshark():
    return program("tshark")


def _read(tshark, file, port):
    """Return source, destination, opcode and block of each packet, and check the checksums."""
    command = [tshark, "-r", str(file), "-d", f"udp.port=={port},tftp", "-T", "fields"]
    command += ["-o", "udp.check_checksum:TRUE", "-o", "ip.defragment:FALSE"]
    command += [part for field in FIELDS for part in ("-e", field)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    packets = []
    for line in done.stdout.splitlines():
        four, six, source, to4, to6, to, opcode, checksum, block = line.split("\t")
        assert checksum == "1", line  # the checksum is correct
        packets.append(
            ((four or six, int(source)), (to4 or to6, int(to)), int(opcode), int(block or "0", 0))
        )
    return packets


def _traced(tmp_path, host, port, **settings):
    return daemon(
        tmp_path,
        listen=[{"address": host, "port": port}],
        trace={"client": host, "file": "trace.pcap"},
        **settings,
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_trace_has_each_packet_of_a_client(tshark, tmp_path, host):
    port = free_port()
    with _traced(tmp_path, host, port) as running:
        (running.root / "file").write_bytes(bytes(70_000))
        with pytest.raises(ServerError):
            get(port, b"missing", host=host)
        running.awaited(1)
        get(port, b"file", [("blksize", 65464)], host=host)
        running.awaited(2)  # the last ACK precedes the next request
        put(port, b"new", b"x" * 600, [("blksize", 512)], host=host)
        running.awaited(3)
        packets = _read(tshark, tmp_path / "trace.pcap", port)
    server = (host, port)
    at_listener = [packet for packet in packets if server in packet[:2]]
    assert [(to == server, opcode) for _, to, opcode, _ in at_listener] == [
        (True, RRQ),
        (False, ERROR),
        (True, RRQ),
        (True, WRQ),
    ]
    for begin, expected in (
        (2, [("out", OACK, 0), ("in", ACK, 0), ("out", DATA, 1), ("in", ACK, 1),
             ("out", DATA, 2), ("in", ACK, 2)]),
        (9, [("out", OACK, 0), ("in", DATA, 1), ("out", ACK, 1), ("in", DATA, 2),
             ("out", ACK, 2)]),
    ):  # fmt: skip
        client = packets[begin][0]
        session = packets[begin + 1 : begin + 1 + len(expected)]
        tid = session[0][0]
        assert tid[0] == host
        assert tid[1] != port
        assert [
            ("in" if source == client else "out", opcode, block)
            for source, _, opcode, block in session
        ] == expected
        assert {frozenset(packet[:2]) for packet in session} == {frozenset((client, tid))}


def test_a_trace_has_each_packet_of_the_single_port_once(tshark, tmp_path):
    port = free_port()
    listen = [{"address": "127.0.0.1", "port": port, "mode": "single-port"}]
    with _traced(tmp_path, "127.0.0.1", port) as running:
        running.change(listen=listen)
        running.reload()
        (running.root / "file").write_bytes(bytes(600))
        with pytest.raises(ServerError):
            get(port, b"missing")
        get(port, b"file", [("blksize", 512), ("windowsize", 2)])
        put(port, b"new", b"x" * 600, [("blksize", 512), ("windowsize", 2)])
        running.awaited(3)
        packets = _read(tshark, tmp_path / "trace.pcap", port)
    server = ("127.0.0.1", port)
    assert [(to == server, opcode, block) for _, to, opcode, block in packets] == [
        *[(True, RRQ, 0), (False, ERROR, 0)],
        *[(True, RRQ, 0), (False, OACK, 0), (True, ACK, 0)],
        *[(False, DATA, 1), (False, DATA, 2), (True, ACK, 2)],
        *[(True, WRQ, 0), (False, OACK, 0)],
        *[(True, DATA, 1), (True, DATA, 2), (False, ACK, 2)],
    ]
    assert all(server in packet[:2] for packet in packets)


def test_each_worker_writes_its_own_file(tshark, tmp_path):
    port = free_port()
    with _traced(tmp_path, "127.0.0.1", port, workers=2) as running:
        (running.root / "file").write_bytes(b"content")
        for _ in range(8):
            assert get(port, b"file") == b"content"
        running.awaited(8)
        files = [tmp_path / "trace.0.pcap", tmp_path / "trace.1.pcap"]
        opcodes = [packet[2] for file in files for packet in _read(tshark, file, port)]
    assert sorted(opcodes) == sorted([RRQ, DATA, ACK] * 8)


def test_a_reload_starts_and_stops_a_trace(tshark, tmp_path):
    port = free_port()
    with daemon(tmp_path, listen=[{"address": "127.0.0.1", "port": port}]) as running:
        config, file = tmp_path / "tftpd.yaml", tmp_path / "trace.pcap"
        (running.root / "file").write_bytes(b"content")
        plain = config.read_text()
        for count, text in enumerate(
            [plain, plain + "trace: {client: 127.0.0.0/8, file: trace.pcap}\n", plain], 1
        ):
            config.write_text(text)
            running.process.send_signal(signal.SIGHUP)
            until(lambda n=count: running.log.read_text().count(": serving on") == n)
            assert get(port, b"file") == b"content"
            running.awaited(count)
        assert [packet[2] for packet in _read(tshark, file, port)] == [RRQ, DATA, ACK]
