"""Capture of one client's packets, switched on and off while the server runs."""

import struct
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from twisted.logger import globalLogPublisher

from tests.support.fakes import SERVER, WELL_KNOWN, MemoryServer
from tftpd.config.sections import TraceSection
from tftpd.net.packet_text import describe_packet
from tftpd.net.wrappers import ProtocolTap
from tftpd.protocol.packets import Ack, Rrq
from tftpd.server.packet_capture import PacketCapture

CAPTURED, OTHER = "192.0.2.7", "192.0.2.8"


class Server(MemoryServer):
    """Server in memory with a packet capture."""

    def __init__(self, offer, worker=None):
        super().__init__(offer)
        self.capture = PacketCapture(worker, lambda: 1_700_000_000.0)
        runtime, self.opened = self.listener._factory._runtime, []

        def open_port(protocol, local, needs):
            self.opened.append(type(protocol))
            return runtime.open_port(protocol, local, needs)

        self.listener._factory._runtime = replace(
            runtime, open_port=open_port, tap=self.capture.tap
        )

    def configure(self, config):
        self.capture.configure(config, [self.port])


@pytest.fixture
def server(offer):
    built = Server(offer)
    yield built
    built.configure(None)
    built.advance(120)
    assert built.idle


@pytest.fixture
def events():
    """Formats of the log events."""
    logged = []

    def observe(event):
        logged.append(event["log_format"])

    globalLogPublisher.addObserver(observe)
    yield logged
    globalLogPublisher.removeObserver(observe)


def _lines(path):
    """Return the packets of a capture as text."""
    data, position, lines = path.read_bytes(), 24, []
    while position < len(data):
        size = struct.unpack_from("=IIII", data, position)[2]
        packet, position = data[position + 16 : position + 16 + size], position + 16 + size
        source, to = (ip_address(packet[here : here + 4]) for here in (12, 16))
        ports = struct.unpack_from("!HH", packet, 20)
        lines.append(f"{source}:{ports[0]} > {to}:{ports[1]} {describe_packet(packet[28:])}")
    return lines


def _config(path, clients=CAPTURED, max_size=1 << 20):
    # A small `max_size` does not pass validation.
    return TraceSection.model_construct(
        client=ip_network(clients), file=str(path), max_size=max_size
    )


def test_the_capture_has_every_packet_of_the_client_and_no_other(server, tmp_path):
    server.configure(_config(tmp_path / "t.pcap"))
    client, other = server.client(CAPTURED), server.client(OTHER)
    for sender in (client, other):
        sender.request(Rrq(b"missing", b"octet"))
        sender.request(Rrq(b"kilo", b"octet", ((b"blksize", b"1000"),)))
        sender.send(Ack(0), Ack(1), Ack(2))
    tid = client.tid[1]
    local, peer = f"{SERVER}:{WELL_KNOWN}", f"{CAPTURED}:2070"
    session = f"{SERVER}:{tid}"
    assert _lines(tmp_path / "t.pcap") == [
        f"{peer} > {local} RRQ missing octet",
        f"{local} > {peer} ERROR 1 File not found",
        f"{peer} > {local} RRQ kilo octet blksize=1000",
        f"{session} > {peer} OACK blksize=1000",
        f"{peer} > {session} ACK 0",
        f"{session} > {peer} DATA 1, 1000 bytes",
        f"{peer} > {session} ACK 1",
        f"{session} > {peer} DATA 2, 24 bytes",
        f"{peer} > {session} ACK 2",
    ]


def test_sessions_of_other_clients_have_no_tap(server, tmp_path):
    server.client(CAPTURED, 1).request(Rrq(b"kilo", b"octet"))
    server.configure(_config(tmp_path / "t.pcap"))
    server.client(OTHER, 2).request(Rrq(b"kilo", b"octet"))
    server.client(CAPTURED, 3).request(Rrq(b"kilo", b"octet"))
    server.configure(None)
    server.client(CAPTURED, 4).request(Rrq(b"kilo", b"octet"))
    assert [kind is ProtocolTap for kind in server.opened] == [False, False, True, False]
    assert server.port.observe is None


def test_packets_from_unknown_tids_are_captured(server, tmp_path):
    server.configure(_config(tmp_path / "t.pcap"))
    client = server.client(CAPTURED)
    client.request(Rrq(b"kilo", b"octet"))
    server.net.deliver(Ack(1).encode(), (OTHER, 9), client.tid)
    assert [line.split(maxsplit=3)[3] for line in _lines(tmp_path / "t.pcap")[-2:]] == [
        "ACK 1",
        "ERROR 5 Unknown transfer ID",
    ]


def test_a_network_can_be_captured(server, tmp_path):
    server.configure(_config(tmp_path / "t.pcap", "192.0.2.0/24"))
    for host in (CAPTURED, OTHER, "198.51.100.1"):
        server.client(host).request(Rrq(b"missing", b"octet"))
    assert len(_lines(tmp_path / "t.pcap")) == 4


def test_a_reload_with_the_same_capture_continues_in_its_file(server, tmp_path):
    for _ in range(2):
        server.configure(_config(tmp_path / "t.pcap"))
        server.client(CAPTURED).request(Rrq(b"missing", b"octet"))
    assert len(_lines(tmp_path / "t.pcap")) == 4
    assert not (tmp_path / "t.pcap.1").exists()


def test_a_session_is_not_in_the_capture_of_another_client(server, tmp_path):
    server.configure(_config(tmp_path / "one.pcap"))
    client = server.client(CAPTURED)
    client.request(Rrq(b"kilo", b"octet"))
    server.configure(_config(tmp_path / "other.pcap", OTHER))
    client.send(Ack(1))
    assert _lines(tmp_path / "other.pcap") == []
    assert len(_lines(tmp_path / "one.pcap")) == 2


def test_a_session_continues_after_its_capture_has_stopped(server, tmp_path, events):
    server.configure(_config(tmp_path / "one.pcap"))
    client = server.client(CAPTURED)
    client.request(Rrq(b"kilo", b"octet"))
    server.configure(None)
    assert [packet.block for packet in client.send(Ack(1))] == [2]
    assert len(_lines(tmp_path / "one.pcap")) == 2
    assert events == ["capturing packets of {clients} in {file}", "capture of {clients} stopped"]


def test_a_full_capture_stops_with_a_log_line_and_does_not_start_again(server, tmp_path, events):
    small = _config(tmp_path / "t.pcap", max_size=200)
    for port in (1, 2):
        server.configure(small)
        answer = server.client(CAPTURED, port).request(Rrq(b"kilo", b"octet"))
        assert len(answer) == 1
    assert len(_lines(tmp_path / "t.pcap")) == 1
    assert events[-1] == "capture of {clients} stopped: {reason}"
    assert len(events) == 2


def test_a_capture_file_that_cannot_be_created_affects_no_request(server, tmp_path, events):
    server.configure(_config(tmp_path / "missing" / "t.pcap"))
    assert len(server.client(CAPTURED).request(Rrq(b"kilo", b"octet"))) == 1
    assert events == ["cannot create the capture file {file}: {reason}"]
    assert server.port.observe is None
    server.configure(None)


def test_a_worker_has_a_capture_file_of_its_own(offer, tmp_path):
    worker = Server(offer, worker=3)
    worker.configure(_config(tmp_path / "t.pcap"))
    worker.client(CAPTURED).request(Rrq(b"missing", b"octet"))
    worker.configure(None)
    assert len(_lines(tmp_path / "t.3.pcap")) == 2


def test_a_disk_error_stops_only_the_capture(server, tmp_path, events, monkeypatch):
    server.configure(_config(tmp_path / "t.pcap"))

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", fails)
    answer = server.client(CAPTURED).request(Rrq(b"kilo", b"octet"))
    monkeypatch.undo()
    assert len(answer) == 1
    assert events[-1] == "capture of {clients} stopped: {reason}"
