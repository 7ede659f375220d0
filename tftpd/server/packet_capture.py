"""Capture of one client's packets to a pcap file, switched on and off while running.

A socket delivers datagrams without their IP and UDP headers, so the headers are rebuilt
from both addresses. The file format is that of libpcap 2.4, with microseconds and raw IP
packets; tcpdump and tshark read it.
"""

import os
import stat
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from pathlib import Path

from twisted.logger import Logger

from tftpd.net.interfaces import BurstProtocol
from tftpd.net.session import Session
from tftpd.net.sockets import client_address
from tftpd.net.types import SocketAddress
from tftpd.net.wrappers import ProtocolTap
from tftpd.server.listening_port import ListeningPort

OLD_SUFFIX = ".1"
"""Suffix of a capture file that a new one replaces."""

_EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_MAGIC = 0xA1B2C3D4
_MAX_PACKET_BYTES = 65535
_LINKTYPE_RAW = 101  # each packet starts with its IPv4 or IPv6 header
_FILE_HEADER = struct.pack("=IHHiIII", _MAGIC, 2, 4, 0, 0, _MAX_PACKET_BYTES, _LINKTYPE_RAW)
_RECORD = struct.Struct("=IIII")  # seconds, microseconds, captured bytes, original bytes

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_UDP = struct.Struct("!HHHH")
_PROTOCOL_UDP = 17
_TTL = 64


class PcapWriter:
    """Pcap file that packets are appended to, up to a maximum size."""

    def __init__(self, path: Path, max_size: int) -> None:
        """Create the file, which only its owner may read.

        An existing regular file is renamed to `.1`. Links and other kinds of files are
        not touched.

        Args:
            path: Path of the file.
            max_size: Maximum size of the file in bytes.

        Raises:
            OSError: The file cannot be created.
        """
        with suppress(FileNotFoundError):
            if stat.S_ISREG(os.lstat(path).st_mode):
                os.rename(path, f"{path}{OLD_SUFFIX}")
        self._fd = os.open(path, _EXCLUSIVE, 0o600)
        self._free = max_size
        self._size = 0
        try:
            self._append(_FILE_HEADER)
        except OSError:
            self.close()
            raise

    def add(
        self,
        now: float,
        source: SocketAddress,
        destination: SocketAddress,
        datagram: bytes,
    ) -> bool:
        """Append a datagram.

        Args:
            now: Time of the datagram in seconds since 1970.
            source: Address of the sender.
            destination: Address of the receiver.
            datagram: UDP payload.

        Returns:
            False if the file has no space left for it.

        Raises:
            OSError: The datagram was not written; the file remains readable.
        """
        packet = _build_packet(source, destination, datagram)
        seconds, micros = divmod(round(now * 1e6), 1_000_000)
        record = _RECORD.pack(seconds, micros, len(packet), len(packet)) + packet
        if len(record) > self._free:
            return False
        self._append(record)
        return True

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _append(self, data: bytes) -> None:
        # Unbuffered, so that a reader of the file sees each packet at once.
        written = os.write(self._fd, data)
        if written < len(data):  # the disk is full
            os.ftruncate(self._fd, self._size)
            raise OSError(f"only {written} of {len(data)} bytes were written")
        self._size += written
        self._free -= written


def _build_packet(source: SocketAddress, destination: SocketAddress, datagram: bytes) -> bytes:
    """Return a datagram with its IP and UDP headers."""
    sender, receiver = (ip_address(end[0].partition("%")[0]) for end in (source, destination))
    length = _UDP.size + len(datagram)
    pseudo = sender.packed + receiver.packed + struct.pack("!II", length, _PROTOCOL_UDP)
    header = _UDP.pack(source[1], destination[1], length, 0)
    # A checksum of 0 would mean that there is none (RFC 768).
    checksum = _checksum(pseudo + header + datagram) or 0xFFFF
    udp = _UDP.pack(source[1], destination[1], length, checksum) + datagram
    if isinstance(sender, IPv4Address):
        fields = (0x45, 0, _IPV4.size + length, 0, 0, _TTL, _PROTOCOL_UDP)
        without_checksum = _IPV4.pack(*fields, 0, sender.packed, receiver.packed)
        checksum = _checksum(without_checksum)
        return _IPV4.pack(*fields, checksum, sender.packed, receiver.packed) + udp
    return _IPV6.pack(6 << 28, length, _PROTOCOL_UDP, _TTL, sender.packed, receiver.packed) + udp


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071).

    The data is one long number modulo 65535: 64 KiB take microseconds.
    """
    padded = data + b"\0" * (len(data) % 2)
    return (0xFFFF - int.from_bytes(padded, "big") % 0xFFFF) % 0xFFFF


@dataclass(frozen=True, slots=True)
class CaptureConfig:
    """Clients whose packets are captured, the file, and its maximum size in bytes."""

    clients: IPv4Network | IPv6Network
    file: Path
    max_size: int


class PacketCapture:
    """Observes the ports of captured clients, and no others.

    A session is captured from its first packet to its last, or not at all: one that runs
    when the capture starts is left out. Blocks of other clients cost nothing.
    """

    log = Logger()

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """Initialize without a capture.

        Args:
            now: Returns the time in seconds since 1970.
        """
        self._now = now
        self._config: CaptureConfig | None = None
        self._writer: PcapWriter | None = None

    def configure(self, config: CaptureConfig | None, ports: Iterable[ListeningPort]) -> None:
        """Start, change or stop (None) the capture on these ports and in new sessions.

        If the configuration is unchanged, the capture continues in its file; a capture
        whose file is full does not start again. If the file cannot be created, this is
        logged and nothing is captured.
        """
        if config != self._config:
            self._stop("capture of {clients} stopped")
            self._config = config
            if config is not None:
                self._start(config)
        for port in ports:
            port.observe = self._observe_request if self._writer is not None else None

    def tap(self, protocol: BurstProtocol) -> BurstProtocol:
        """Return the protocol itself, or a tap around it if its peer is captured."""
        if self._writer is None or not isinstance(protocol, Session):
            return protocol
        if not self._matches(protocol.peer):
            return protocol
        # Packets from unknown TIDs are captured too: they may explain a failed transfer.
        return ProtocolTap(protocol, partial(self._observe_session, self._writer))

    def _matches(self, peer: SocketAddress) -> bool:
        return self._config is not None and client_address(peer[0]) in self._config.clients

    def _observe_request(
        self, outgoing: bool, datagram: bytes, local: SocketAddress, peer: SocketAddress
    ) -> None:
        if self._matches(peer):
            self._write(outgoing, datagram, local, peer)

    def _observe_session(
        self,
        writer: PcapWriter,
        outgoing: bool,
        datagram: bytes,
        local: SocketAddress,
        peer: SocketAddress,
    ) -> None:
        if writer is self._writer:  # a session may belong to an earlier capture
            self._write(outgoing, datagram, local, peer)

    def _write(
        self, outgoing: bool, datagram: bytes, local: SocketAddress, peer: SocketAddress
    ) -> None:
        if self._writer is None:
            return
        source, destination = (local, peer) if outgoing else (peer, local)
        try:
            written = self._writer.add(self._now(), source, destination, datagram)
        except OSError as error:
            reason = error.strerror or str(error)
            self._stop("capture of {clients} stopped: {reason}", reason=reason)
            return
        if not written:
            self._stop("capture of {clients} stopped: {file} has reached its max_size")

    def _start(self, config: CaptureConfig) -> None:
        try:
            self._writer = PcapWriter(config.file, config.max_size)
        except OSError as error:
            reason = error.strerror or str(error)
            self.log.error(
                "cannot create the capture file {file}: {reason}",
                event="capture_failed",
                file=str(config.file),
                reason=reason,
            )
        else:
            self._log("capturing packets of {clients} in {file}")

    def _stop(self, message: str, **fields: str) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            self._log(message, **fields)

    def _log(self, message: str, **fields: str) -> None:
        assert self._config is not None
        config = {"clients": str(self._config.clients), "file": str(self._config.file)}
        self.log.info(message, event="capture", **config, **fields)
