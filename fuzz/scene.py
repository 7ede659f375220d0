"""A server in memory over files in memory, and what it offers at different times."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from math import inf
from pathlib import Path

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from fuzz.places import place
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryNet, MemoryPort
from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.mounts import Mount, Mounts, one
from tftpd.access.mounts import root as root_of
from tftpd.access.paths import Name
from tftpd.access.policy import ReadPolicy, WritePolicy
from tftpd.access.profiles import Profile, ProfileMatch, Profiles
from tftpd.access.rewrite import NameRules
from tftpd.config.names import RewriteSection
from tftpd.net.port_pool import PortRange
from tftpd.net.rate_limit import BandwidthLimit
from tftpd.net.types import SocketAddress
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.result import TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.admission import AdmissionLimits
from tftpd.server.config import ServerConfig
from tftpd.server.listener import Listener
from tftpd.server.session_table import SessionTable
from tftpd.storage.dentry_cache import DentryCache
from tftpd.storage.negative_cache import NegativeCache
from tftpd.storage.quota import UsageTracker

FILES = {
    b"seven": b"1234567",
    b"kilo": bytes(range(256)) * 4,
    b"empty": b"",
    b"lines": b"one\ntwo\r\n\r" * 30,
    b"Upper": b"u" * 512,
    b"large": bytes(range(251)) * 132,
    b"changing": b"c" * 3000,
}
IN = b"in"  # takes new files
OVER = b"over"  # takes files again, up to its quota
CLIENT = "192.0.2.7"  # has files of its own
DUPLICATES = 1  # of a profile
QUOTA = 20_000  # octets
HERE: SocketAddress = (SERVER, WELL_KNOWN)

_RULE = RewriteSection(match="^/?old/", to="").rule("rewrite[0]")

_LONGEST = 10_000.0  # seconds until all is over, the longest timeouts that can be asked for
_MOST_TIMERS = 2000  # that are set at one time


class Wire(list[tuple[SocketAddress, SocketAddress | None, bytes]]):
    """What was sent, told to `hear` while it is sent."""

    hear = staticmethod(lambda source, to, datagram: None)

    def append(self, entry: tuple[SocketAddress, SocketAddress | None, bytes]) -> None:
        """It leaves."""
        super().append(entry)
        self.hear(*entry)


class Watched(Clock):
    """A clock on which no timer comes again and again while no time passes."""

    _at = -1.0
    _set = 0

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        """A timer is set."""
        self._at, self._set = self.rightNow, self._set + 1 if self._at == self.rightNow else 1
        assert self._set < _MOST_TIMERS, "timers without end"
        return super().callLater(delay, callable, *args, **kw)

    def waits(self, seconds: float) -> None:
        """So much time passes, each timer at its own."""
        end = self.rightNow + seconds
        while True:
            due = min((call.getTime() for call in self.calls), default=inf)
            if due > end:
                break
            # Not by a difference, which added again may be less.
            self.rightNow = max(due, self.rightNow)
            self.advance(0)
        self.rightNow = end


class Disk(DentryCache):
    """What the kernel knows of it at once: everything, or nothing while it is `cold`."""

    cold = False

    def knows(self, root: Path, name: Name, follows: bool = True) -> bool:
        """Whether nobody has to wait."""
        return not self.cold


@cache
def root() -> Path:
    """The directory that is served, with its files."""
    made = place() / "root"
    for directory in ("in", "over", f"own/{CLIENT}"):
        (made / directory).mkdir(parents=True, exist_ok=True)
    (made / "own" / CLIENT / "mine").write_bytes(b"m" * 700)
    for name in FILES:
        restore(name, made)
    return made


def restore(name: bytes, beneath: Path) -> None:
    """Have the file as it was."""
    (beneath / os.fsdecode(name)).write_bytes(FILES[name])


@dataclass
class Scene:
    """A listener and its sessions, their clock, wire, reports and files."""

    single_port: bool
    clock: Watched = field(default_factory=Watched)
    net: MemoryNet = field(default_factory=MemoryNet)
    sessions: SessionTable = field(default_factory=SessionTable)
    reports: list[TransferResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wire = Wire()
        self.net.sent = self.wire
        self.net.clock = self.clock
        self.disk = Disk()
        self.offers = self._offers()
        for offer in self.offers:
            offer.resolver.cache, offer.resolver.negative_cache = (
                self.disk,
                NegativeCache(self.disk),
            )
        self.listener = Listener(
            self.net.runtime, self.offers[0], self.sessions, single_port=self.single_port
        )
        self.port: MemoryPort = self.net.bind(self.listener, HERE)

    def reload(self, number: int, single_port: bool, ranged: bool) -> None:
        """Requests are answered by another offer from now on, in another mode."""
        self.listener.config = self.offers[number % len(self.offers)]
        self.listener.single_port = single_port
        self.listener.ports = PortRange(50000, 50003) if ranged else None

    def stored(self) -> dict[bytes, bytes]:
        """What was uploaded, by name, with what is not finished."""
        return {
            b"%b/%b" % (directory, os.fsencode(path.name)): path.read_bytes()
            for directory in (IN, OVER)
            for path in (root() / os.fsdecode(directory)).iterdir()
        }

    def ends(self) -> None:
        """All threads come back, and time passes until nothing is left to wait for."""
        self.net.hold_threads = False
        self.net.run_threads()
        self.clock.waits(_LONGEST)
        assert not len(self.sessions), "a session is left"
        assert not len(self.listener._lookups), "a request waits still"
        assert not self.port.sessions, "a guest of the port is left"
        assert list(self.net.ports) == [HERE], "a port is left"
        assert not self.clock.getDelayedCalls(), "a timer is left"

    def _offers(self) -> list[ServerConfig]:
        everyone = [
            Mount((), one(root()), read=ReadPolicy()),
            Mount((IN,), one(root() / "in"), read=ReadPolicy(), write=WritePolicy(max_size=4096)),
            Mount((OVER,), one(root() / "over"), write=WritePolicy(overwrite=True, quota=QUOTA)),
        ]
        plain = ServerConfig(
            Mounts(everyone),
            OptionLimits(),
            RetransmitPolicy(),
            AdmissionLimits(sessions=100),
            self.reports.append,
            usage_trackers={root() / "over": UsageTracker(root() / "over")},
        )
        ladder = FallbackChain(tuple(Fallback), ("utf-8", "latin-1"), ((b"boot",),))
        return [
            plain,
            replace(
                plain,
                mounts=Mounts(everyone, NameRules((_RULE,), ladder)),
                limits=OptionLimits(blksize=1024, windowsize=4, window_bytes=2048, rollover=1),
                timing=RetransmitPolicy(initial_interval=0.2, idle_timeout=5.0, dally=1.0),
                admission=AdmissionLimits(sessions=3, sessions_per_client=2, half_open=2),
                profiles=_profiles(),
            ),
            replace(
                plain,
                admission=AdmissionLimits(sessions=4, half_open=1, requests_per_second=2),
                bandwidth=BandwidthLimit(50_000.0),
                session_bandwidth=20_000,
            ),
            replace(plain, mounts=Mounts(everyone[:1])),
            replace(plain, mounts=Mounts([_own(), *everyone[1:]])),
        ]


def _own() -> Mount:
    """A mount whose first directory is the client's own."""
    return Mount((), (root_of(f"{root()}/own/{{ip}}"), *one(root())), read=ReadPolicy())


def _profiles() -> Profiles:
    return Profiles(
        [
            Profile(
                "doubled",
                ProfileMatch(mode=b"netascii"),
                duplicates=DUPLICATES,
                packet_interval=0.01,
            ),
            Profile("everyone", ProfileMatch(mode=b"octet"), broadcast=True, empty_tsize=False),
        ]
    )
