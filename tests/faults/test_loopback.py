"""Some cells with sockets, the reactor and the relay's thread."""

import os
import shutil
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.faults.cells import FAULTS
from tests.faults.wire import Faults, Wire
from tests.support.relay import Relay
from tftpd.client.client import Client
from tftpd.client.endpoint import create_runtime
from tftpd.client.settings import ClientSettings as Wishes
from tftpd.config.settings import ListenSection, Settings
from tftpd.daemon.service import Daemon
from tftpd.net.interfaces import PortRequirements
from tftpd.net.session import Session
from tftpd.net.types import SocketAddress
from tftpd.protocol.result import Outcome

HOST = "127.0.0.1"
MILD = ("drop", "duplicate", "reorder", "corrupt", "rate")
SIZE = 60_000  # octets


class FaultyLoopback(TestCase):
    """A daemon in this process, and a bad wire before it."""

    timeout = 60

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        directory = {"root": str(self.root), "read": True, "write": {"overwrite": True}}
        settings = Settings.model_validate({"directories": [directory]})
        listen = ListenSection.model_construct(address=HOST, port=0)
        daemon = Daemon(reactor, settings.model_copy(update={"listen": [listen]}))
        daemon.privilegedStartService()
        daemon.startService()
        self.addCleanup(daemon.stopService)
        self.server = daemon.addresses[0][1]

    def _behind(self, faults: Faults) -> int:
        """The port of a relay that does this to what passes, and the same each time."""
        wire = partial(Wire, faults=faults)
        relay = Relay((HOST, self.server), faults.link(0.001), direction=wire)
        return self.enterContext(relay).address[1]

    def _client(self, wishes: Wishes) -> Client:
        """One that does not dally beyond the end of the test."""
        real = create_runtime(reactor)

        def open_port(session: Session[Any], local: SocketAddress, needs: PortRequirements) -> Any:
            self.addCleanup(session.stop, Outcome.STOPPED)
            return real.open_port(session, local, needs)

        return Client(replace(real, open_port=open_port), wishes)

    async def _transfers(self, faults: Faults, wishes: Wishes) -> None:
        port, client = self._behind(faults), self._client(wishes)
        content = os.urandom(SIZE)
        (self.root / "f").write_bytes(content)
        got = self.root / "got"
        reports: list[Any] = [
            await client.get(HOST, "f", got, port=port),
            await client.put(HOST, "new", content, port=port),
        ]
        self.assertEqual([report.outcome for report in reports], [Outcome.DONE] * 2)
        self.assertTrue(got.read_bytes() == content == (self.root / "new").read_bytes())

    def test_each_mild_fault(self) -> "Deferred[Any]":
        """One after the other, in windows."""

        async def run() -> None:
            for name in MILD:
                await self._transfers(FAULTS[name], Wishes(blksize=1428, windowsize=8))

        return Deferred.fromCoroutine(run())

    def test_two_faults_in_lock_step(self) -> "Deferred[Any]":
        """Blocks that go one by one, of which some are lost and some come twice."""
        faults = Faults(drop=0.03, duplicate=0.2, reorder=0.2)
        return Deferred.fromCoroutine(self._transfers(faults, Wishes(blksize=1428, windowsize=1)))
