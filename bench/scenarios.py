"""The scenarios by their names: what the clients do, and over what line."""

from dataclasses import dataclass, replace
from enum import Enum

from bench.relay import Line

KIB, MIB = 1 << 10, 1 << 20


class Unit(Enum):
    """What a figure counts."""

    RATE = "MB/s"
    TRANSFERS = "transfers/s"
    SESSION = "KiB a session"
    STARTUP = "ms"

    @property
    def more_is_better(self) -> bool:
        """Whether a larger figure is the better one."""
        return self in (Unit.RATE, Unit.TRANSFERS)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`transfers` of a file of `size` octets by `clients` at once.

    With `line` they go through a relay. With `Unit.SESSION` the clients only
    begin, and the memory that they cost is measured.
    """

    name: str
    about: str
    size: int
    clients: int = 1
    transfers: int = 1
    blksize: int = 1468
    windowsize: int = 1
    upload: bool = False
    gather: bool = False
    unit: Unit = Unit.RATE
    line: Line | None = None
    limit: float = 30.0

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"f{self.size}"


# A gigabit network and its round trip, so that the relay itself, which takes
# some 10 us for a datagram, is not what is measured.
_NETWORK = Line(rate=100e6, queue=1000, delay=0.0001)


def _lossy(name: str, share: float) -> Scenario:
    line = replace(_NETWORK, drop_down=share, drop_up=share, seed=1)
    about = f"{share * 100:g} % of the packets are lost each way, windowsize 64"
    return Scenario(
        name, about, 4 * MIB, transfers=3, windowsize=64, gather=True, line=line, limit=20
    )


_BOTTLENECK = Line(rate=10e6, queue=64)

_SCENARIOS = [
    Scenario("lock512", "1 client, blksize 512", MIB, transfers=4, blksize=512),
    Scenario("lock1468", "1 client, blksize 1468", MIB, transfers=12),
    Scenario("lock1468x32", "32 clients, blksize 1468", MIB, clients=32, transfers=96),
    Scenario("lock65464", "1 client, blksize 65464", 32 * MIB, transfers=8, blksize=65464),
    Scenario("win16", "1 client, windowsize 16", 32 * MIB, transfers=4, windowsize=16),
    Scenario("win64", "1 client, windowsize 64", 32 * MIB, transfers=4, windowsize=64),
    Scenario(
        "win64g",
        "1 client with GRO, windowsize 64",
        32 * MIB,
        transfers=8,
        windowsize=64,
        gather=True,
    ),
    Scenario(
        "win64x32",
        "32 clients with GRO, windowsize 64",
        32 * MIB,
        clients=32,
        transfers=64,
        windowsize=64,
        gather=True,
    ),
    Scenario(
        "small", "16 clients, files of 4 KiB", 4 * KIB, 16, transfers=3000, unit=Unit.TRANSFERS
    ),
    Scenario("boot256", "256 clients x 1 MiB, blksize 1468", MIB, clients=256, transfers=256),
    Scenario("boot2000", "2,000 clients x 64 KiB, blksize 1468", 64 * KIB, 2000, transfers=2000),
    Scenario("idle", "memory of 1,000 clients that began", MIB, 1000, unit=Unit.SESSION),
    Scenario("up1468", "1 client uploads, blksize 1468", MIB, transfers=8, upload=True),
    Scenario(
        "upwin16",
        "1 client uploads, windowsize 16",
        32 * MIB,
        transfers=2,
        windowsize=16,
        upload=True,
    ),
    _lossy("loss0.1", 0.001),
    _lossy("loss1", 0.01),
    _lossy("loss5", 0.05),
    Scenario(
        "bottleneck",
        "1 client at 10 MB/s with a queue of 64 packets, windowsize 64",
        16 * MIB,
        windowsize=64,
        gather=True,
        line=_BOTTLENECK,
    ),
    Scenario(
        "bottleneckx4",
        "4 clients at 10 MB/s with a queue of 64 packets, windowsize 64",
        4 * MIB,
        clients=4,
        transfers=4,
        windowsize=64,
        gather=True,
        line=_BOTTLENECK,
    ),
]
SCENARIOS = {scenario.name: scenario for scenario in _SCENARIOS}

PROFILED = ("lock1468x32", "win64x32", "up1468")  # where a block's time is asked for
