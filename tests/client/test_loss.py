"""The client and the server in one process, on a network that loses packets."""

from functools import partial
from itertools import combinations

import pytest

from tests.client.in_memory import TransferProtocol
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryServer, let_pass
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import ReadPolicy, WritePolicy
from tftpd.client.settings import ClientSettings
from tftpd.client.transfer import get, put
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.admission import AdmissionLimits
from tftpd.server.config import ServerConfig

HOST = "192.0.2.7"
CONTENT = bytes(range(256)) * 2
PACKETS = 12  # more than a transfer of six blocks has, with either window size
PATTERNS = [*combinations(range(PACKETS), 1), *combinations(range(PACKETS), 2)]


def run(root, prepare, local, lost, **settings):
    """Return the result of a transfer; the network loses the packets numbered `lost`."""
    mounts = Mounts([Mount((), (Root(root),), read=ReadPolicy(), write=WritePolicy())])
    server = MemoryServer(
        lambda result: ServerConfig(
            mounts, OptionLimits(), RetransmitPolicy(), AdmissionLimits(), result
        )
    )
    net = server.net
    settings = ClientSettings(blksize=100, **settings)
    ended, count = [], 0
    begin = partial(prepare, SERVER, "f", local, settings=settings)
    TransferProtocol(net.runtime, begin).result.addBoth(ended.append)
    for _ in range(3000):
        sent, net.sent[:] = list(net.sent), []
        for (host, port), to, datagram in sent:
            if count not in lost:
                from_client = host != SERVER
                source = (HOST, port) if from_client else (host, port)
                net.deliver(datagram, source, to if from_client else ("0.0.0.0", to[1]))
            count += 1
        net.clock.advance(0.01)
        if ended and not net.sent:
            break
    let_pass(net.clock, 90)  # a server whose last ACK was lost waits for its timeout
    assert list(net.ports) == [(SERVER, WELL_KNOWN)]
    return ended[0]


@pytest.mark.parametrize("windowsize", [1, 4])
def test_a_download_survives_every_loss_of_one_and_two_packets(tmp_path, windowsize):
    (tmp_path / "f").write_bytes(CONTENT)
    got = tmp_path / "got"
    for lost in PATTERNS:
        result = run(tmp_path, get, got, lost, windowsize=windowsize)
        assert result.outcome is Outcome.DONE, lost
        assert got.read_bytes() == CONTENT
        got.unlink()


@pytest.mark.parametrize("windowsize", [1, 4])
def test_an_upload_survives_every_loss_of_one_and_two_packets(tmp_path, windowsize):
    for lost in PATTERNS:
        result = run(tmp_path, put, CONTENT, lost, windowsize=windowsize)
        assert result.outcome is Outcome.DONE, lost
        (stored,) = tmp_path.iterdir()
        assert stored.read_bytes() == CONTENT
        stored.unlink()
