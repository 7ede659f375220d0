"""The well-known ports, bound while twistd is still root, or by systemd before.

Addresses that are served no more, and which workers still have transfers there.
"""

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from twisted.logger import Logger

from tftpd.config.settings import ListenSection, Settings
from tftpd.net.sockets import bind_listeners, prepare_listener
from tftpd.net.types import SocketAddress

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

_log = Logger()


class BindError(Exception):
    """An address cannot be listened on, or a socket not be used; the text says why."""


@dataclass(frozen=True, slots=True)
class ListenSocket:
    """The sockets of one address, one for each process that serves it.

    `listen` is the entry of the configuration that they serve; `inherited`,
    whether systemd has bound them, which holds them as we do.
    """

    listen: ListenSection
    sockets: list[socket.socket]
    inherited: bool = False

    @property
    def name(self) -> tuple[str, int]:
        """Its address and port, as the configuration has them."""
        return self.listen.address, self.listen.port

    @property
    def address(self) -> SocketAddress:
        """Where it takes requests, as sockets name it."""
        name: SocketAddress = self.sockets[0].getsockname()
        return name

    def close(self) -> None:
        """Give the port up; idempotent."""
        for sock in self.sockets:
            sock.close()


def bind(settings: Settings, held: Sequence[ListenSocket] = ()) -> list[ListenSocket]:
    """What the configuration listens on, with a socket for each worker.

    What is `held` already is used again; the rest of it is not touched.
    Where `listen` is left out, inherited sockets are what is listened on.
    Raises `Unbound` where an address cannot be had, and then all is as it
    was, unless the address is only a default that this host lacks.
    """
    if settings.workers > 1 and not sys.platform.startswith("linux"):
        raise BindError("several workers on one port need Linux")
    own = {each.name: each for each in held}
    wanted = {(listen.address, listen.port) for listen in settings.listen}
    inherited = [each for each in held if each.inherited]
    _check_shares(inherited, settings.workers)
    if inherited and "listen" not in settings.model_fields_set:
        return [_unnamed(each) for each in inherited]
    _check_wanted(inherited, wanted)
    going = [own[name] for name in own if name not in wanted]
    with ExitStack() as undo:
        bound = []
        for listen in settings.listen:
            same = own.get((listen.address, listen.port))
            if same is not None:
                bound.append(replace(same, listen=listen))
                continue
            said = f"{listen.address} port {listen.port}"
            beside = [s for each in going if each.listen.port == listen.port for s in each.sockets]
            try:
                sockets = bind_listeners(listen.address, listen.port, settings.workers, beside)
            except OSError as error:
                why = _explain(error)
                if error.errno in _NO_IPV6 and "listen" not in settings.model_fields_set:
                    _log.warn("not listening on {said}: {why}", said=said, why=why)
                    continue
                raise BindError(f"cannot listen on {said}: {why}") from error
            bound.append(ListenSocket(listen, sockets))
            undo.callback(bound[-1].close)
        undo.pop_all()
    return bound


def adopt(descriptors: Iterable[int]) -> list[ListenSocket]:
    """Sockets that systemd has bound, made ready to serve; raises `Unbound`."""
    by_address: dict[SocketAddress, list[socket.socket]] = {}
    for descriptor in descriptors:
        sock = _adopted(descriptor)
        by_address.setdefault(sock.getsockname(), []).append(sock)
    return [
        ListenSocket(_listen(address), sockets, inherited=True)
        for address, sockets in by_address.items()
    ]


def endpoint(name: SocketAddress) -> str:
    """An address and port as people write them."""
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(address: SocketAddress) -> ListenSection:
    """The entry that a socket of this address would serve."""
    host, port, *rest = address
    scope = f"%{socket.if_indextoname(rest[1])}" if rest and rest[1] else ""
    return ListenSection(address=f"{host}{scope}", port=port)


def _unnamed(bound: ListenSocket) -> ListenSocket:
    """What it is where no entry says otherwise."""
    return replace(bound, listen=_listen(bound.address))


def _check_shares(inherited: Sequence[ListenSocket], workers: int) -> None:
    for each in inherited:
        count = len(each.sockets)
        if count != workers:
            raise BindError(
                f"systemd passed {_count(count, 'socket')} of {endpoint(each.address)} for "
                f"{_count(workers, 'worker')}; each worker needs one (ReusePort=yes)"
            )


def _check_wanted(inherited: Sequence[ListenSocket], wanted: Set[tuple[str, int]]) -> None:
    """Requests to a socket that nobody reads would wait for ever."""
    for each in inherited:
        if each.name not in wanted:
            raise BindError(
                f"systemd passed a socket of {endpoint(each.address)}, which no entry of "
                "`listen` names; name it there, or leave `listen` out"
            )


def _adopted(descriptor: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise BindError(f"systemd passed descriptor {descriptor}: {why}") from None
    wrong = _wrong_with(sock)
    if wrong:
        sock.close()
        raise BindError(f"systemd passed {wrong}")
    prepare_listener(sock)
    return sock


def _wrong_with(sock: socket.socket) -> str | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "a socket that is none of IP; its unit needs ListenDatagram=ADDRESS:PORT"
    name = sock.getsockname()
    if sock.type != socket.SOCK_DGRAM:
        return f"a socket of {endpoint(name)} that is none of UDP; its unit needs ListenDatagram="
    if sock.family == socket.AF_INET6 and _takes_ipv4(sock, IPv6Address(name[0])):
        # Broadcast could not be told from unicast there, and the addresses
        # in policies and logs would be in two forms.
        return f"a socket of {endpoint(name)} that takes IPv4 too; use two, BindIPv6Only=ipv6-only"
    return None


def _takes_ipv4(sock: socket.socket, address: IPv6Address) -> bool:
    if address.ipv4_mapped is not None:
        return True
    alone = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return address.is_unspecified and not alone


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _explain(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use by another program"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host has no such address"
    return error.strerror or str(error)


class DrainTracker:
    """Tells `vacated` of each address that the last worker has left."""

    def __init__(self, vacated: Callable[[SocketAddress], None]) -> None:
        self._vacated = vacated
        self._served: set[SocketAddress] = set()
        self._there: dict[SocketAddress, set[int]] = {}

    def serve(self, addresses: Iterable[SocketAddress], workers: Iterable[int]) -> None:
        """These are served from now on; `workers` have to leave the others."""
        before, self._served = self._served, set(addresses)
        for address in self._served:
            self._there.pop(address, None)
        there = set(workers)
        for address in before - self._served:
            self._there[address] = set(there)
            self._check(address)

    def left(self, worker: int, address: SocketAddress) -> None:
        """`worker` has no transfer on the socket of `address` any more."""
        if address in self._there:
            self._there[address].discard(worker)
            self._check(address)

    def died(self, worker: int) -> None:
        """`worker` is nowhere any more."""
        for address in list(self._there):
            self.left(worker, address)

    def _check(self, address: SocketAddress) -> None:
        if not self._there[address]:
            del self._there[address]
            self._vacated(address)
