"""Packets in a file that tcpdump and tshark read, headers and all.

A socket gives datagrams without the headers they travelled with: those are
made again here, from both addresses. The file is that of libpcap 2.4, in
microseconds, with raw IP packets.
"""

import os
import stat
import struct
from contextlib import suppress
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from tftpd.net.runtime import SocketAddress

OLDER = ".1"
"""What is appended to the name of a capture that a new one replaces."""

_EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_MAGIC = 0xA1B2C3D4
_LONGEST = 65535  # octets of a packet
_RAW = 101  # LINKTYPE_RAW: each packet begins with its IPv4 or IPv6 header
_HEAD = struct.pack("=IHHiIII", _MAGIC, 2, 4, 0, 0, _LONGEST, _RAW)
_RECORD = struct.Struct("=IIII")  # seconds, microseconds, octets here, octets in all

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_PORTS = struct.Struct("!HHHH")
_UDP = 17
_HOPS = 64


class Capture:
    """A file that packets are added to, up to `max_size` octets."""

    def __init__(self, path: Path, max_size: int) -> None:
        """Begin the file, which nobody but its owner may read; raises `OSError`.

        A file that is there already is kept as `.1`; a link or what else is
        no file is not touched.
        """
        with suppress(FileNotFoundError):
            if stat.S_ISREG(os.lstat(path).st_mode):
                os.rename(path, f"{path}{OLDER}")
        self._fd = os.open(path, _EXCLUSIVE, 0o600)
        self._left = max_size
        self._size = 0
        try:
            self._append(_HEAD)
        except OSError:
            self.close()
            raise

    def add(self, now: float, source: SocketAddress, to: SocketAddress, datagram: bytes) -> bool:
        """Add a datagram that passed at `now`, in seconds since 1970; False if it does not fit.

        Raises `OSError`; what is in the file by then remains readable.
        """
        packet = _packet(source, to, datagram)
        seconds, micros = divmod(round(now * 1e6), 1_000_000)
        record = _RECORD.pack(seconds, micros, len(packet), len(packet)) + packet
        if len(record) > self._left:
            return False
        self._append(record)
        return True

    def close(self) -> None:
        """Add nothing more; idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _append(self, octets: bytes) -> None:
        # Not buffered: whoever reads the file sees each packet at once.
        written = os.write(self._fd, octets)
        if written < len(octets):  # a disk that is full
            os.ftruncate(self._fd, self._size)
            raise OSError(f"only {written} of {len(octets)} octets could be written")
        self._size += written
        self._left -= written


def _packet(source: SocketAddress, to: SocketAddress, datagram: bytes) -> bytes:
    """The IP packet in which `datagram` went from one to the other."""
    ours, theirs = (ip_address(end[0].partition("%")[0]) for end in (source, to))
    length = _PORTS.size + len(datagram)
    pseudo = ours.packed + theirs.packed + struct.pack("!II", length, _UDP)
    ports = _PORTS.pack(source[1], to[1], length, 0)
    # No sum is told as 0, which means that there is none.
    total = _sum(pseudo + ports + datagram) or 0xFFFF
    udp = _PORTS.pack(source[1], to[1], length, total) + datagram
    if isinstance(ours, IPv4Address):
        fields = (0x45, 0, _IPV4.size + length, 0, 0, _HOPS, _UDP)
        bare = _IPV4.pack(*fields, 0, ours.packed, theirs.packed)
        return _IPV4.pack(*fields, _sum(bare), ours.packed, theirs.packed) + udp
    return _IPV6.pack(6 << 28, length, _UDP, _HOPS, ours.packed, theirs.packed) + udp


def _sum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071): of 64 KiB in microseconds, as one long number."""
    padded = octets + b"\0" * (len(octets) % 2)
    return (0xFFFF - int.from_bytes(padded, "big") % 0xFFFF) % 0xFFFF
