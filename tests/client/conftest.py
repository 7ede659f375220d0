"""A client in memory, whose server is the test."""

import pytest
from twisted.internet.defer import Deferred

from tests.support.fakes import SERVER, WELL_KNOWN, MemoryNet
from tftpd.client.client import Client
from tftpd.client.settings import ClientSettings
from tftpd.protocol.packets import decode

TID = (SERVER, 3000)


class Talk:
    """One transfer of a client: what it sends, and what it is told."""

    def __init__(self, net, **settings):
        self.net = net
        settings = {"blksize": 1468, "windowsize": 16} | settings
        self.client = Client(net.runtime, ClientSettings(**settings))
        self.result = None  # of the coroutine, or its exception
        self.done = None

    def gets(self, to, host=SERVER, **how):
        return self._starts(self.client.get(host, "f", to, **how), host)

    def puts(self, source, host=SERVER, **how):
        return self._starts(self.client.put(host, "f", source, **how), host)

    def hears(self, packet, source=TID):
        """What the client answers, to `source`, when it is told `packet`."""
        octets = packet if isinstance(packet, bytes) else packet.encode()
        for port in list(self.net.ports):
            self.net.deliver(octets, source, port)
        return self.said(source)

    def waits(self, seconds):
        self.net.clock.pump([0.05] * round(seconds / 0.05))
        return self.said((SERVER, WELL_KNOWN)) + self.said(TID)

    def said(self, to):
        self.net.clock.advance(0)
        sent = [entry for entry in self.net.sent if entry[1] == to]
        self.net.sent[:] = [entry for entry in self.net.sent if entry[1] != to]
        return [decode(octets) for _, _, octets in sent]

    def _starts(self, coroutine, host):
        self.done = Deferred.fromCoroutine(coroutine)
        self.done.addBoth(self._ends)
        return self.said((host, WELL_KNOWN))

    def _ends(self, result):
        self.result = getattr(result, "value", result)


@pytest.fixture
def net():
    """Whatever a test does, the end of time finds no port and no timer."""
    net = MemoryNet()
    yield net
    net.run_threads()
    net.clock.pump([0.5] * 200)
    assert (net.ports, net.clock.getDelayedCalls()) == ({}, [])
