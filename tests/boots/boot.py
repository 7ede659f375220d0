"""Boot of a simulated client from a server with the shipped profiles, on a simulated clock."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.boots import packets
from tests.boots.client import Transfer
from tests.boots.trace import Family, Step, content
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryServer
from tftpd.access.mounts import Mounts
from tftpd.access.profiles import Profiles
from tftpd.config.loader import load_settings
from tftpd.config.settings import Settings
from tftpd.server.admission import AdmissionLimits
from tftpd.server.config import ServerConfig

HOST = "192.0.2.7"
_DELAY_SECONDS = 0.0005  # in one direction
_MAX_LATE_SECONDS = 0.05  # enough for other datagrams to overtake a late one
_PAUSE_SECONDS = 0.001  # from the end of a transfer to the next request
_MAX_BOOT_SECONDS = 7200.0


@dataclass(slots=True)
class Network:
    """Faults of datagrams in both directions.

    Attributes:
        copies: Function that returns, for the index of a datagram, the additional delay of each
            copy in seconds: `[]` if it is lost, `[0.0]` without a fault.
        carried: All datagrams, such as `> ACK 0`.
    """

    copies: Callable[[int], list[float]] = lambda index: [0.0]
    carried: list[str] = field(default_factory=list)

    def carry(self, direction: str, datagram: bytes) -> list[float]:
        """Return the delays of the copies of the next datagram."""
        self.carried.append(f"{direction} {packets.to_text(datagram)}")
        return [_DELAY_SECONDS + late for late in self.copies(len(self.carried) - 1)]


def network_without(lost: int) -> Network:
    """Return a network that loses one datagram, given by its index."""
    return Network(lambda index: [] if index == lost else [0.0])


def lossy_network(seed: int, percent: int) -> Network:
    """Return a network with loss; half as many datagrams are duplicated, and half as many late."""
    generator = random.Random(f"{seed} {percent}")
    share = percent / 100

    def delay() -> float:
        is_late = generator.random() < share / 2
        return generator.uniform(0, _MAX_LATE_SECONDS) if is_late else 0.0

    def copies(index: int) -> list[float]:
        if generator.random() < share:
            return []
        return [delay() for _ in range(2 if generator.random() < share / 2 else 1)]

    return Network(copies)


def create_tree(family: Family, root: Path) -> None:
    """Create the files that the family reads, and the configuration that serves them."""
    text_files = {family.file(step) for step in family.steps if step.text}
    tree = root / "srv"
    tree.mkdir(parents=True)
    for name, size in family.files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(name, size, name in text_files))
    directory = {"root": str(tree), "read": True, "write": {"overwrite": True}}
    document = {"directories": [directory], **family.settings}
    (root / "tftpd.yaml").write_text(yaml.safe_dump(document))


@contextmanager
def _fixed_jitter(seed: int) -> Iterator[None]:
    """Take the jitter of timers from the seed."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


class Boot:
    """Boot of one client; runs to its end when it is created.

    Attributes:
        trace: All datagrams at the server: port of the client, direction and data.
        server_datagrams: Datagrams of the server: its port, port of the client and data.
        transfers: The requests as the client sees them, in their order.
    """

    def __init__(
        self,
        family: Family,
        root: Path,
        network: Network | None = None,
        seed: int = 0,
        processing_time: Callable[[], float] | None = None,
    ) -> None:
        self.family = family
        self.network = network or Network()
        self.root = root / "srv"
        self.server = _server(family, root)
        self.clock = self.server.net.clock
        self.trace: list[tuple[int, str, bytes]] = []
        self.server_datagrams: list[tuple[int, int, bytes]] = []
        self.transfers: list[Transfer] = []
        self._processing_time = processing_time or (lambda: 0.0)
        self._by_port: dict[int, Transfer] = {}
        self._next_step = 0
        self._busy_until = 0.0
        self._opened_at: dict[int, float] = {}  # first datagram of each port of the server
        for name in family.uploads:
            (self.root / name).unlink(missing_ok=True)  # from the previous boot
        with _fixed_jitter(seed):
            self._start_step()
            self._run()

    @property
    def failed(self) -> list[Transfer]:
        """Transfers that did not end as in the trace."""
        return [transfer for transfer in self.transfers if transfer.failure is not None]

    @property
    def complete(self) -> bool:
        """True if the client completed its boot."""
        return len(self.transfers) == len(self.family.steps) and not self.failed

    @property
    def profiles(self) -> Counter[tuple[int, bytes, str]]:
        """Number of requests by port, name and profile."""
        return Counter(
            (report.peer[1], report.filename, report.profile) for report in self.server.reports
        )

    def lines(self) -> list[str]:
        """Return the trace as lines of text."""
        return [
            f"{port} {direction} {packets.to_text(datagram)}"
            for port, direction, datagram in self.trace
        ]

    def stored(self, step: Step) -> bytes:
        """Return the content of an upload on the server."""
        data: bytes = (self.root / self.family.file(step)).read_bytes()
        return data

    def _start_step(self) -> None:
        """Send the next request, and schedule one that does not wait for its end."""
        steps = self.family.steps
        index, self._next_step = self._next_step, self._next_step + 1
        self._send_request(steps[index])
        following = steps[self._next_step] if self._next_step < len(steps) else None
        if following is not None and following.after is not None:
            self.clock.callLater(following.after, self._start_step)

    def _send_request(self, step: Step) -> None:
        content = b"" if step.gets_error else self.family.wire(step)

        def send(datagram: bytes, tid: int | None) -> None:
            to = WELL_KNOWN if tid is None else tid
            for delay in self.network.carry(">", datagram):
                self.clock.callLater(delay, self._deliver_to_server, datagram, step.port, to)

        transfer = Transfer(step, self.family.habits, self.clock, send, self._on_end, content)
        self.transfers.append(transfer)
        self._by_port[step.port] = transfer

    def _deliver_to_server(self, datagram: bytes, port: int, to: int) -> None:
        self.trace.append((port, ">", datagram))
        self.server.net.deliver(datagram, (HOST, port), (SERVER, to))

    def _on_end(self, transfer: Transfer) -> None:
        steps, at = self.family.steps, self._next_step
        if transfer.failure or at == len(steps) or steps[at].after is not None:
            return
        others = [other for other in self.transfers if other is not transfer]
        if all(other.over and not other.failure for other in others):
            self.clock.callLater(_PAUSE_SECONDS, self._start_step)

    def _run(self) -> None:
        """Advance the clock until no timer is left on either side."""
        while True:
            self._carry_replies()
            calls = self.clock.getDelayedCalls()
            if not calls:
                return
            assert self.clock.seconds() < _MAX_BOOT_SECONDS, "the boot does not end"
            self.clock.rightNow = max(self.clock.rightNow, min(call.getTime() for call in calls))
            self.clock.advance(0)

    def _carry_replies(self) -> None:
        """Carry the datagrams that the server has sent."""
        sent, self.server.net.sent = self.server.net.sent, []
        for source, to, datagram in sent:
            assert to is not None
            assert to[0] == HOST
            self.trace.append((to[1], "<", datagram))
            self.server_datagrams.append((source[1], to[1], datagram))
            now = self.clock.seconds()
            if source[1] == WELL_KNOWN:
                self._opened_at[WELL_KNOWN] = now
            for delay in self.network.carry("<", datagram):
                opened_at = self._opened_at.setdefault(source[1], now)
                reply = _Reply(datagram, source[1], opened_at)
                self.clock.callLater(delay, self._queue_reply, reply, to[1])

    def _queue_reply(self, reply: "_Reply", port: int) -> None:
        """Deliver a datagram as soon as the client has processed the previous ones."""
        now = self.clock.seconds()
        self._busy_until = max(self._busy_until, now) + self._processing_time()
        if self._busy_until == now:
            self._deliver_to_client(reply, port)
        else:
            self.clock.callLater(self._busy_until - now, self._deliver_to_client, reply, port)

    def _deliver_to_client(self, reply: "_Reply", port: int) -> None:
        self._by_port[port].receive(reply.datagram, reply.source, reply.opened_at)


@dataclass(frozen=True, slots=True)
class _Reply:
    """Datagram from a port of the server, and the time at which that port was opened."""

    datagram: bytes
    source: int
    opened_at: float


@cache
def _load(path: Path) -> tuple[Settings, Profiles]:
    settings = load_settings(path)
    return settings, Profiles(section.build_profile() for section in settings.active_profiles())


def _server(family: Family, root: Path) -> MemoryServer:
    settings, profiles = _load(root / "tftpd.yaml")

    def make_config(report: Any) -> ServerConfig:
        return ServerConfig(
            mounts=Mounts(settings.build_mounts(), settings.build_name_rules()),
            limits=settings.limits.option_limits(),
            timing=settings.retransmit.build_policy(),
            admission=AdmissionLimits(),
            report=report,
            profiles=profiles,
        )

    server = MemoryServer(make_config, broadcast=family.broadcast)
    server.port.broadcast = family.broadcast
    return server
