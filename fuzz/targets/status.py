"""The status site: any HTTP, after reports of any requests, gets an answer that is sound."""

import json
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from fuzz.bounds import bounded
from fuzz.choices import Choices
from fuzz.faults import none_logged
from tftpd.config.sections import StatusSection as Keys
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.status.service import StatusService

_HOSTS = ("192.0.2.7", "192.0.2.8", "2001:db8::7", "fe80::7%eth0")
_NAMES = (b"pxelinux.0", b"pxelinux.cfg/01-00-00-5e-00-53-01", b"bootx64.efi", b"grub.cfg", b"x\n")
_PIECES = (
    *(b"GET /status", b"GET /metrics", b"GET /", b"HEAD /status", b"POST /", b"?since=", b"9" * 20),
    *(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: localhost\r\n", b"Host: [::1]:80\r\n", b"\r\n"),
    *(b"Host: ", b"evil.example\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"&", b"=", b"%00", b"%", b"since", b"-1", b"\xff", b":", b"[", b"]"),
)


class _Reactor(Clock):
    """Keeps the factory that would listen."""

    factory: Any = None

    def listenTCP(self, port: int, factory: IProtocolFactory, **how: Any) -> None:
        """Nobody listens."""
        self.factory = factory


class _Transport(StringTransport):
    """What an HTTP channel asks of a socket, too."""

    def loseConnection(self) -> None:
        """The channel is done."""
        super().loseConnection()

    def abortConnection(self) -> None:
        """The channel is done with it."""
        super().abortConnection()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no TCP."""


def check(octets: bytes) -> None:
    """Report requests, then ask: JSON is JSON, metrics are metrics, headers are one line each."""
    choices = Choices(octets)
    reactor = _Reactor()
    status = StatusService(reactor, Keys(port=8069))
    status.bind()
    with bounded(), none_logged():
        for _ in range(choices.number(12)):
            status(_report(choices))
        _ask(reactor, b"GET /status HTTP/1.0\r\n\r\n", _check_json)
        _ask(reactor, b"GET /metrics HTTP/1.0\r\n\r\n", _check_metrics)
        asked = b""
        while choices:
            asked += choices.one(_PIECES) if choices.flag() else choices.octets(20)
        _ask(reactor, asked, _check_any)


def _report(choices: Choices) -> TransferResult:
    return TransferResult(
        direction=choices.one(tuple(Direction)),
        peer=(choices.one(_HOSTS), choices.number(0xFFFF)),
        filename=choices.one(_NAMES) if choices.flag() else choices.octets(60),
        outcome=choices.one(tuple(Outcome)),
        bytes_transferred=choices.number(0xFFFFFFFF),
        seconds=choices.number(0xFFFF) / 100,
        mode=choices.one((None, *Mode)),
        code=choices.one((None, 0, 1, 99)),
        detail=choices.octets(20).decode("utf-8", "replace"),
        size=choices.one((None, 0, choices.number(0xFFFFFFFF))),
        timeouts=choices.number(255),
        rtt=choices.one((None, 0.0, 0.5)),
        profile=choices.one(("", "ipxe")),
    )


def _ask(reactor: _Reactor, octets: bytes, check_body: Any) -> None:
    channel = reactor.factory.buildProtocol(None)
    transport = _Transport()
    channel.makeConnection(transport)
    channel.dataReceived(octets)
    reactor.advance(0)
    answer = transport.value()
    channel.connectionLost(Failure(ConnectionError()))
    check_body(answer)


def _check_json(answer: bytes) -> None:
    said = json.loads(_body(answer))
    assert {"sessions", "ended", "clients"} <= set(said)


def _check_metrics(answer: bytes) -> None:
    assert list(text_string_to_metric_families(_body(answer).decode())), "no metric"


def _check_any(answer: bytes) -> None:
    assert not answer or answer.startswith(b"HTTP/1."), f"{answer[:20]!r} is no answer"
    assert b" 500 " not in answer[:20], "a fault of ours"


def _body(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.0 200 ", b"HTTP/1.1 200 ")), head
    return body
