"""Listening sockets: bound while twistd is still root, or inherited from systemd."""

import errno
import os
import socket
import sys
from collections.abc import Iterable, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from twisted.logger import Logger

from tftpd.config.settings import ListenSection, Settings
from tftpd.net.packet_text import format_address
from tftpd.net.sockets import bind_listeners, listener_key, prepare_listener
from tftpd.net.types import SocketAddress

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

_NOT_PERMITTED = "not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE"
_BIND_ERRORS = {
    errno.EADDRINUSE: "the port is in use by another program",
    errno.EACCES: _NOT_PERMITTED,
    errno.EPERM: _NOT_PERMITTED,
    errno.EADDRNOTAVAIL: "this host has no such address",
}

_log = Logger()


class BindError(Exception):
    """An address cannot be bound, or an inherited socket cannot be used. The text is one line."""


@dataclass(frozen=True, slots=True)
class ListenSocket:
    """The sockets of one listen address, one for each worker.

    Attributes:
        listen: The configuration entry that the sockets serve.
        sockets: The bound sockets. They stay open in the daemon, so that requests to a worker
            that died wait in its socket for the next worker.
        inherited: True if systemd has bound the sockets.
    """

    listen: ListenSection
    sockets: list[socket.socket]
    inherited: bool = False

    @property
    def address(self) -> SocketAddress:
        """Address and port as the kernel reports them."""
        return tuple(self.sockets[0].getsockname())

    @property
    def text(self) -> str:
        """Address and port for messages; a URL if the protocol is not TFTP."""
        address, protocol = format_address(self.address), self.listen.protocol
        return address if protocol == "tftp" else f"{protocol}://{address}"

    def close(self) -> None:
        """Close the sockets; idempotent."""
        for sock in self.sockets:
            sock.close()


def bind(settings: Settings, held: Sequence[ListenSocket] = ()) -> list[ListenSocket]:
    """Return the sockets for all listen addresses, with one socket for each worker.

    Args:
        settings: The configuration. If it has no `listen`, the inherited sockets are used.
        held: Sockets that are open already. Those that the configuration names are used again,
            the others are left untouched.

    Raises:
        BindError: An address cannot be bound. No socket was changed then. A default address
            that this host lacks is only logged.
    """
    if settings.workers > 1 and not sys.platform.startswith("linux"):
        raise BindError("several workers on one port need Linux")
    held_by_name = {entry.listen.name: entry for entry in held}
    inherited_names = {entry.listen.name for entry in held if entry.inherited}
    listens = [listen for _, listen in settings.expand_listen(inherited_names)]
    configured = {listen.name for listen in listens}
    inherited = [entry for entry in held if entry.inherited]
    _check_inherited(inherited, settings, configured)
    if inherited and "listen" not in settings.model_fields_set:
        return [replace(entry, listen=_default_listen(entry.sockets[0])) for entry in inherited]
    removed = [entry for entry in held if entry.listen.name not in configured]
    with ExitStack() as undo:
        bound = []
        for listen in listens:
            same = held_by_name.get(listen.name)
            if same is not None:
                bound.append(replace(same, listen=listen))
                continue
            transport, address, port = listen.name
            where = f"{address} port {port}"
            kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
            shared = [
                sock
                for old in removed
                if old.listen.name[::2] == (transport, port) and kind == socket.SOCK_DGRAM
                for sock in old.sockets
            ]
            try:
                sockets = bind_listeners(address, port, settings.workers, shared, kind)
            except OSError as error:
                reason = _BIND_ERRORS.get(error.errno or 0, error.strerror or str(error))
                if error.errno in _NO_IPV6 and "listen" not in settings.model_fields_set:
                    _log.warn(
                        "not listening on {where}: {reason}",
                        event="listen_skipped",
                        where=where,
                        reason=reason,
                    )
                    continue
                raise BindError(f"cannot listen on {where}: {reason}") from error
            bound.append(ListenSocket(listen, sockets))
            undo.callback(bound[-1].close)
        undo.pop_all()
    return bound


def adopt(descriptors: Iterable[int]) -> list[ListenSocket]:
    """Return the sockets that systemd has bound, configured for serving.

    Raises:
        BindError: A descriptor is neither a UDP socket nor a listening TCP socket, or accepts
            both IPv4 and IPv6.
    """
    by_key: dict[SocketAddress, list[socket.socket]] = {}
    for descriptor in descriptors:
        sock = _adopt_socket(descriptor)
        by_key.setdefault(listener_key(sock), []).append(sock)
    return [
        ListenSocket(_default_listen(sockets[0]), sockets, inherited=True)
        for sockets in by_key.values()
    ]


class DrainTracker:
    """Keeps the sockets of removed addresses open until every worker has drained them.

    The kernel spreads clients over all open sockets of an address. Closing one early would
    send the packets of running transfers to another worker.
    """

    def __init__(self) -> None:
        self._draining: dict[SocketAddress, tuple[ListenSocket, set[int]]] = {}

    @property
    def sockets(self) -> list[ListenSocket]:
        """The sockets that still drain; a reload may listen on them again."""
        return [entry for entry, _ in self._draining.values()]

    def replace(
        self, old: Iterable[ListenSocket], new: Iterable[ListenSocket], workers: Iterable[int]
    ) -> None:
        """Start to drain the sockets in `old` that are not in `new`.

        Args:
            old: The sockets that were served before a reload.
            new: The sockets that are served from now on.
            workers: Numbers of the workers that run now. Without any, the sockets close at once.
        """
        kept = [entry.sockets for entry in new]
        for entry in old:
            self._draining[listener_key(entry.sockets[0])] = entry, set(workers)
        for key, (entry, remaining) in list(self._draining.items()):
            if entry.sockets in kept:
                del self._draining[key]
            elif not remaining:
                self._close(key)

    def on_drained(self, worker: int, key: SocketAddress) -> None:
        """Handle that `worker` has no session on the sockets with this `listener_key`."""
        if key in self._draining:
            _, remaining = self._draining[key]
            remaining.discard(worker)
            if not remaining:
                self._close(key)

    def on_worker_ended(self, worker: int) -> None:
        """Handle the end of a worker, and so of all its sessions."""
        for key in list(self._draining):
            self.on_drained(worker, key)

    def close(self) -> None:
        """Close all sockets that still drain."""
        for key in list(self._draining):
            self._close(key)

    def _close(self, key: SocketAddress) -> None:
        entry, _ = self._draining.pop(key)
        entry.close()


def _default_listen(sock: socket.socket) -> ListenSection:
    """Return a configuration entry with default options for a socket: of http if it is TCP."""
    host, port, *rest = sock.getsockname()
    scope = f"%{socket.if_indextoname(rest[1])}" if rest and rest[1] else ""
    return ListenSection(
        protocol="http" if sock.type == socket.SOCK_STREAM else "tftp",
        address=f"{host}{scope}",
        port=port,
    )


def _check_inherited(
    inherited: Sequence[ListenSocket], settings: Settings, names: Set[tuple[str, str, int]]
) -> None:
    for entry in inherited:
        address, count = format_address(entry.address), len(entry.sockets)
        if count != settings.workers:
            raise BindError(
                f"systemd passed {_count(count, 'socket')} of {address} for "
                f"{_count(settings.workers, 'worker')}; each worker needs one (ReusePort=yes)"
            )
        # Requests to a socket that no worker reads would never be answered.
        if "listen" in settings.model_fields_set and entry.listen.name not in names:
            raise BindError(
                f"systemd passed a socket of {address}, which no entry of `listen` names; "
                "add it there, or leave `listen` out"
            )


def _adopt_socket(descriptor: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise BindError(f"systemd passed descriptor {descriptor}: {reason}") from None
    problem = _find_problem(sock)
    if problem:
        sock.close()
        raise BindError(f"systemd passed {problem}")
    if sock.type == socket.SOCK_DGRAM:
        prepare_listener(sock)
    else:
        sock.setblocking(False)
    return sock


def _find_problem(sock: socket.socket) -> str | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "a socket that is not an IP socket; its unit needs ListenDatagram=ADDRESS:PORT"
    name = sock.getsockname()
    is_tcp = sock.type == socket.SOCK_STREAM and sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    )
    if sock.type != socket.SOCK_DGRAM and not is_tcp:
        return (
            f"a socket that neither is UDP nor listens: {format_address(name)}; use "
            "ListenDatagram=, or ListenStream= for HTTP"
        )
    if sock.family == socket.AF_INET6:
        address = IPv6Address(name[0])
        v6only = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        # The kernel does not tell broadcasts from unicasts on a socket with IPv4, and policies
        # and logs would see IPv4 addresses in two forms.
        if address.ipv4_mapped is not None or (address.is_unspecified and not v6only):
            return (
                f"a socket that accepts both IPv4 and IPv6: {format_address(name)}; "
                "use two sockets with BindIPv6Only=ipv6-only"
            )
    return None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
