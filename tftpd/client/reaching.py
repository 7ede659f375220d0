"""The way to a server: its address and ours, and what a reactor gives to go it."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from tftpd.net.ports import SessionPort
from tftpd.net.runtime import BurstProtocol, Needs, Runtime, SocketAddress, SteadyClock
from tftpd.net.sockets import bind_session

_ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is, and our end of the way to it, as sockets have them."""

    family: int
    address: SocketAddress
    local: SocketAddress


def runtime(reactor: Any) -> Runtime:
    """What transfers have from a reactor."""

    def open_port(protocol: BurstProtocol, local: SocketAddress, needs: Needs) -> SessionPort:
        port = SessionPort(reactor, bind_session(local, needs), protocol, needs)
        port.start()
        return port

    def in_thread(work: Callable[[], T]) -> "Deferred[T]":
        return deferToThreadPool(reactor, reactor.getThreadPool(), work)

    return Runtime(SteadyClock(reactor), open_port, in_thread)


def reach(host: str, port: int, local: str | None) -> Server:
    """Of a server's addresses the first that can be reached from `local`, IPv4 before IPv6.

    Many servers listen on IPv4 only, and UDP does not tell.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    families = {entry[0]: entry[4] for entry in reversed(found)}
    family = _family(local) if local is not None else found[0][0]
    if family not in families:
        raise OSError(f"{host} has no address of the family of {local}")
    ours = socket.getaddrinfo(
        local or _ANY[family], 0, family, socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
    )
    return Server(family, families[family], ours[0][4])


def _family(literal: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in literal else socket.AF_INET
