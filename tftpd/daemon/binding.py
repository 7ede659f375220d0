"""The well-known ports, bound while twistd is still root."""

import errno
import socket
import sys
from dataclasses import dataclass

from twisted.logger import Logger

from tftpd.config.settings import Settings
from tftpd.net.runtime import SocketAddress
from tftpd.net.sockets import bind_listeners

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

_log = Logger()


@dataclass(frozen=True, slots=True)
class Bound:
    """The sockets of one address, one for each process that serves it.

    `broadcast` is whether requests to broadcast addresses are taken.
    """

    sockets: list[socket.socket]
    broadcast: bool

    @property
    def address(self) -> SocketAddress:
        """Where it takes requests, as sockets name it."""
        name: SocketAddress = self.sockets[0].getsockname()
        return name

    def close(self) -> None:
        """Give the port up; idempotent."""
        for sock in self.sockets:
            sock.close()


def bind(settings: Settings) -> list[Bound]:
    """What the configuration listens on, with a socket for each worker.

    Where an address cannot be had, it says why in one line and raises
    `SystemExit`, unless the address is only a default that this host lacks.
    """
    if settings.workers > 1 and not sys.platform.startswith("linux"):
        _log.critical("several workers on one port need Linux")
        raise SystemExit(1)
    bound: list[Bound] = []
    for listen in settings.listen:
        try:
            sockets = bind_listeners(listen.address, listen.port, settings.workers)
        except OSError as error:
            said = {"address": listen.address, "port": listen.port, "why": _explain(error)}
            if error.errno in _NO_IPV6 and "listen" not in settings.model_fields_set:
                _log.warn("not listening on {address} port {port}: {why}", **said)
                continue
            for other in bound:
                other.close()
            _log.critical("cannot listen on {address} port {port}: {why}", **said)
            raise SystemExit(1) from None
        bound.append(Bound(sockets, listen.broadcast == "answer"))
    return bound


def endpoint(name: SocketAddress) -> str:
    """An address and port as people write them."""
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _explain(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use by another program"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host has no such address"
    return error.strerror or str(error)
