"""Send requests to a server for a world and collect all its datagrams."""

from collections.abc import Sequence
from typing import Any

from tests.confinement.world import PLANTED, World
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryServer
from tftpd.access.mounts import Mount, Mounts, single_root
from tftpd.access.policy import ReadPolicy, Symlinks, WritePolicy
from tftpd.access.rewrite import NO_RULES, NameRules
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq, decode
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.admission import AdmissionLimits
from tftpd.server.config import ServerConfig

CLIENT = ("192.0.2.7", 2070)


def mount(world: World, symlinks: Symlinks = Symlinks.INSIDE, **policies: Any) -> Mount:
    """Mount the root of a world for reading and writing."""
    read = policies.pop("read", ReadPolicy())
    write = policies.pop("write", WritePolicy(overwrite=True))
    roots = policies.pop("roots", single_root(world.root))
    return Mount((), roots, read=read, write=write, symlinks=symlinks, **policies)


def serving(*mounts: Mount, naming: NameRules = NO_RULES, **offered: Any) -> MemoryServer:
    def offer(report: Any) -> ServerConfig:
        admission = AdmissionLimits(sessions=100)
        return ServerConfig(
            Mounts(mounts, naming), OptionLimits(), RetransmitPolicy(), admission, report, **offered
        )

    return MemoryServer(offer)


def says(server: MemoryServer, datagram: bytes, to: Any = (SERVER, WELL_KNOWN)) -> list[Any]:
    """Send a datagram; return the replies as (port, data)."""
    server.net.deliver(datagram, CLIENT, to)
    heard = [(source, octets) for source, _, octets in server.net.sent]
    server.net.sent.clear()
    return heard


def everything(server: MemoryServer, datagram: bytes, upload: bytes = PLANTED) -> list[bytes]:
    """Send `datagram`, complete the transfer, and return all datagrams of the server."""
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
    """Read each of `names`; return the datagrams of the server."""
    return [everything(server, Rrq(name, b"octet").encode()) for name in names]


def writes(server: MemoryServer, names: Sequence[bytes]) -> list[list[bytes]]:
    """Write each of `names`; return the datagrams of the server."""
    return [everything(server, Wrq(name, b"octet").encode()) for name in names]


def contents(said: list[bytes]) -> bytes | None:
    """Return the received file, or None after exactly one ERROR packet."""
    packets = [decode(octets) for octets in said]
    if all(isinstance(packet, ErrorPacket) for packet in packets):
        assert len(packets) == 1
        return None
    return b"".join(packet.payload for packet in packets if isinstance(packet, Data))
