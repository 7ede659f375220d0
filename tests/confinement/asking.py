"""A server over a world, and all the octets that it answers."""

from collections.abc import Sequence
from typing import Any

from tests.confinement.world import PLANTED, World
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryServer
from tftpd.access.mounts import Mount, Mounts, one
from tftpd.access.policy import ReadPolicy, Symlinks, WritePolicy
from tftpd.access.rewrite import AS_ASKED, Naming
from tftpd.protocol.negotiation import Limits
from tftpd.protocol.packets import Ack, Data, Error, Oack, Rrq, Wrq, decode
from tftpd.protocol.retransmission import Timing
from tftpd.server.admission import Crowd
from tftpd.server.config import Offer

CLIENT = ("192.0.2.7", 2070)


def mount(world: World, symlinks: Symlinks = Symlinks.INSIDE, **policies: Any) -> Mount:
    """The root of a world, read and written by anyone."""
    read = policies.pop("read", ReadPolicy())
    write = policies.pop("write", WritePolicy(overwrite=True))
    roots = policies.pop("roots", one(world.root))
    return Mount((), roots, read=read, write=write, symlinks=symlinks, **policies)


def serving(*mounts: Mount, naming: Naming = AS_ASKED, **offered: Any) -> MemoryServer:
    def offer(report: Any) -> Offer:
        crowd = Crowd(sessions=100)
        return Offer(Mounts(mounts, naming), Limits(), Timing(), crowd, report, **offered)

    return MemoryServer(offer)


def says(server: MemoryServer, datagram: bytes, to: Any = (SERVER, WELL_KNOWN)) -> list[Any]:
    """What comes back for it: (the port, the octets)."""
    server.net.deliver(datagram, CLIENT, to)
    heard = [(source, octets) for source, _, octets in server.net.sent]
    server.net.sent.clear()
    return heard


def everything(server: MemoryServer, datagram: bytes, upload: bytes = PLANTED) -> list[bytes]:
    """All that is ever said to who sends `datagram` and then does as it is told."""
    heard = says(server, datagram)
    said = []
    while heard:
        source, octets = heard.pop(0)
        said.append(octets)
        packet = decode(octets)
        if isinstance(packet, Data):
            heard += says(server, Ack(packet.block).encode(), source)
        elif isinstance(packet, Oack) or packet == Ack(0):
            heard += says(server, Data(1, upload).encode(), source)
    return said


def reads(server: MemoryServer, names: Sequence[bytes]) -> list[list[bytes]]:
    """All that is said to who reads each of `names`."""
    return [everything(server, Rrq(name, b"octet").encode()) for name in names]


def writes(server: MemoryServer, names: Sequence[bytes]) -> list[list[bytes]]:
    """All that is said to who writes each of `names`."""
    return [everything(server, Wrq(name, b"octet").encode()) for name in names]


def contents(said: list[bytes]) -> bytes | None:
    """The file that came, None if it was refused by one ERROR; silence is a fault of ours."""
    packets = [decode(octets) for octets in said]
    if all(isinstance(packet, Error) for packet in packets):
        assert len(packets) == 1
        return None
    return b"".join(packet.payload for packet in packets if isinstance(packet, Data))
