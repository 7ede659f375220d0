"""Send requests to a server of a `ServedTree`, and collect all its datagrams."""

from collections.abc import Sequence
from typing import Any

from tests.confinement.served_tree import PLANTED, ServedTree
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryServer
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import ReadPolicy, Symlinks, WritePolicy
from tftpd.access.rewrite import NO_RULES, NameRules
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq, decode
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.admission import AdmissionLimits
from tftpd.server.config import ServerConfig

CLIENT = ("192.0.2.7", 2070)


def mount_root(tree: ServedTree, symlinks: Symlinks = Symlinks.INSIDE, **policies: Any) -> Mount:
    """Return a mount of the root for reading and writing."""
    read = policies.pop("read", ReadPolicy())
    write = policies.pop("write", WritePolicy(overwrite=True))
    roots = policies.pop("roots", (Root(tree.root),))
    return Mount((), roots, read=read, write=write, symlinks=symlinks, **policies)


def create_server(*mounts: Mount, naming: NameRules = NO_RULES, **config: Any) -> MemoryServer:
    """Return a server in memory; `config` are further arguments of `ServerConfig`."""

    def make_config(report: Any) -> ServerConfig:
        admission = AdmissionLimits(sessions=100)
        return ServerConfig(
            Mounts(mounts, naming), OptionLimits(), RetransmitPolicy(), admission, report, **config
        )

    return MemoryServer(make_config)


def send(server: MemoryServer, datagram: bytes, to: Any = (SERVER, WELL_KNOWN)) -> list[Any]:
    """Send a datagram; return the replies as (port, data)."""
    server.net.deliver(datagram, CLIENT, to)
    replies = [(source, data) for source, _, data in server.net.sent]
    server.net.sent.clear()
    return replies


def run_transfer(server: MemoryServer, datagram: bytes, upload: bytes = PLANTED) -> list[bytes]:
    """Send a request, complete the transfer, and return all datagrams of the server."""
    replies = send(server, datagram)
    datagrams = []
    while replies:
        source, data = replies.pop(0)
        datagrams.append(data)
        packet = decode(data)
        if isinstance(packet, Data):
            replies += send(server, Ack(packet.block).encode(), source)
        elif isinstance(packet, Oack) or packet == Ack(0):
            replies += send(server, Data(1, upload).encode(), source)
    return datagrams


def read_all(server: MemoryServer, names: Sequence[bytes]) -> list[list[bytes]]:
    """Read each name; return the datagrams of the server for each."""
    return [run_transfer(server, Rrq(name, b"octet").encode()) for name in names]


def write_all(server: MemoryServer, names: Sequence[bytes]) -> list[list[bytes]]:
    """Write each name; return the datagrams of the server for each."""
    return [run_transfer(server, Wrq(name, b"octet").encode()) for name in names]


def received_file(datagrams: list[bytes]) -> bytes | None:
    """Return the content of a read, or None if the answer is exactly one ERROR."""
    packets = [decode(data) for data in datagrams]
    if all(isinstance(packet, ErrorPacket) for packet in packets):
        assert len(packets) == 1
        return None
    return b"".join(packet.payload for packet in packets if isinstance(packet, Data))
