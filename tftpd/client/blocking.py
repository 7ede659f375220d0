"""Functions that read files from TFTP servers and write files to them, and block meanwhile.

    result = get("192.0.2.1", "pxelinux.0", "pxelinux.0")
    result = put("192.0.2.1", "router1.cfg", b"hostname router1")

    n_bytes = size("192.0.2.1", "pxelinux.0")
    is_there = exists("192.0.2.1", "pxelinux.0")

All raise a `TransferError` if the transfer fails, and `ValueError` if a setting is out of its
range. An exception, such as `KeyboardInterrupt`, ends the transfer: the client then sends an ERROR
to the server and removes incomplete files.
"""

import select
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from threading import Event
from time import monotonic, sleep
from typing import Any, ParamSpec

from tftpd.client import transfer as transfers
from tftpd.client.errors import translate_to_local_error
from tftpd.client.settings import ClientSettings
from tftpd.client.transfer import DEFAULT_SETTINGS, PORT
from tftpd.dataplane import DataPlane
from tftpd.net import sockets
from tftpd.net.segmentation import SegmentedSender, enable_gro, recv_burst
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import NotFound
from tftpd.protocol.result import TransferResult

_MAX_WAIT_SECONDS = 0.25  # between two reads of the socket for packets from unknown TIDs
_MAX_READS = 64  # of that socket
_TURN_SECONDS = 0.05  # of the data plane, and its wait for the next datagram

P = ParamSpec("P")
AnyTransfer = transfers.ClientTransfer[Any]


def run_transfer(transfer: AnyTransfer, cancelled: Event | None = None) -> TransferResult:
    """Run a transfer and return its result.

    Args:
        transfer: The prepared transfer.
        cancelled: Ends the transfer when another thread sets it.

    Raises:
        TransferError: The transfer failed, or was cancelled.
    """
    transfer.cancelled = cancelled
    try:
        BlockingDriver(transfer).run()
        return transfer.result()
    finally:
        transfer.release()


class BlockingDriver:
    """Driver that waits on two sockets of one port, as a session of the daemon does on Linux.

    The first socket receives the first answer, from any address. The second one is connected
    to the server's TID: the kernel handles its datagrams faster, and reports a closed port. Then
    the first socket receives only packets from unknown TIDs. It is read from time to time. The
    data plane moves the blocks on the second one, for a limited time in each turn.

    On systems without epoll there is one socket only: see `bind_connected_twin`.
    """

    def __init__(self, transfer: AnyTransfer) -> None:
        self._transfer = transfer
        with translate_to_local_error("cannot open a UDP port: "):
            self._socket = sockets.bind_session(transfer.server.local, transfer.requirements)
            self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, transfer.server.broadcast)
        self._unconnected = SegmentedSender(self._socket)
        self._connected: socket.socket | None = None
        self._next_read_at = 0.0

    def run(self) -> None:
        """Run the transfer until its result is known. Send an ERROR if an exception ends it."""
        transfer = self._transfer
        transfer.begin(monotonic())
        try:
            self._send_all()
            while transfer.machine.outcome is None:
                if isinstance(transfer, transfers.DownloadTransfer) and transfer.is_complete:
                    transfer.store(monotonic)
                elif self._epoll is None or self._connected is None:
                    self._receive_from_any()
                else:
                    self._receive_data(self._connected, self._epoll)
                if transfer.max_rate is not None:
                    self._pause()
                self._send_all()
                # Datagrams without effect may arrive faster than a wait could end.
                if (now := monotonic()) > transfer.machine.deadline + _MAX_WAIT_SECONDS:
                    transfer.machine.on_timeout(now)
        except BaseException:
            transfer.cancel()
            self._send_all()
            raise
        finally:
            self._socket.close()
            if self._connected is not None:
                self._connected.close()
            if self._epoll is not None:
                self._epoll.close()

    def _pause(self) -> None:
        """Wait until the transfer is within its rate, or cancelled."""
        transfer = self._transfer
        while transfer.machine.outcome is None and (seconds := transfer.pause(monotonic())) > 0:
            if transfer.cancelled is not None and transfer.cancelled.is_set():
                break
            sleep(min(seconds, _MAX_WAIT_SECONDS))

    def _send_all(self) -> None:
        transfer = self._transfer
        for data, size, address in transfer.advance(monotonic()):
            if self._epoll is None or not transfer.answered or address != transfer.peer:
                with suppress(OSError):  # no route at the moment
                    self._unconnected.send(data, size, address)
                continue
            if self._connected is None:
                self._connect(address, self._epoll)
            try:
                self._sender.send(data, size)
            except OSError as error:  # any datagram may be lost
                self._on_error(error)

    def _connect(self, peer: SocketAddress, epoll: "select.epoll") -> None:
        needs = self._transfer.requirements
        sock = self._connected = sockets.bind_connected_twin(self._socket, peer, needs)
        self._sender = SegmentedSender(sock)
        has_windows = self._transfer.machine.options.windowsize > 1
        self._has_gro = needs.receives and has_windows and enable_gro(sock)
        self._max_bytes = needs.max_datagram_bytes
        self._socket.setblocking(False)
        epoll.register(sock, select.EPOLLIN)
        self._plane = DataPlane(epoll)
        # Datagrams of other hosts may have arrived before the socket was connected.
        self._drain(sock)

    def _receive_from_any(self) -> None:
        transfer, sock = self._transfer, self._socket
        sock.settimeout(max(0.001, min(transfer.machine.deadline - monotonic(), _MAX_WAIT_SECONDS)))
        try:
            datagram, source = sock.recvfrom(self._transfer.requirements.max_datagram_bytes)
        except TimeoutError:
            transfer.machine.on_timeout(monotonic())
        except OSError:
            return  # an ICMP error of any host, which Windows reports here
        else:
            transfer.receive((datagram,), source, monotonic())

    def _receive_data(self, sock: socket.socket, epoll: "select.epoll") -> None:
        transfer, now = self._transfer, monotonic()
        if now >= self._next_read_at:
            self._next_read_at = now + _MAX_WAIT_SECONDS
            self._drain(self._socket)
        wait = max(0.001, min(transfer.machine.deadline - now, _MAX_WAIT_SECONDS))
        try:
            if not epoll.poll(wait):
                raise TimeoutError
            datagrams = self._serve(sock)
        except (TimeoutError, BlockingIOError):
            transfer.machine.on_timeout(monotonic())
        except OSError as error:
            self._on_error(error)
        else:
            transfer.receive(datagrams, transfer.peer, monotonic())

    def _serve(self, sock: socket.socket) -> Sequence[bytes]:
        """Let the data plane answer expected datagrams; return the others."""
        transfer, plane, fd = self._transfer, self._plane, sock.fileno()
        is_watched = transfer.trace is not None or transfer.max_rate is not None
        if is_watched or not transfer.lend(plane, fd):
            return self._read(sock)
        try:
            events, _, _ = plane.turn(_TURN_SECONDS, _TURN_SECONDS, 1)
        finally:
            transfer.take_position(plane.reclaim(fd))
        if not events:
            return ()
        ((_, _, datagrams),) = events
        return self._read(sock) if datagrams is None else datagrams

    def _read(self, sock: socket.socket) -> Sequence[bytes]:
        """Return the next datagram, or with UDP_GRO those that have arrived, up to a window."""
        if not self._has_gro:
            return (sock.recv(self._max_bytes),)
        datagrams = list(recv_burst(sock)[0])
        with suppress(OSError):
            while len(datagrams) < self._transfer.request.windowsize:
                datagrams += recv_burst(sock, socket.MSG_DONTWAIT)[0]
        return datagrams

    def _drain(self, sock: socket.socket) -> None:
        """Read the datagrams that wait in the buffer of a non-blocking socket."""
        with suppress(OSError):
            for _ in range(_MAX_READS):
                datagrams, source = recv_burst(sock)
                self._transfer.receive(datagrams, source, monotonic())

    def _on_error(self, error: OSError) -> None:
        if isinstance(error, ConnectionRefusedError):
            self._transfer.on_refused(monotonic())


def _blocking(prepare: Callable[P, AnyTransfer]) -> Callable[P, TransferResult]:
    """Return a function that runs the transfer that `prepare` returns."""

    @wraps(prepare)
    def run(*args: P.args, **kwargs: P.kwargs) -> TransferResult:
        return run_transfer(prepare(*args, **kwargs))

    return run


get = _blocking(transfers.get)
put = _blocking(transfers.put)
_probe = _blocking(transfers.probe_size)


def size(
    host: str,
    name: str | bytes,
    *,
    port: int = PORT,
    settings: ClientSettings = DEFAULT_SETTINGS,
) -> int | None:
    """Return the size of a file on a server in bytes; None if the server does not state it.

    The client requests the file with the option `tsize`, and ends the transfer after the answer.

    Args:
        host: As for `get`.
        name: As for `get`.
        port: As for `get`.
        settings: Timeout, local address and idle timeout; the other settings do not matter.

    Raises:
        NotFound: The server does not have the file.
        TransferError: The server does not tell.
    """
    return _probe(host, name, port=port, settings=settings).size


def exists(
    host: str,
    name: str | bytes,
    *,
    port: int = PORT,
    settings: ClientSettings = DEFAULT_SETTINGS,
) -> bool:
    """Return True if a server has a file; arguments as for `size`.

    Raises:
        TransferError: The server does not tell.
    """
    try:
        _probe(host, name, port=port, settings=settings)
    except NotFound:
        return False
    return True
