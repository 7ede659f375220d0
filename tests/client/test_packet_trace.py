"""The packet trace of `tftpc -v`."""

import io
import time

from tests.client.conftest import TID, ClientDriver
from tests.support.fakes import SERVER, MemoryNet
from tftpd.client.commands import packet_printer
from tftpd.protocol.packets import Ack, Data, Oack


def test_every_datagram_is_printed_in_both_directions(tmp_path, monkeypatch):
    net, out = MemoryNet(), io.StringIO()
    monkeypatch.setattr(time, "monotonic", net.clock.seconds)
    client = ClientDriver(net, trace=packet_printer(out), blksize=8, windowsize=2)
    client.get(tmp_path / "f")
    net.clock.advance(0.25)
    client.receive(Oack(((b"blksize", b"8"), (b"windowsize", b"2"))))
    client.receive(Data(1, b"12345678"))
    client.receive(Data(2, b""), ("192.0.2.99", 5))
    client.receive(Data(2, b""))
    client.advance(10)
    assert out.getvalue().splitlines() == [
        f" 0.000000   to {SERVER}:69 RRQ f octet tsize=0 blksize=8 windowsize=2",
        f" 0.250000 from {SERVER}:{TID[1]} OACK blksize=8 windowsize=2",
        f" 0.250000   to {SERVER}:{TID[1]} ACK 0",
        f" 0.250000 from {SERVER}:{TID[1]} DATA 1, 8 bytes",
        " 0.250000 from 192.0.2.99:5 DATA 2, 0 bytes",
        " 0.250000   to 192.0.2.99:5 ERROR 5 Unknown transfer ID",
        f" 0.250000 from {SERVER}:{TID[1]} DATA 2, 0 bytes",
        f" 0.250000   to {SERVER}:{TID[1]} ACK 2",
    ]
    assert (net.ports, net.clock.getDelayedCalls()) == ({}, [])


def test_ipv6_addresses_are_printed_in_brackets():
    out = io.StringIO()
    packet_printer(out)(True, Ack(0).encode(), ("2001:db8::1", 69, 0, 0))
    assert out.getvalue() == " 0.000000   to [2001:db8::1]:69 ACK 0\n"
