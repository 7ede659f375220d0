"""Pcap files: format, permissions and maximum size."""

import os
import stat
import struct
import tempfile
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.server.packet_capture import PcapWriter

OURS, THEIRS = ("192.0.2.1", 69), ("192.0.2.7", 2070)
OURS6, THEIRS6 = ("2001:db8::1", 69), ("fe80::7%lo", 2070, 0, 1)

HEAD = 24  # bytes of the file header
RECORD = 16  # bytes of the header of each packet


def _packets(path):
    """Return the packets of a file with their times."""
    data = path.read_bytes()
    assert data[:HEAD] == struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    position = HEAD
    packets = []
    while position < len(data):
        seconds, micros, here, whole = struct.unpack_from("=IIII", data, position)
        assert here == whole
        packets.append((seconds + micros / 1e6, data[position + RECORD : position + RECORD + here]))
        position += RECORD + here
    assert position == len(data)
    return packets


def _folded(data):
    """Return the sum of RFC 1071; 0xffff if the checksum in the data is right."""
    total = 0
    for position in range(0, len(data), 2):
        total += int.from_bytes(data[position : position + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("datagram", [b"", b"\0\4\0\0", b"odd", b"\xff" * 65468, b"\0" * 600])
def test_a_captured_ipv4_packet_has_its_headers(tmp_path, datagram):
    capture = PcapWriter(tmp_path / "t.pcap", 1 << 20)
    capture.add(1_700_000_000.25, OURS, THEIRS, datagram)
    capture.close()
    [(when, packet)] = _packets(tmp_path / "t.pcap")
    assert when == 1_700_000_000.25
    header, udp = packet[:20], packet[20:]
    assert (header[0], header[9]) == (0x45, 17)
    assert int.from_bytes(header[2:4], "big") == len(packet) == 28 + len(datagram)
    assert header[12:] == ip_address(OURS[0]).packed + ip_address(THEIRS[0]).packed
    assert _folded(header) == 0xFFFF
    assert struct.unpack_from("!HHH", udp) == (69, 2070, 8 + len(datagram))
    assert udp[8:] == datagram
    assert _folded(header[12:] + b"\0\x11" + udp[4:6] + udp) == 0xFFFF


@pytest.mark.parametrize("datagram", [b"", b"\0\4\0\0", b"odd"])
def test_a_captured_ipv6_packet_has_its_headers(tmp_path, datagram):
    capture = PcapWriter(tmp_path / "t.pcap", 1 << 20)
    capture.add(0.0, THEIRS6, OURS6, datagram)
    capture.close()
    [(_, packet)] = _packets(tmp_path / "t.pcap")
    header, udp = packet[:40], packet[40:]
    assert (header[0] >> 4, header[6]) == (6, 17)
    assert int.from_bytes(header[4:6], "big") == len(udp)
    assert header[8:] == ip_address("fe80::7").packed + ip_address("2001:db8::1").packed
    assert struct.unpack_from("!HHH", udp) == (2070, 69, 8 + len(datagram))
    assert udp[8:] == datagram
    assert _folded(header[8:] + b"\0\x11" + udp[4:6] + udp) == 0xFFFF


def test_a_packet_that_exceeds_the_size_is_left_out(tmp_path):
    capture = PcapWriter(tmp_path / "t.pcap", HEAD + 2 * (RECORD + 28 + 4))
    capture.add(0.0, OURS, THEIRS, b"four")
    with pytest.raises(OSError, match="has reached its max_size"):
        capture.add(0.0, OURS, THEIRS, b"four5")
    capture.add(0.0, OURS, THEIRS, b"four")
    with pytest.raises(OSError, match="has reached its max_size"):
        capture.add(0.0, OURS, THEIRS, b"")
    capture.close()
    assert len(_packets(tmp_path / "t.pcap")) == 2


def test_packets_are_written_at_once_and_only_the_owner_may_read_them(tmp_path):
    path = tmp_path / "t.pcap"
    capture = PcapWriter(path, 1 << 20)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for count in range(1, 4):
        capture.add(0.0, OURS, THEIRS, b"x")
        assert len(_packets(path)) == count
    capture.close()


def test_an_existing_capture_file_is_renamed(tmp_path):
    path = tmp_path / "t.pcap"
    for content in ("oldest", "older"):
        path.write_text(content)
        PcapWriter(path, 1 << 20).close()
    assert (tmp_path / "t.pcap.1").read_text() == "older"
    assert _packets(path) == []


@pytest.mark.parametrize("what", ["link", "dangling", "directory", "fifo"])
def test_a_path_that_is_not_a_regular_file_is_not_touched(tmp_path, what):
    path = tmp_path / "t.pcap"
    (tmp_path / "precious").write_text("precious")
    {
        "link": lambda: path.symlink_to("precious"),
        "dangling": lambda: path.symlink_to("nothing"),
        "directory": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
    }[what]()
    before = path.lstat()
    with pytest.raises(FileExistsError):
        PcapWriter(path, 1 << 20)
    assert path.lstat() == before
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "nothing").exists()


def test_a_partial_write_leaves_only_whole_packets(tmp_path, monkeypatch):
    path = tmp_path / "t.pcap"
    capture = PcapWriter(path, 1 << 20)
    capture.add(0.0, OURS, THEIRS, b"whole")
    really = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: really(fd, data[: len(data) // 2]))
    with pytest.raises(OSError, match="bytes were written"):
        capture.add(0.0, OURS, THEIRS, b"half")
    monkeypatch.undo()
    capture.close()
    assert len(_packets(path)) == 1


ADDRESSES = [(OURS, THEIRS), (OURS6, THEIRS6), (("0.0.0.0", 0), ("255.255.255.255", 65535))]


@given(
    st.integers(0, 4096),
    st.lists(st.tuples(st.sampled_from(ADDRESSES), st.binary(max_size=600)), max_size=20),
)
def test_any_packets_give_a_readable_file_within_its_size(packet_bytes, packets):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "t.pcap"
        capture = PcapWriter(path, HEAD + packet_bytes)
        added = []
        for number, ((source, to), datagram) in enumerate(packets):
            with suppress(OSError):
                capture.add(number / 8, source, to, datagram)
                added.append((number / 8, datagram))
        capture.close()
        assert path.stat().st_size <= HEAD + packet_bytes
        read = [
            (when, packet[28 if packet[0] >> 4 == 4 else 48 :]) for when, packet in _packets(path)
        ]
    assert read == added
