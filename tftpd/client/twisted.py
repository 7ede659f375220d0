"""Functions for Twisted that read files from TFTP servers and write files to them.

    result = await get("192.0.2.1", "pxelinux.0", "pxelinux.0")
    result = await put("192.0.2.1", "router1.cfg", b"hostname router1")

    n_bytes = await size("192.0.2.1", "pxelinux.0")
    is_there = await exists("192.0.2.1", "pxelinux.0")

All return a Deferred. Arguments, results and exceptions are those of `tftpd.client.blocking`. A
transfer runs in a thread of the installed reactor's pool, because its file operations block. If
the Deferred is cancelled, the client sends an ERROR to the server and removes incomplete files
within 0.25 s.
"""

from collections.abc import Callable
from functools import wraps
from threading import Event
from typing import Any, ParamSpec

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from tftpd.client import transfer
from tftpd.client.blocking import run_transfer
from tftpd.client.settings import ClientSettings
from tftpd.client.transfer import DEFAULT_SETTINGS, PORT
from tftpd.protocol.errors import NotFound
from tftpd.protocol.result import TransferResult

P = ParamSpec("P")


def _deferred(
    prepare: Callable[P, transfer.ClientTransfer[Any]],
) -> Callable[P, "Deferred[TransferResult]"]:
    """Return a function that runs the transfer that `prepare` returns."""

    @wraps(prepare)
    def run(*args: P.args, **kwargs: P.kwargs) -> "Deferred[TransferResult]":
        cancelled = Event()
        result: Deferred[TransferResult] = Deferred(lambda _: cancelled.set())

        def deliver(outcome: TransferResult | Failure) -> None:
            if not result.called:
                result.callback(outcome)  # a Failure is an error

        work = deferToThread(lambda: run_transfer(prepare(*args, **kwargs), cancelled))
        work.addBoth(deliver)
        return result

    return run


get = _deferred(transfer.get)
put = _deferred(transfer.put)
_probe = _deferred(transfer.probe_size)


def size(
    host: str,
    name: str | bytes,
    *,
    port: int = PORT,
    settings: ClientSettings = DEFAULT_SETTINGS,
) -> "Deferred[int | None]":
    """Return the size of a file; see `tftpd.client.blocking.size`."""
    return _probe(host, name, port=port, settings=settings).addCallback(lambda result: result.size)


def exists(
    host: str,
    name: str | bytes,
    *,
    port: int = PORT,
    settings: ClientSettings = DEFAULT_SETTINGS,
) -> "Deferred[bool]":
    """Return True if a server has a file; see `tftpd.client.blocking.exists`."""

    def is_missing(failure: Failure) -> bool:
        failure.trap(NotFound)
        return False

    return _probe(host, name, port=port, settings=settings).addCallbacks(lambda _: True, is_missing)
