"""Transfers over loopback with the real reactor; run by pytest and by trial."""

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.plain import ServerError, get, put
from tests.support.programs import needs_linux
from tftpd.config.settings import ListenSection, Settings
from tftpd.daemon.service import Daemon

MIB = 1 << 20


def deferred(test: Callable[["Transfers"], Any]) -> Callable[["Transfers"], "Deferred[Any]"]:
    """Return a test for a coroutine function, which older versions of trial do not await."""

    @wraps(test)
    def run(self: "Transfers") -> "Deferred[Any]":
        return ensureDeferred(test(self))

    return run


class Transfers(TestCase):
    """Daemon in this process, with clients in threads."""

    timeout = 120

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.port = self._serve("127.0.0.1")

    def _serve(self, address: str) -> int:
        directory = {"root": str(self.root), "read": True, "write": {"overwrite": True}}
        settings = Settings.model_validate({"directories": [directory]})
        listen = ListenSection.model_construct(address=address, port=0)
        settings = settings.model_copy(update={"listen": [listen]})
        daemon = Daemon(reactor, settings)
        daemon.privilegedStartService()
        daemon.startService()
        self.addCleanup(daemon.stopService)
        return daemon.addresses[0][1]

    def _client(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> "Deferred[Any]":
        return deferToThread(call, *args, **kwargs)

    def _file(self, name: str, size: int) -> bytes:
        content = os.urandom(size)
        (self.root / name).write_bytes(content)
        return content

    async def _reads(self, size: int, *options: tuple[str, object], **how: Any) -> None:
        content = self._file("file", size)
        got = await self._client(get, self.port, b"file", options, **how)
        self.assertEqual(hash(got), hash(content))

    async def _writes(self, size: int, *options: tuple[str, object], **how: Any) -> None:
        content = os.urandom(size)
        await self._client(put, self.port, b"new", content, options, **how)
        self.assertEqual(hash((self.root / "new").read_bytes()), hash(content))

    @pytest.mark.check
    @deferred
    async def test_a_read_of_33_mib_with_blksize_512_is_intact(self) -> None:
        """After block 65,535 the numbers continue at 0."""
        await self._reads(33 * MIB)

    @pytest.mark.check
    @deferred
    async def test_a_write_of_33_mib_with_blksize_512_is_intact(self) -> None:
        """After block 65,535 the numbers continue at 0."""
        await self._writes(33 * MIB)

    @deferred
    async def test_a_read_may_roll_over_to_1(self) -> None:
        options = (("blksize", 8), ("windowsize", 16), ("rollover", 1))
        await self._reads(66_000 * 8, *options, rollover=1)

    @deferred
    async def test_a_write_may_roll_over_to_1(self) -> None:
        options = (("blksize", 8), ("windowsize", 16), ("rollover", 1))
        await self._writes(66_000 * 8, *options, rollover=1)

    @deferred
    async def test_each_block_size_and_window_size_is_served(self) -> None:
        for blksize in (8, 512, 1468, 8192, 65464):
            for windowsize in (1, 2, 7, 16):
                if blksize * windowsize > 100_000:  # exceeds the receive buffer of a client
                    continue
                size = blksize * windowsize * 3 + 5
                options = (("tsize", size), ("blksize", blksize), ("windowsize", windowsize))
                await self._reads(size, *options)
                await self._writes(size, *options)

    @deferred
    async def test_files_around_multiples_of_the_block_size_are_intact(self) -> None:
        for size in (0, 1, 511, 512, 513, 1024):
            await self._reads(size)
            await self._writes(size)
            await self._reads(size, ("windowsize", 4), ("tsize", 0))
            await self._writes(size, ("windowsize", 4), ("tsize", size))

    @deferred
    async def test_netascii_is_converted_in_both_directions(self) -> None:
        (self.root / "file").write_bytes(b"one\ntwo\r\n" * 1000)
        got = await self._client(get, self.port, b"file", mode=b"netascii")
        self.assertEqual(got, b"one\r\ntwo\r\0\r\n" * 1000)
        await self._client(put, self.port, b"new", got, mode=b"NETASCII")
        self.assertEqual((self.root / "new").read_bytes(), b"one\ntwo\r\n" * 1000)

    @deferred
    async def test_transfers_work_over_ipv6(self) -> None:
        self.port = self._serve("::1")
        await self._reads(5000, ("blksize", 1428), host="::1")
        await self._writes(5000, ("blksize", 1428), host="::1")

    @needs_linux
    @deferred
    async def test_a_wildcard_listener_answers_from_the_requested_address(self) -> None:
        self.port = self._serve("0.0.0.0")
        await self._reads(5000, host="127.0.0.2")
        await self._writes(5000, host="127.4.5.6")
        for host in ("127.0.0.2", "127.0.0.1"):
            refused = self._client(get, self.port, b"nope", host=host)
            error = await self.assertFailure(refused, ServerError)
            self.assertEqual(error.args[0], 1)

    @deferred
    async def test_a_missing_file_gets_error_1(self) -> None:
        error = await self.assertFailure(self._client(get, self.port, b"nope"), ServerError)
        self.assertEqual(error.args, (1, "File not found"))
