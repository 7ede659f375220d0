"""Scenarios by name: the load of the clients, and the link between them and the server."""

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from bench.clients import Job
from bench.servers import HOST
from tests.support.relay import Link

KIB, MIB = 1 << 10, 1 << 20
_BLKSIZE = 1468  # fills an Ethernet frame
_TMPFS, _DISK = "/dev/shm", "/var/tmp"


class Unit(Enum):
    """Unit of a result."""

    RATE = "MB/s"
    TRANSFERS = "transfers/s"
    SESSION_MEMORY = "KiB/session"
    STARTUP = "ms"

    @property
    def more_is_better(self) -> bool:
        """Return True if a larger result is better."""
        return self in (Unit.RATE, Unit.TRANSFERS)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Transfers of one file by a number of clients.

    Attributes:
        size: Size of the file in bytes.
        load: Options, clients and number of transfers.
        unit: Unit of the result. With SESSION_MEMORY the clients stop after the first block.
        link: Link to the server; None for plain loopback.
        parent: Directory for the root of the server.
    """

    size: int
    load: Job
    unit: Unit = Unit.RATE
    link: Link | None = None
    parent: str = _DISK

    @property
    def file(self) -> str:
        """Name of the file."""
        return f"f{self.size}"

    def job(self, port: int, root: Path) -> Job:
        """Return the job for a server at `port` that serves `root`."""
        reference = str(root / self.file)
        return replace(self.load, host=HOST, port=port, name=self.file, reference=reference)

    def describe(self) -> str:
        """Return the parameters in words. The block size is 1468 bytes if it is not given."""
        load, link = self.load, self.link
        size = f"{self.size // MIB} MiB" if self.size >= MIB else f"{self.size // KIB} KiB"
        text = "1 client" if load.clients == 1 else f"{load.clients:,} clients"
        text += f", {'write' if load.upload else 'read'} {size}"
        text += f", blksize {load.blksize}" if load.blksize != _BLKSIZE else ""
        text += f", windowsize {load.windowsize}" if load.windowsize > 1 else ""
        text += " with GRO" if load.gro else ""
        text += ", each with its own address" if load.spread else ""
        text += f", ACKs {load.delay * 1e6:.0f} us late" if load.delay else ""
        if link is not None and link.rate is not None:
            loss, rate = f"loss of {link.loss_down:.1%}", f"{link.rate / 1e6:.0f} MB/s"
            text += f", {loss}" if link.loss_down else f", {rate} link with a queue of {link.queue}"
        return text


def _load(transfers: int, **options: Any) -> Job:
    return Job(transfers=transfers, **{"blksize": _BLKSIZE, **options})


def _lossy(loss: float) -> Scenario:
    # 100 MB/s and 0.1 ms are near a gigabit network. The relay takes about 10 us per datagram,
    # so a faster link would measure the relay itself.
    link = Link(loss, loss, rate=100e6, queue=1000, delay=0.0001, seed=1)
    return Scenario(4 * MIB, _load(3, **_WIN64, limit=40), link=link)


_WIN64 = {"windowsize": 64, "gro": True}
_UP1468, _UPWIN16 = _load(8, upload=True), _load(2, upload=True, windowsize=16)
_BOTTLENECK = Link(rate=10e6, queue=64)

SCENARIOS = {
    "lock512": Scenario(MIB, _load(4, blksize=512)),
    "lock1468": Scenario(MIB, _load(12)),
    "lock1468rtt": Scenario(MIB, _load(6, delay=200e-6)),
    "lock1468x32": Scenario(MIB, _load(96, clients=32)),
    "lock65464": Scenario(32 * MIB, _load(8, blksize=65464)),
    "win16": Scenario(32 * MIB, _load(4, windowsize=16)),
    "win64": Scenario(32 * MIB, _load(4, windowsize=64)),
    "win64g": Scenario(32 * MIB, _load(8, **_WIN64)),
    "win64x32": Scenario(32 * MIB, _load(64, clients=32, **_WIN64)),
    "small": Scenario(4 * KIB, _load(3000, clients=16), unit=Unit.TRANSFERS),
    "boot256": Scenario(MIB, _load(512, clients=256)),
    "boot2000": Scenario(64 * KIB, _load(6000, clients=2000)),
    "boot2000s": Scenario(64 * KIB, _load(6000, clients=2000, spread=True)),
    "idle": Scenario(MIB, _load(1000, clients=1000), unit=Unit.SESSION_MEMORY),
    "up1468": Scenario(MIB, _UP1468, parent=_TMPFS),
    "up1468disk": Scenario(MIB, _UP1468),
    "upwin16": Scenario(32 * MIB, _UPWIN16, parent=_TMPFS),
    "upwin16disk": Scenario(32 * MIB, _UPWIN16),
    "loss0.1": _lossy(0.001),
    "loss1": _lossy(0.01),
    "loss5": _lossy(0.05),
    "bottleneck": Scenario(16 * MIB, _load(1, **_WIN64), link=_BOTTLENECK),
    "bottleneckx4": Scenario(4 * MIB, _load(4, clients=4, **_WIN64), link=_BOTTLENECK),
}
