"""The well-known ports, bound while twistd is still root."""

import errno
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from twisted.logger import Logger

from tftpd.config.settings import Listen, Settings
from tftpd.net.runtime import SocketAddress
from tftpd.net.sockets import bind_listeners

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

_log = Logger()


class Unbound(Exception):
    """An address cannot be listened on; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The sockets of one address, one for each process that serves it.

    `listen` is the entry of the configuration that they serve.
    """

    listen: Listen
    sockets: list[socket.socket]

    @property
    def broadcast(self) -> bool:
        """Whether requests to broadcast addresses are taken."""
        return self.listen.broadcast == "answer"

    @property
    def address(self) -> SocketAddress:
        """Where it takes requests, as sockets name it."""
        name: SocketAddress = self.sockets[0].getsockname()
        return name

    def close(self) -> None:
        """Give the port up; idempotent."""
        for sock in self.sockets:
            sock.close()


def bind(settings: Settings, held: Sequence[Bound] = ()) -> list[Bound]:
    """What the configuration listens on, with a socket for each worker.

    What is `held` already is used again; the rest of it is not touched.
    Raises `Unbound` where an address cannot be had, and then all is as it
    was, unless the address is only a default that this host lacks.
    """
    if settings.workers > 1 and not sys.platform.startswith("linux"):
        raise Unbound("several workers on one port need Linux")
    own = {(each.listen.address, each.listen.port): each for each in held}
    wanted = {(listen.address, listen.port) for listen in settings.listen}
    going = [own[name] for name in own if name not in wanted]
    with ExitStack() as undo:
        bound = []
        for listen in settings.listen:
            same = own.get((listen.address, listen.port))
            if same is not None:
                bound.append(Bound(listen, same.sockets))
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
                raise Unbound(f"cannot listen on {said}: {why}") from error
            bound.append(Bound(listen, sockets))
            undo.callback(bound[-1].close)
        undo.pop_all()
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
