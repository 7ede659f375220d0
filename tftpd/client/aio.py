"""Coroutines for asyncio that read files from TFTP servers and write files to them.

    result = await get("192.0.2.1", "pxelinux.0", "pxelinux.0")
    result = await put("192.0.2.1", "router1.cfg", b"hostname router1")

    n_bytes = await size("192.0.2.1", "pxelinux.0")
    is_there = await exists("192.0.2.1", "pxelinux.0")

Arguments, results and exceptions are those of `tftpd.client.blocking`. A transfer runs in a thread
of the loop's default executor, because its file operations block. If the task is cancelled, the
client sends an ERROR to the server and removes incomplete files; this takes up to 0.25 s.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from threading import Event
from typing import Any, ParamSpec

from tftpd.client import transfer
from tftpd.client.blocking import run_transfer
from tftpd.client.settings import ClientSettings
from tftpd.client.transfer import DEFAULT_SETTINGS, PORT
from tftpd.protocol.errors import NotFound
from tftpd.protocol.result import TransferResult

P = ParamSpec("P")


def _coroutine(
    prepare: Callable[P, transfer.ClientTransfer[Any]],
) -> Callable[P, Coroutine[Any, Any, TransferResult]]:
    """Return a coroutine function that runs the transfer that `prepare` returns."""

    @wraps(prepare)
    async def run(*args: P.args, **kwargs: P.kwargs) -> TransferResult:
        cancelled = Event()
        work = asyncio.to_thread(lambda: run_transfer(prepare(*args, **kwargs), cancelled))
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # it was seen
            raise

    return run


get = _coroutine(transfer.get)
put = _coroutine(transfer.put)
_probe = _coroutine(transfer.probe_size)


async def size(
    host: str,
    name: str | bytes,
    *,
    port: int = PORT,
    settings: ClientSettings = DEFAULT_SETTINGS,
) -> int | None:
    """Return the size of a file; see `tftpd.client.blocking.size`."""
    return (await _probe(host, name, port=port, settings=settings)).size


async def exists(
    host: str,
    name: str | bytes,
    *,
    port: int = PORT,
    settings: ClientSettings = DEFAULT_SETTINGS,
) -> bool:
    """Return True if a server has a file; see `tftpd.client.blocking.exists`."""
    try:
        await _probe(host, name, port=port, settings=settings)
    except NotFound:
        return False
    return True
