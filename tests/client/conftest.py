"""A client in memory; the test plays the server."""

from functools import partial

import pytest

from tests.client.in_memory import TransferProtocol
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryNet, let_pass
from tftpd.client.settings import ClientSettings
from tftpd.client.transfer import get, put
from tftpd.protocol.packets import decode

TID = (SERVER, 3000)


class ClientDriver:
    """One transfer of a client: the packets that it sends and receives, and its result."""

    def __init__(self, net, progress=None, trace=None, **settings):
        self.net = net
        settings = ClientSettings(**{"blksize": 1468, "windowsize": 16} | settings)
        self._options = {"settings": settings, "progress": progress, "trace": trace}
        self.result = None  # of the Deferred, or its exception
        self.done = None

    def get(self, to, host=SERVER):
        """Start a download; return the packets sent to the server."""
        return self._start(partial(get, host, "f", to), host)

    def put(self, source, host=SERVER):
        """Start an upload; return the packets sent to the server."""
        return self._start(partial(put, host, "f", source), host)

    def receive(self, packet, source=TID):
        """Deliver a packet from `source`; return the packets that the client sends to it."""
        datagram = packet if isinstance(packet, bytes) else packet.encode()
        for port in list(self.net.ports):
            self.net.deliver(datagram, source, port)
        return self.sent_to(source)

    def advance(self, seconds):
        """Let time pass; return the packets sent to the server meanwhile."""
        let_pass(self.net.clock, seconds)
        return self.sent_to((SERVER, WELL_KNOWN)) + self.sent_to(TID)

    def sent_to(self, address):
        """Return the packets sent to an address since the last call."""
        self.net.clock.advance(0)
        sent = [entry for entry in self.net.sent if entry[1] == address]
        self.net.sent[:] = [entry for entry in self.net.sent if entry[1] != address]
        return [decode(datagram) for _, _, datagram in sent]

    def _start(self, prepare, host):
        prepare = partial(prepare, **self._options)
        self.done = TransferProtocol(self.net.runtime, prepare).result
        self.done.addBoth(self._finish)
        return self.sent_to((host, WELL_KNOWN))

    def _finish(self, result):
        self.result = getattr(result, "value", result)


@pytest.fixture
def net():
    """A network in memory; after the test, no port and no timer may be left."""
    net = MemoryNet()
    yield net
    net.run_threads()
    let_pass(net.clock, 100)
    assert (net.ports, net.clock.getDelayedCalls()) == ({}, [])
