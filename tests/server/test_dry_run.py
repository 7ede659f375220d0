"""Dry runs: the reply is that of the listener."""

from dataclasses import replace

import pytest

from tests.support.fakes import MemoryServer
from tftpd.access.client import ClientIdentity
from tftpd.net.sockets import client_address
from tftpd.protocol.packets import Rrq, Wrq, decode
from tftpd.server.config import limit_upload_window
from tftpd.server.dry_run import dry_run

PEER = ("192.0.2.7", 2070)
OPTIONS = ((b"blksize", b"1000"), (b"windowsize", b"16"))


def _run(config, packet, max_window=None):
    limits = config.limits
    if max_window is not None and isinstance(packet, Wrq):
        limits = limit_upload_window(limits, max_window)
    client = ClientIdentity(client_address(PEER[0]))
    return [decode(dry_run(packet.encode(), client, config.resolver, limits, config.render).reply)]


@pytest.mark.parametrize("max_window", [10, 5000, 1 << 20])
@pytest.mark.parametrize(
    "packet", [Rrq(b"kilo", b"octet", OPTIONS), Wrq(b"in/x", b"octet", OPTIONS)]
)
def test_in_single_port_mode_the_window_is_that_of_the_listener(offer, packet, max_window):
    server = MemoryServer(offer, single_port=True)
    server.port.upload_window_budget = max_window
    assert _run(server.listener.config, packet, max_window) == server.client().request(packet)


@pytest.mark.parametrize(
    "packet",
    [
        Rrq(b"kilo", b"octet"),
        Rrq(b"kilo", b"netascii"),
        Rrq(b"empty", b"octet"),
        Rrq(b"missing", b"octet"),
        Rrq(b"kilo", b"mail"),
        Wrq(b"in/x", b"octet"),
        Wrq(b"outside", b"octet"),
    ],
)
def test_the_reply_is_the_first_packet_of_the_listener(offer, root, packet):
    (root / "empty").touch()
    server = MemoryServer(offer)
    assert _run(server.listener.config, packet) == server.client().request(packet)


@pytest.mark.parametrize(
    "packet", [Rrq(b"kilo", b"octet", OPTIONS), Wrq(b"in/x", b"octet", OPTIONS)]
)
def test_a_dry_run_changes_nothing_on_disk(offer, root, packet):
    config = offer(lambda result: None)
    before = sorted(root.rglob("*"))
    _run(replace(config), packet)
    assert sorted(root.rglob("*")) == before
