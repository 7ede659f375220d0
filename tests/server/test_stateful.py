"""Stateful test: a server and several clients in memory on a network that hypothesis controls.

A client that was switched off repeats its request from the same port some seconds later,
and that request arrives. If it repeated the request sooner, or if the request were lost,
it could accept packets of the earlier transfer: TFTP distinguishes transfers by port only.
"""

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.client.in_memory import TransferProtocol
from tests.support.fakes import SERVER, MemoryServer
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import ReadPolicy, WritePolicy
from tftpd.client.settings import ClientSettings
from tftpd.client.transfer import get, put
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import TransferError
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.admission import AdmissionLimits
from tftpd.server.config import ServerConfig

HOST = "192.0.2.7"  # address of all clients
BLKSIZE = 16
BOOTING = 3.5  # seconds from power-on to the first request
FILES = {"empty": b"", "short": b"0123456", "long": bytes(range(200)), "exact": bytes(range(64))}
OFFERS = [
    (OptionLimits(), AdmissionLimits()),
    (OptionLimits(windowsize=2), AdmissionLimits(sessions=2)),
    (OptionLimits(), AdmissionLimits(1)),
]
STEPS = 3000  # bound on the steps until all transfers end on a perfect network


@dataclass
class Transfer:
    """Transfer of a client, whose port is `outer` as the server sees it."""

    outer: int
    reads: bool
    name: str
    content: bytes
    windowsize: int
    done: "Deferred[object]"
    ended: bool = False


class Boots(RuleBasedStateMachine):
    """Clients start, disappear and restart while the server reloads."""

    @initialize(single_port=st.booleans())
    def starts(self, single_port: bool) -> None:
        """Start a server with two trees of the same files; a reload switches between them."""
        self.directory = tempfile.TemporaryDirectory()
        self.top = Path(self.directory.name)
        for root in ("a", "b"):
            (self.top / root / "up").mkdir(parents=True)
            for name, content in FILES.items():
                (self.top / root / name).write_bytes(content)
        (self.top / "got").mkdir()
        self.server = MemoryServer(self._offer, single_port=single_port)
        self.net = self.server.net
        self.wire: list[tuple[SocketAddress, SocketAddress, bytes]] = []
        self.transfers: list[Transfer] = []
        self.inner: dict[int, int] = {}  # current port of a client by its outer port
        self.wrong: list[str] = []
        self.done = 0
        self.uploads: dict[str, set[bytes]] = {}

    @precondition(lambda self: len(self.transfers) < 6)
    @rule(name=st.sampled_from(sorted(FILES)), windowsize=st.sampled_from([1, 4]))
    def reads(self, name: str, windowsize: int) -> None:
        """Start a read."""
        self._begin(5000 + len(self.transfers), True, name, FILES[name], windowsize)

    @precondition(lambda self: len(self.transfers) < 6)
    @rule(name=st.sampled_from(["up/x", "up/y"]), size=st.sampled_from([0, 7, 16, 100]))
    def writes(self, name: str, size: int) -> None:
        """Start a write; other clients may write the same name."""
        number = len(self.transfers)
        content = bytes([number]) * size
        self.uploads.setdefault(name, set()).add(content)
        self._begin(5000 + number, False, name, content, 1 + number % 4)

    @precondition(lambda self: self.transfers)
    @rule(data=st.data())
    def vanishes_and_comes_again(self, data: st.DataObject) -> None:
        """Restart a client: it sends the same request from the same port."""
        old = data.draw(st.sampled_from(self.transfers))
        old.ended = True
        self.inner.pop(old.outer, None)
        self.net.clock.advance(BOOTING)
        self._take()
        self.wire = [entry for entry in self.wire if (HOST, old.outer) not in entry]
        self._begin(old.outer, old.reads, old.name, old.content, old.windowsize)
        self._deliver(len(self.wire) - 1)

    @precondition(lambda self: self.transfers)
    @rule(data=st.data())
    def gives_up(self, data: st.DataObject) -> None:
        """Cancel a transfer, as Ctrl-C does."""
        transfer = data.draw(st.sampled_from(self.transfers))
        if not transfer.ended:
            transfer.done.cancel()
            self._take()

    @rule(root=st.sampled_from("ab"), offer=st.integers(0, 2), single_port=st.booleans())
    def reloads(self, root: str, offer: int, single_port: bool) -> None:
        """Apply other limits and another tree, perhaps in the other port mode."""
        self.server.listener.config = self._offer(self.server.reports.append, root, offer)
        self.server.listener.single_port = single_port

    @rule(seconds=st.sampled_from([0.001, 0.1, 1.0, 4.0]))
    def advances(self, seconds: float) -> None:
        """Advance the clock."""
        self.net.clock.advance(seconds)
        self._take()

    @precondition(lambda self: self.wire)
    @rule(count=st.integers(1, 10))
    def delivers_in_order(self, count: int) -> None:
        """Deliver the oldest datagrams."""
        for _ in range(min(count, len(self.wire))):
            self._deliver(0)

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def delivers(self, data: st.DataObject) -> None:
        """Deliver any datagram."""
        self._deliver(self._any(data))

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def loses(self, data: st.DataObject) -> None:
        """Lose any datagram."""
        self.wire.pop(self._any(data))

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def duplicates(self, data: st.DataObject) -> None:
        """Duplicate any datagram: an old request or an old block."""
        self.wire.append(self.wire[self._any(data)])

    @invariant()
    def nothing_is_wrong(self) -> None:
        """A transfer that is done has read or stored its file."""
        wrong = getattr(self, "wrong", [])
        assert wrong == [], wrong

    @invariant()
    def what_is_stored_is_what_somebody_sent(self) -> None:
        """A stored file is complete and from one client."""
        if not hasattr(self, "uploads"):
            return
        for root in "ab":
            for path in (self.top / root / "up").iterdir():
                if not path.name.startswith("."):
                    assert path.read_bytes() in self.uploads[f"up/{path.name}"]

    def teardown(self) -> None:
        """On a perfect network all transfers end and release everything."""
        if not hasattr(self, "directory"):
            return
        for _ in range(STEPS):
            calls = self.net.clock.getDelayedCalls()
            if self.wire:
                self._deliver(0)
            elif calls:
                soonest = min(call.getTime() for call in calls)
                self.net.clock.advance(max(1e-4, soonest - self.net.clock.seconds()))
                self._take()
            else:
                break
        assert self.server.idle, (self.net.ports, self.net.clock.getDelayedCalls())
        assert all(transfer.ended for transfer in self.transfers)
        assert self.wrong == [], self.wrong
        left = [path.name for path in self.top.rglob(".*")]
        self.directory.cleanup()
        assert left == []

    def _offer(self, report: object, root: str = "a", number: int = 0) -> ServerConfig:
        limits, admission = OFFERS[number]
        policy = WritePolicy(overwrite=True)
        mounts = Mounts([Mount((), (Root(self.top / root),), read=ReadPolicy(), write=policy)])
        return ServerConfig(mounts, limits, RetransmitPolicy(), admission, report)

    def _begin(self, outer: int, reads: bool, name: str, content: bytes, windowsize: int) -> None:
        settings = ClientSettings(blksize=BLKSIZE, windowsize=windowsize)
        number = len(self.transfers)
        got = self.top / "got" / str(number)
        before = set(self.net.ports)
        kind, local = (get, got) if reads else (put, content)
        prepare = partial(kind, SERVER, name, local, settings=settings)
        done = TransferProtocol(self.net.runtime, prepare).result
        transfer = Transfer(outer, reads, name, content, windowsize, done)
        (inner,) = {port for _, port in set(self.net.ports) - before}
        self.inner[outer] = inner
        self.transfers.append(transfer)
        done.addBoth(self._ended, transfer, got)
        self._take()

    def _ended(self, result: object, transfer: Transfer, got: Path) -> None:
        transfer.ended = True
        if not isinstance(result, Failure):
            self.done += 1
            self._check_done(transfer, got)
        elif not result.check(TransferError, CancelledError):
            self.wrong.append(result.getTraceback())
        elif got.exists() and (result.check(TransferError) or self._differs(transfer, got)):
            self.wrong.append(f"{got} of a transfer that failed")

    def _check_done(self, transfer: Transfer, got: Path) -> None:
        if transfer.reads and self._differs(transfer, got):
            self.wrong.append(f"{got.name} is not {transfer.name}: {got.read_bytes()!r}")
        stored = [self.top / root / transfer.name for root in "ab"]
        if not any(path.exists() for path in stored):
            self.wrong.append(f"{transfer.name} is not stored")

    def _differs(self, transfer: Transfer, got: Path) -> bool:
        # A cancelled transfer may have been complete already.
        return got.read_bytes() != transfer.content

    def _any(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(self.wire) - 1))

    def _take(self) -> None:
        """Move sent datagrams to the network; those of a client that disappeared are lost."""
        outer = {inner: outer for outer, inner in self.inner.items()}
        for source, to, datagram in self.net.sent:
            if source[0] == SERVER:
                self.wire.append((source, to, datagram))
            elif source[1] in outer:
                self.wire.append(((HOST, outer[source[1]]), to, datagram))
        self.net.sent.clear()

    def _deliver(self, at: int) -> None:
        source, to, datagram = self.wire.pop(at)
        if to[0] == SERVER:
            self.net.deliver(datagram, source, to)
        elif to[1] in self.inner:
            self.net.deliver(datagram, source, ("0.0.0.0", self.inner[to[1]]))
        self._take()


TestBoots = Boots.TestCase
TestBoots.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
