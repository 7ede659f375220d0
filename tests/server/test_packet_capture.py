"""A trace of one client, which comes and goes while the server runs."""

import struct
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from twisted.logger import globalLogPublisher

from tests.support.fakes import SERVER, WELL_KNOWN, MemoryServer
from tftpd.net.packet_text import describe_packet
from tftpd.net.wrappers import ProtocolTap
from tftpd.protocol.packets import Ack, Rrq
from tftpd.server.packet_capture import CaptureConfig, PacketCapture

TRACED, OTHER = "192.0.2.7", "192.0.2.8"


class Server(MemoryServer):
    """A server in memory that can be traced."""

    def __init__(self, offer):
        super().__init__(offer)
        self.tracing = PacketCapture(lambda: 1_700_000_000.0)
        runtime, self.opened = self.listener._starter._runtime, []

        def open_port(protocol, local, needs):
            between = self.tracing.tap(protocol)
            self.opened.append(type(between))
            return runtime.open_port(between, local, needs)

        self.listener._starter._runtime = replace(runtime, open_port=open_port)

    def trace(self, traced):
        self.tracing.switch(traced, [self.port])


@pytest.fixture
def server(offer):
    built = Server(offer)
    yield built
    built.trace(None)
    built.waits(120)
    assert built.idle


@pytest.fixture
def events():
    """What is logged."""
    logged = []

    def observe(event):
        logged.append(event["log_format"])

    globalLogPublisher.addObserver(observe)
    yield logged
    globalLogPublisher.removeObserver(observe)


def _lines(path):
    """What a trace holds, in words."""
    octets, at, lines = path.read_bytes(), 24, []
    while at < len(octets):
        size = struct.unpack_from("=IIII", octets, at)[2]
        packet, at = octets[at + 16 : at + 16 + size], at + 16 + size
        source, to = (ip_address(packet[here : here + 4]) for here in (12, 16))
        ports = struct.unpack_from("!HH", packet, 20)
        lines.append(f"{source}:{ports[0]} > {to}:{ports[1]} {describe_packet(packet[28:])}")
    return lines


def _traced(path, clients=TRACED, max_size=1 << 20):
    return CaptureConfig(ip_network(clients), path, max_size)


def test_every_packet_of_the_client_is_there_and_no_other(server, tmp_path):
    server.trace(_traced(tmp_path / "t.pcap"))
    client, other = server.client(TRACED), server.client(OTHER)
    for each in (client, other):
        each.asks(Rrq(b"missing", b"octet"))
        each.asks(Rrq(b"kilo", b"octet", ((b"blksize", b"1000"),)))
        each.says(Ack(0), Ack(1), Ack(2))
    tid = client.tid[1]
    here, there = f"{SERVER}:{WELL_KNOWN}", f"{TRACED}:2070"
    ours = f"{SERVER}:{tid}"
    assert _lines(tmp_path / "t.pcap") == [
        f"{there} > {here} RRQ missing octet",
        f"{here} > {there} ERROR 1 File not found",
        f"{there} > {here} RRQ kilo octet blksize=1000",
        f"{ours} > {there} OACK blksize=1000",
        f"{there} > {ours} ACK 0",
        f"{ours} > {there} DATA 1, 1000 octets",
        f"{there} > {ours} ACK 1",
        f"{ours} > {there} DATA 2, 24 octets",
        f"{there} > {ours} ACK 2",
    ]


def test_nothing_stands_between_the_port_and_the_session_of_another_client(server, tmp_path):
    server.client(TRACED, 1).asks(Rrq(b"kilo", b"octet"))
    server.trace(_traced(tmp_path / "t.pcap"))
    server.client(OTHER, 2).asks(Rrq(b"kilo", b"octet"))
    server.client(TRACED, 3).asks(Rrq(b"kilo", b"octet"))
    server.trace(None)
    server.client(TRACED, 4).asks(Rrq(b"kilo", b"octet"))
    assert [kind is ProtocolTap for kind in server.opened] == [False, False, True, False]
    assert server.port.hear is None


def test_a_stranger_at_the_port_of_the_client_is_heard(server, tmp_path):
    server.trace(_traced(tmp_path / "t.pcap"))
    client = server.client(TRACED)
    client.asks(Rrq(b"kilo", b"octet"))
    server.net.deliver(Ack(1).encode(), (OTHER, 9), client.tid)
    assert [line.split(maxsplit=3)[3] for line in _lines(tmp_path / "t.pcap")[-2:]] == [
        "ACK 1",
        "ERROR 5 Unknown transfer ID",
    ]


def test_a_network_can_be_traced(server, tmp_path):
    server.trace(_traced(tmp_path / "t.pcap", "192.0.2.0/24"))
    for host in (TRACED, OTHER, "198.51.100.1"):
        server.client(host).asks(Rrq(b"missing", b"octet"))
    assert len(_lines(tmp_path / "t.pcap")) == 4


def test_a_reload_with_the_same_trace_goes_on_in_its_file(server, tmp_path):
    for _ in range(2):
        server.trace(_traced(tmp_path / "t.pcap"))
        server.client(TRACED).asks(Rrq(b"missing", b"octet"))
    assert len(_lines(tmp_path / "t.pcap")) == 4
    assert not (tmp_path / "t.pcap.1").exists()


def test_a_session_is_not_in_the_trace_of_another_client(server, tmp_path):
    server.trace(_traced(tmp_path / "one.pcap"))
    client = server.client(TRACED)
    client.asks(Rrq(b"kilo", b"octet"))
    server.trace(_traced(tmp_path / "other.pcap", OTHER))
    client.says(Ack(1))
    assert _lines(tmp_path / "other.pcap") == []
    assert len(_lines(tmp_path / "one.pcap")) == 2


def test_a_session_outlives_its_trace_unheard(server, tmp_path, events):
    server.trace(_traced(tmp_path / "one.pcap"))
    client = server.client(TRACED)
    client.asks(Rrq(b"kilo", b"octet"))
    server.trace(None)
    assert [packet.block for packet in client.says(Ack(1))] == [2]
    assert len(_lines(tmp_path / "one.pcap")) == 2
    assert events == ["tracing {clients} in {file}", "trace of {clients} ended"]


def test_a_full_trace_says_so_and_stays_so(server, tmp_path, events):
    small = _traced(tmp_path / "t.pcap", max_size=200)
    for port in (1, 2):
        server.trace(small)
        answer = server.client(TRACED, port).asks(Rrq(b"kilo", b"octet"))
        assert len(answer) == 1
    assert len(_lines(tmp_path / "t.pcap")) == 1
    assert events[-1] == "trace of {clients} is full: {file} has its max_size"
    assert len(events) == 2


def test_a_trace_that_cannot_be_costs_nobody_an_answer(server, tmp_path, events):
    server.trace(_traced(tmp_path / "missing" / "t.pcap"))
    assert len(server.client(TRACED).asks(Rrq(b"kilo", b"octet"))) == 1
    assert events == ["no trace in {file}: {why}"]
    assert server.port.hear is None
    server.trace(None)


def test_a_disk_that_fails_ends_the_trace_alone(server, tmp_path, events, monkeypatch):
    server.trace(_traced(tmp_path / "t.pcap"))

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", fails)
    answer = server.client(TRACED).asks(Rrq(b"kilo", b"octet"))
    monkeypatch.undo()
    assert len(answer) == 1
    assert events[-1] == "trace of {clients} ended: {why}"
