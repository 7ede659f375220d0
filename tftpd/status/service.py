"""The status service: hears reports, and serves what they add up to."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.web.server import Request

from tftpd.config.sections import StatusSection as Keys
from tftpd.protocol.result import TransferResult
from tftpd.server.snapshot import Snapshot, SnapshotSource
from tftpd.status.boots import History
from tftpd.status.counters import TransferCounters
from tftpd.status.json_view import About, status
from tftpd.status.metrics import CONTENT_TYPE, exposition
from tftpd.status.web import JSON, Answer, Give, admits, site

_PAGE = Path(__file__).parent / "page"
_FILES = {
    b"/": ("index.html", b"text/html; charset=utf-8"),
    b"/style.css": ("style.css", b"text/css; charset=utf-8"),
    b"/script.js": ("script.js", b"text/javascript; charset=utf-8"),
    b"/icon.svg": ("icon.svg", b"image/svg+xml"),
}

# Seconds that a snapshot serves all who ask: many open pages cost no more than one.
_FRESH = 0.5

_SOCKET_MASK = 0o117  # leaves 0660


class StatusService:
    """One address or Unix socket. Call it with each report."""

    log = Logger()

    def __init__(self, reactor: Any, keys: Keys, path: Path | None = None) -> None:
        """`path` is that of the configuration file."""
        self._reactor = reactor
        self._keys = keys
        self._counts = TransferCounters()
        self._history = History()
        self._about = About(self._history.seconds(), None if path is None else str(path), ())
        self._state = "starting"
        self._serving: SnapshotSource | None = None
        self._port: IListeningPort | None = None
        self._taken_at = -_FRESH
        self._taken = Snapshot()
        self._waiting: list[Deferred[Snapshot]] = []

    def __call__(self, report: TransferResult) -> None:
        """A request has ended."""
        self._counts(report)
        self._history(report)

    def bind(self) -> None:
        """Take the TCP port, perhaps still as root; says why not and exits.

        A Unix socket waits for `start()`: it belongs to whom twistd becomes.
        """
        if self._keys.socket is None:
            self._listen(self._listen_tcp, f"{self._keys.address} port {self._keys.port}")

    def listens(self, addresses: Iterable[str]) -> None:
        """Requests are taken at these from now on."""
        self._about = replace(self._about, listeners=tuple(addresses))

    def knows(self, profiles: Iterable[str]) -> None:
        """Clients may have these profiles from now on."""
        self._counts.knows(profiles)

    def start(self, serving: SnapshotSource) -> None:
        """Answer for `serving` from now on."""
        self._serving = serving
        self._state = "serving"
        if self._keys.socket is not None:
            self._listen(self._listen_unix, self._keys.socket)
            self.log.info("status on {socket}", socket=self._keys.socket)
            return
        address = self._keys.address
        self.log.info("status on http://{host}/", host=_host(address, self._keys.port))
        if not ip_address(address).is_loopback:
            self.log.warn(
                "the status page on {address} asks for no password: whoever reaches it "
                "reads the names of files and clients",
                address=address,
            )

    def draining(self) -> None:
        """No new requests are taken: /health says 503 from now on."""
        self._state = "draining"

    def reloaded(self, fine: bool) -> None:
        """A reload was tried; `fine`: the new settings are in force."""
        self._counts.reloads[fine] += 1

    def stop(self) -> "Deferred[None]":
        """Close the port; fires when it is closed."""
        self._state = "draining"
        port, self._port = self._port, None
        return succeed(None) if port is None else maybeDeferred(_closed, port)

    def _listen(self, listen: Callable[[Any], IListeningPort], where: str) -> None:
        factory = site(self._answers(), self._admits)
        try:
            self._port = listen(factory)
        except (CannotListenError, OSError) as error:
            why = getattr(error, "socketError", error)
            self.log.critical(
                "cannot serve the status page on {where}: {why}",
                where=where,
                why=getattr(why, "strerror", None) or why,
            )
            raise SystemExit(1) from None

    def _listen_tcp(self, factory: Any) -> IListeningPort:
        keys = self._keys
        port: IListeningPort = self._reactor.listenTCP(keys.port, factory, interface=keys.address)
        return port

    def _listen_unix(self, factory: Any) -> IListeningPort:
        # The lock beside it tells a socket that is in use from what a crash left.
        before = os.umask(_SOCKET_MASK)
        try:
            port: IListeningPort = self._reactor.listenUNIX(
                self._keys.socket, factory, mode=0o660, wantPID=True
            )
        finally:
            os.umask(before)
        return port

    def _admits(self, header: str | None) -> bool:
        # Whoever opens a Unix socket is no browser that was led astray.
        return self._keys.socket is not None or admits(header, self._keys.names)

    def _answers(self) -> dict[bytes, Give]:
        answers: dict[bytes, Give] = {
            b"/health": self._health,
            b"/status": self._status,
            b"/metrics": self._metrics,
        }
        for path, (name, kind) in _FILES.items():
            answers[path] = partial(_given, Answer((_PAGE / name).read_bytes(), kind))
        return answers

    def _health(self, request: Request) -> Answer:
        if self._state == "serving":
            return Answer(b"ok\n")
        return Answer(f"{self._state}\n".encode(), code=503)

    def _status(self, request: Request) -> "Deferred[Answer]":
        since = _number(request.args.get(b"since", [b""])[0])

        def tell(snapshot: Snapshot) -> Answer:
            names = self._counts.names
            said = status(self._about, self._state, snapshot, self._history, names, since)
            return Answer(json.dumps(said, separators=(",", ":")).encode(), JSON)

        return self._snapshot().addCallback(tell)

    def _metrics(self, request: Request) -> "Deferred[Answer]":
        return self._snapshot().addCallback(
            lambda snapshot: Answer(exposition(self._counts, snapshot), CONTENT_TYPE)
        )

    def _snapshot(self) -> "Deferred[Snapshot]":
        """What runs now, asked for once by all who want it at the same time."""
        waiting: Deferred[Snapshot] = Deferred()
        if self._serving is None or self._history.seconds() < self._taken_at + _FRESH:
            waiting.callback(self._taken)
            return waiting
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            self._serving.snapshot().addBoth(self._took)
        return waiting

    def _took(self, taken: Any) -> None:
        if isinstance(taken, Snapshot):
            self._taken = taken
            self._taken_at = self._history.seconds()
            self._counts.discarded(taken.drops)
        everyone, self._waiting = self._waiting, []
        for waiting in everyone:
            waiting.callback(taken)


def _given(answer: Answer, request: Request) -> Answer:
    return answer


def _closed(port: IListeningPort) -> Any:
    return port.stopListening()


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) < 19 else 0


def _host(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
