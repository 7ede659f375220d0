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
from tftpd.net.sockets import bind_listeners, prepare_listener
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
    def name(self) -> tuple[str, int]:
        """Address and port as the configuration spells them."""
        return self.listen.address, self.listen.port

    @property
    def address(self) -> SocketAddress:
        """Address and port as the kernel reports them."""
        return tuple(self.sockets[0].getsockname())

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
    held_by_name = {entry.name: entry for entry in held}
    inherited_names = {entry.name for entry in held if entry.inherited}
    listens = [listen for _, listen in settings.expand_listen(inherited_names)]
    configured = {(listen.address, listen.port) for listen in listens}
    inherited = [entry for entry in held if entry.inherited]
    _check_inherited(inherited, settings, configured)
    if inherited and "listen" not in settings.model_fields_set:
        return [replace(entry, listen=_default_listen(entry.address)) for entry in inherited]
    removed = [entry for entry in held if entry.name not in configured]
    with ExitStack() as undo:
        bound = []
        for listen in listens:
            same = held_by_name.get((listen.address, listen.port))
            if same is not None:
                bound.append(replace(same, listen=listen))
                continue
            where = f"{listen.address} port {listen.port}"
            shared = [s for old in removed if old.listen.port == listen.port for s in old.sockets]
            try:
                sockets = bind_listeners(listen.address, listen.port, settings.workers, shared)
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
        BindError: A descriptor is not a UDP socket, or accepts both IPv4 and IPv6.
    """
    by_address: dict[SocketAddress, list[socket.socket]] = {}
    for descriptor in descriptors:
        sock = _adopt_socket(descriptor)
        by_address.setdefault(sock.getsockname(), []).append(sock)
    return [
        ListenSocket(_default_listen(address), sockets, inherited=True)
        for address, sockets in by_address.items()
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
            self._draining[entry.address] = entry, set(workers)
        for address, (entry, remaining) in list(self._draining.items()):
            if entry.sockets in kept:
                del self._draining[address]
            elif not remaining:
                self._close(address)

    def on_drained(self, worker: int, address: SocketAddress) -> None:
        """Handle that `worker` has no session on the sockets of `address` any longer."""
        if address in self._draining:
            _, remaining = self._draining[address]
            remaining.discard(worker)
            if not remaining:
                self._close(address)

    def on_worker_ended(self, worker: int) -> None:
        """Handle the end of a worker, and so of all its sessions."""
        for address in list(self._draining):
            self.on_drained(worker, address)

    def close(self) -> None:
        """Close all sockets that still drain."""
        for address in list(self._draining):
            self._close(address)

    def _close(self, address: SocketAddress) -> None:
        entry, _ = self._draining.pop(address)
        entry.close()


def _default_listen(address: SocketAddress) -> ListenSection:
    """Return a configuration entry with default options for a socket of `address`."""
    host, port, *rest = address
    scope = f"%{socket.if_indextoname(rest[1])}" if rest and rest[1] else ""
    return ListenSection(address=f"{host}{scope}", port=port)


def _check_inherited(
    inherited: Sequence[ListenSocket], settings: Settings, names: Set[tuple[str, int]]
) -> None:
    for entry in inherited:
        address, count = format_address(entry.address), len(entry.sockets)
        if count != settings.workers:
            raise BindError(
                f"systemd passed {_count(count, 'socket')} of {address} for "
                f"{_count(settings.workers, 'worker')}; each worker needs one (ReusePort=yes)"
            )
        # Requests to a socket that no worker reads would never be answered.
        if "listen" in settings.model_fields_set and entry.name not in names:
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
    prepare_listener(sock)
    return sock


def _find_problem(sock: socket.socket) -> str | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "a socket that is not an IP socket; its unit needs ListenDatagram=ADDRESS:PORT"
    name = sock.getsockname()
    if sock.type != socket.SOCK_DGRAM:
        return f"a socket that is not a UDP socket: {format_address(name)}; use ListenDatagram="
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
