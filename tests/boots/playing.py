"""A boot on the fake clock: a server with shipped profiles, a road with faults, a client."""

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
_DELAY = 0.0005  # seconds one way
_LATE = 0.05  # what a datagram may be late by at most, so that others pass it
_BETWEEN = 0.001  # seconds from the end of a request to the next one
_LONGEST = 7200.0  # seconds that a boot may take


@dataclass(slots=True)
class Road:
    """Faults of datagrams in both directions.

    `fate` tells, for the number of a datagram, how late each of its copies
    comes: `[]` is lost, `[0.0]` is as it should be. `carried` are all, as
    `> ACK 0` and the like.
    """

    fate: Callable[[int], list[float]] = lambda number: [0.0]
    carried: list[str] = field(default_factory=list)

    def carry(self, way: str, datagram: bytes) -> list[float]:
        """The delays of the copies of the next datagram."""
        self.carried.append(f"{way} {packets.written(datagram)}")
        return [_DELAY + late for late in self.fate(len(self.carried) - 1)]


def losing(one: int) -> Road:
    """A road that loses one datagram, by its number."""
    return Road(lambda number: [] if number == one else [0.0])


def rough(seed: int, percent: int) -> Road:
    """A road that loses so many, doubles half as many and has as many come late."""
    dice = random.Random(f"{seed} {percent}")
    share = percent / 100

    def fate(number: int) -> list[float]:
        if dice.random() < share:
            return []
        copies = 2 if dice.random() < share / 2 else 1
        return [dice.uniform(0, _LATE) if dice.random() < share / 2 else 0.0 for _ in range(copies)]

    return Road(fate)


def make_tree(family: Family, root: Path) -> None:
    """The files that the family reads, and the configuration that serves them."""
    text = {family.file(step) for step in family.steps if step.text}
    tree = root / "srv"
    tree.mkdir(parents=True)
    for name, size in family.files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(name, size, name in text))
    directory = {"root": str(tree), "read": True, "write": {"overwrite": True}}
    said = {"directories": [directory], **family.settings}
    (root / "tftpd.yaml").write_text(yaml.safe_dump(said))


@contextmanager
def _steady(seed: int) -> Iterator[None]:
    """The jitter of timers is that of the seed."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


class Boot:
    """The boot of one client, played to its end when it is made.

    `trace` has all that passed the server's side, `transfers` the requests
    as the client saw them, in their order.
    """

    def __init__(
        self,
        family: Family,
        root: Path,
        road: Road | None = None,
        seed: int = 0,
        thinks: Callable[[], float] | None = None,
    ) -> None:
        self.family = family
        self.road = road or Road()
        self.root = root / "srv"
        self.server = _server(family, root)
        self.clock = self.server.net.clock
        self.trace: list[tuple[int, str, bytes]] = []
        self.tids: list[tuple[int, int, bytes]] = []  # what the server said, by port
        self.transfers: list[Transfer] = []
        self._thinks = thinks or (lambda: 0.0)
        self._by_port: dict[int, Transfer] = {}
        self._next = 0
        self._busy_until = 0.0
        self._since: dict[int, float] = {}  # when the server's ports were first heard of
        for name in family.uploads:
            (self.root / name).unlink(missing_ok=True)  # of the boot before
        with _steady(seed):
            self._step()
            self._run()

    @property
    def failed(self) -> list[Transfer]:
        """Requests that ended otherwise than the trace has it."""
        return [one for one in self.transfers if one.failed is not None]

    @property
    def complete(self) -> bool:
        """True if the client completed its boot."""
        return len(self.transfers) == len(self.family.steps) and not self.failed

    @property
    def profiles(self) -> Counter[tuple[int, bytes, str]]:
        """Profile of each request, by port and name."""
        return Counter(
            (report.peer[1], report.filename, report.profile) for report in self.server.reports
        )

    def lines(self) -> list[str]:
        """The trace as text."""
        return [f"{port} {way} {packets.written(datagram)}" for port, way, datagram in self.trace]

    def stored(self, step: Step) -> bytes:
        """Return the content of an upload on the server."""
        octets: bytes = (self.root / self.family.file(step)).read_bytes()
        return octets

    def _step(self) -> None:
        """The next request, and those that do not wait for its end."""
        steps = self.family.steps
        at, self._next = self._next, self._next + 1
        self._ask(steps[at])
        following = steps[self._next] if self._next < len(steps) else None
        if following is not None and following.after is not None:
            self.clock.callLater(following.after, self._step)

    def _ask(self, step: Step) -> None:
        octets = b"" if step.misses else self.family.wire(step)

        def say(datagram: bytes, tid: int | None) -> None:
            to = WELL_KNOWN if tid is None else tid
            for delay in self.road.carry(">", datagram):
                self.clock.callLater(delay, self._arrives, datagram, step.port, to)

        transfer = Transfer(step, self.family.habits, self.clock, say, self._ended, octets)
        self.transfers.append(transfer)
        self._by_port[step.port] = transfer

    def _arrives(self, datagram: bytes, port: int, to: int) -> None:
        self.trace.append((port, ">", datagram))
        self.server.net.deliver(datagram, (HOST, port), (SERVER, to))

    def _ended(self, transfer: Transfer) -> None:
        steps, others = self.family.steps, [one for one in self.transfers if one is not transfer]
        if transfer.failed or self._next == len(steps) or steps[self._next].after is not None:
            return
        if all(one.over and not one.failed for one in others):
            self.clock.callLater(_BETWEEN, self._step)

    def _run(self) -> None:
        """Until nothing is left to happen, on either side."""
        while True:
            self._send()
            calls = self.clock.getDelayedCalls()
            if not calls:
                return
            assert self.clock.seconds() < _LONGEST, "no end"
            self.clock.rightNow = max(self.clock.rightNow, min(call.getTime() for call in calls))
            self.clock.advance(0)

    def _send(self) -> None:
        """Deliver the datagrams that the server has sent."""
        sent, self.server.net.sent = self.server.net.sent, []
        for source, to, datagram in sent:
            assert to is not None
            assert to[0] == HOST
            self.trace.append((to[1], "<", datagram))
            self.tids.append((source[1], to[1], datagram))
            now = self.clock.seconds()
            if source[1] == WELL_KNOWN:
                self._since[WELL_KNOWN] = now
            for delay in self.road.carry("<", datagram):
                heard = _Heard(datagram, source[1], self._since.setdefault(source[1], now))
                self.clock.callLater(delay, self._queue, heard, to[1])

    def _queue(self, heard: "_Heard", port: int) -> None:
        """The client looks at one after the other."""
        now = self.clock.seconds()
        self._busy_until = max(self._busy_until, now) + self._thinks()
        if self._busy_until == now:
            self._hears(heard, port)
        else:
            self.clock.callLater(self._busy_until - now, self._hears, heard, port)

    def _hears(self, heard: "_Heard", port: int) -> None:
        self._by_port[port].hears(heard.datagram, heard.source, heard.since)


@dataclass(frozen=True, slots=True)
class _Heard:
    """A datagram from a port of the server, and since when that port was in use."""

    datagram: bytes
    source: int
    since: float


@cache
def _configured(path: Path) -> tuple[Settings, Profiles]:
    settings = load_settings(path)
    return settings, Profiles(known.build_profile() for known in settings.active_profiles())


def _server(family: Family, root: Path) -> MemoryServer:
    settings, profiles = _configured(root / "tftpd.yaml")

    def offer(report: Any) -> ServerConfig:
        return ServerConfig(
            mounts=Mounts(settings.build_mounts(), settings.build_name_rules()),
            limits=settings.limits.option_limits(),
            timing=settings.retransmit.build_policy(),
            admission=AdmissionLimits(),
            report=report,
            profiles=profiles,
        )

    server = MemoryServer(offer, broadcast=family.broadcast)
    server.port.broadcast = family.broadcast
    return server
