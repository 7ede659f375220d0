"""Transfers over real sockets through a relay with faults."""

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.client.in_memory import TransferProtocol
from tests.faults.cells import FAULTS
from tests.faults.faulty_link import Faults, FaultyLink
from tests.support.relay import Relay
from tftpd.client.probe.command import create_runtime
from tftpd.client.settings import ClientSettings
from tftpd.client.transfer import ClientTransfer, get, put
from tftpd.config.settings import ListenSection, Settings
from tftpd.daemon.service import Daemon
from tftpd.protocol.result import Outcome, TransferResult

HOST = "127.0.0.1"
MILD_FAULTS = ("drop", "duplicate", "reorder", "corrupt", "rate")
SIZE = 60_000  # bytes


class FaultyLoopback(TestCase):
    """Daemon in this process, behind a relay with faults."""

    timeout = 60

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        directory = {"root": str(self.root), "read": True, "write": {"overwrite": True}}
        server_settings = Settings.model_validate({"directories": [directory]})
        listen = ListenSection.model_construct(address=HOST, port=0)
        daemon = Daemon(reactor, server_settings.model_copy(update={"listen": [listen]}))
        daemon.privilegedStartService()
        daemon.startService()
        self.addCleanup(daemon.stopService)
        self.server = daemon.addresses[0][1]

    def _start_relay(self, faults: Faults) -> int:
        """Start a relay with these faults; return its port. The same seed is used each time."""
        direction = partial(FaultyLink, faults=faults)
        relay = Relay((HOST, self.server), faults.link(0.001), direction=direction)
        return self.enterContext(relay).address[1]

    def _transfer(self, prepare: Callable[[], ClientTransfer[Any]]) -> "Deferred[TransferResult]":
        """Run a transfer, which stops dallying at the end of the test."""
        protocol = TransferProtocol(create_runtime(reactor), prepare)
        self.addCleanup(protocol.cancel)
        return protocol.result

    async def _transfers(self, faults: Faults, settings: ClientSettings) -> None:
        port = self._start_relay(faults)
        content = os.urandom(SIZE)
        (self.root / "f").write_bytes(content)
        got = self.root / "got"
        reports: list[Any] = [
            await self._transfer(partial(get, HOST, "f", got, port=port, settings=settings)),
            await self._transfer(partial(put, HOST, "new", content, port=port, settings=settings)),
        ]
        self.assertEqual([report.outcome for report in reports], [Outcome.DONE] * 2)
        self.assertTrue(got.read_bytes() == content == (self.root / "new").read_bytes())

    @pytest.mark.check
    def test_windows_are_intact_after_each_mild_fault(self) -> "Deferred[Any]":
        async def run() -> None:
            for name in MILD_FAULTS:
                await self._transfers(FAULTS[name], ClientSettings(blksize=1428, windowsize=8))

        return Deferred.fromCoroutine(run())

    def test_lock_step_transfers_are_intact_after_loss_duplicates_and_reordering(
        self,
    ) -> "Deferred[Any]":
        faults = Faults(drop=0.03, duplicate=0.2, reorder=0.2)
        return Deferred.fromCoroutine(
            self._transfers(faults, ClientSettings(blksize=1428, windowsize=1))
        )
