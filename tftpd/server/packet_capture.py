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
from functools import partial
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from twisted.logger import Logger

from tftpd.config.sections import TraceSection
from tftpd.net.interfaces import BurstProtocol
from tftpd.net.session import Session
from tftpd.net.sockets import client_address
from tftpd.net.types import SocketAddress
from tftpd.net.wrappers import ProtocolTap
from tftpd.server.listening_port import ListeningPort

OLD_SUFFIX = ".1"
"""Suffix of a capture file that a new one replaces."""

_MAGIC = 0xA1B2C3D4
_MAX_PACKET_BYTES = 65535
_LINKTYPE_RAW = 101  # each packet starts with its IPv4 or IPv6 header
_FILE_HEADER = struct.pack("=IHHiIII", _MAGIC, 2, 4, 0, 0, _MAX_PACKET_BYTES, _LINKTYPE_RAW)
_RECORD = struct.Struct("=IIII")  # seconds, microseconds, captured bytes, original bytes

_UDP_HEADER_BYTES = 8
_IPV4_HEADER_BYTES = 20
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
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._path = path
        self._max_size = max_size
        self._size = 0
        try:
            self._append(_FILE_HEADER)
        except OSError:
            self.close()
            raise

    def add(
        self, now: float, source: SocketAddress, destination: SocketAddress, datagram: bytes
    ) -> None:
        """Append a datagram.

        Args:
            now: Time of the datagram in seconds since 1970.
            source: Address of the sender.
            destination: Address of the receiver.
            datagram: UDP payload.

        Raises:
            OSError: The datagram was not written; the file remains readable.
        """
        packet = _build_packet(source, destination, datagram)
        seconds, micros = divmod(round(now * 1e6), 1_000_000)
        self._append(_RECORD.pack(seconds, micros, len(packet), len(packet)) + packet)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _append(self, data: bytes) -> None:
        if self._size + len(data) > self._max_size:
            raise OSError(f"{self._path} has reached its max_size")
        # Unbuffered, so that a reader of the file sees each packet at once.
        written = os.write(self._fd, data)
        if written < len(data):  # the disk is full
            os.ftruncate(self._fd, self._size)
            raise OSError(f"only {written} of {len(data)} bytes were written")
        self._size += written


def _build_packet(source: SocketAddress, destination: SocketAddress, datagram: bytes) -> bytes:
    """Return a datagram with its IP and UDP headers."""
    sender, receiver = (ip_address(end[0].partition("%")[0]) for end in (source, destination))
    addresses = sender.packed + receiver.packed
    length = _UDP_HEADER_BYTES + len(datagram)
    pseudo_header = addresses + struct.pack("!II", length, _PROTOCOL_UDP)
    udp = struct.pack("!HHH", source[1], destination[1], length)
    udp += _checksum(pseudo_header + udp + datagram)
    if isinstance(sender, IPv4Address):
        ip_length = _IPV4_HEADER_BYTES + length
        header = struct.pack("!BBHHHBB", 0x45, 0, ip_length, 0, 0, _TTL, _PROTOCOL_UDP)
        header += _checksum(header + addresses)
    else:
        header = struct.pack("!IHBB", 6 << 28, length, _PROTOCOL_UDP, _TTL)
    return header + addresses + udp + datagram


def _checksum(data: bytes) -> bytes:
    """Return the Internet checksum (RFC 1071) of data without its checksum.

    The data is one long number modulo 65535: 64 KiB take microseconds. The result is never
    0, which would mean that there is no checksum (RFC 768).
    """
    padded = data + b"\0" * (len(data) % 2)
    return (0xFFFF - int.from_bytes(padded, "big") % 0xFFFF).to_bytes(2, "big")


class PacketCapture:
    """Observes the ports of captured clients, and no others.

    A session is captured from its first packet to its last, or not at all: one that runs
    when the capture starts is left out. Blocks of other clients cost nothing.
    """

    log = Logger()

    def __init__(self, worker: int | None = None, now: Callable[[], float] = time.time) -> None:
        """Initialize without a capture.

        Args:
            worker: Number of this worker, which has its own file: `trace.3.pcap` for
                worker 3. None: there are no others.
            now: Returns the time in seconds since 1970.
        """
        self._worker = worker
        self._now = now
        self._trace: TraceSection | None = None
        self._writer: PcapWriter | None = None
        self._log_fields: dict[str, str] = {}

    def configure(self, trace: TraceSection | None, ports: Iterable[ListeningPort]) -> None:
        """Start, change or stop (None) the capture on these ports and in new sessions.

        If the configuration is unchanged, the capture continues in its file; a capture
        whose file is full does not start again. If the file cannot be created, this is
        logged and nothing is captured.
        """
        if trace != self._trace:
            self._stop("capture of {clients} stopped")
            self._trace = trace
            if trace is not None:
                self._start(trace)
        for port in ports:
            port.observe = self._observe_request if self._writer is not None else None

    def tap(self, protocol: BurstProtocol) -> BurstProtocol:
        """Return the protocol itself, or a tap around it if its peer is captured."""
        if self._writer is None or not isinstance(protocol, Session):
            return protocol
        if not self._matches(protocol.peer):
            return protocol
        # Packets from unknown TIDs are captured too: they may explain a failed transfer.
        return ProtocolTap(protocol, partial(self._write, self._writer))

    def _matches(self, peer: SocketAddress) -> bool:
        return self._trace is not None and client_address(peer[0]) in self._trace.client

    def _observe_request(
        self, outgoing: bool, datagram: bytes, local: SocketAddress, peer: SocketAddress
    ) -> None:
        if self._matches(peer):
            self._write(self._writer, outgoing, datagram, local, peer)

    def _write(
        self,
        writer: PcapWriter | None,
        outgoing: bool,
        datagram: bytes,
        local: SocketAddress,
        peer: SocketAddress,
    ) -> None:
        if writer is None or writer is not self._writer:
            return  # the capture has stopped, or the session belongs to an earlier one
        source, destination = (local, peer) if outgoing else (peer, local)
        try:
            writer.add(self._now(), source, destination, datagram)
        except OSError as error:
            reason = error.strerror or str(error)
            self._stop("capture of {clients} stopped: {reason}", reason=reason)

    def _start(self, trace: TraceSection) -> None:
        file = Path(trace.file)
        if self._worker is not None:
            file = file.with_name(f"{file.stem}.{self._worker}{file.suffix}")
        self._log_fields = {"clients": str(trace.client), "file": str(file)}
        try:
            self._writer = PcapWriter(file, trace.max_size)
        except OSError as error:
            self.log.error(
                "cannot create the capture file {file}: {reason}",
                event="capture_failed",
                file=str(file),
                reason=error.strerror or str(error),
            )
        else:
            self.log.info(
                "capturing packets of {clients} in {file}", event="capture", **self._log_fields
            )

    def _stop(self, message: str, **fields: str) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            self.log.info(message, event="capture", **self._log_fields, **fields)
