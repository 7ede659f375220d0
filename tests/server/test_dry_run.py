"""Dry runs: the reply is that of the listener."""

from dataclasses import replace

import pytest

from tests.support.fakes import MemoryServer
from tftpd.access.client import ClientIdentity
from tftpd.net.sockets import client_address
from tftpd.protocol.packets import Rrq, Wrq, decode
from tftpd.server.dry_run import dry_run

PEER = ("192.0.2.7", 2070)
OPTIONS = ((b"blksize", b"1000"), (b"windowsize", b"16"))


def _run(config, packet, max_window=None):
    client = ClientIdentity(client_address(PEER[0]))
    result = dry_run(
        packet.encode(),
        PEER,
        client,
        config.resolver,
        config.limits,
        config.timing,
        max_upload_window_bytes=max_window,
    )
    return [decode(result.reply)]


@pytest.mark.parametrize("max_window", [10, 5000, 1 << 20])
@pytest.mark.parametrize(
    "packet", [Rrq(b"kilo", b"octet", OPTIONS), Wrq(b"in/x", b"octet", OPTIONS)]
)
def test_in_single_port_mode_the_window_is_that_of_the_listener(offer, packet, max_window):
    server = MemoryServer(offer, single_port=True)
    server.port.upload_window_budget = max_window
    assert _run(server.listener.config, packet, max_window) == server.client().request(packet)


@pytest.mark.parametrize(
    "packet", [Rrq(b"kilo", b"octet", OPTIONS), Wrq(b"in/x", b"octet", OPTIONS)]
)
def test_a_dry_run_changes_nothing_on_disk(offer, root, packet):
    config = offer(lambda result: None)
    before = sorted(root.rglob("*"))
    _run(replace(config), packet)
    assert sorted(root.rglob("*")) == before
