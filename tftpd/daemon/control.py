"""Control socket: commands of `tftpd ctl` for a daemon that runs.

A connection has one request and one answer, each a line of JSON.
"""

import json
import os
import signal
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from tftpd.daemon.client_variables import VariableError, VariableStore, parse_client
from tftpd.server.snapshot import Snapshot, SnapshotSource
from tftpd.status.json_view import running_to_json

MAX_REQUEST_BYTES = 4096
MAX_SECONDS = 366 * 86_400.0  # until a variable expires

_SOCKET_MODE = 0o660
_MAX_CONNECTIONS = 16
_MAX_SECONDS = 60.0  # of a connection; a reload may wait for a file system

_log = Logger()


class RequestError(Exception):
    """A request cannot be fulfilled; the text has the reason."""


class TransferEnder(Protocol):
    """The sessions: of the server of this process, or of all workers."""

    def end(self, host: str, port: int | None) -> "Deferred[int]":
        """End the transfers of a client, or the one from a port; fires with their number."""


class ControlServer:
    """Answers the commands on a Unix socket."""

    def __init__(
        self,
        reactor: Any,
        path: str,
        serving: "SnapshotSource | TransferEnder",
        variables: VariableStore,
        reload: "Callable[[], Deferred[list[str]]]",
        take_snapshot: "Callable[[], Deferred[Snapshot]] | None",
    ) -> None:
        """Create the server; `start` opens the socket.

        Args:
            reactor: The reactor.
            path: Path of the socket.
            serving: The sessions.
            variables: The template variables of single clients.
            reload: Reloads the configuration; fires with its problems.
            take_snapshot: Returns a snapshot, if another part of the daemon counts what each one
                has; None: the sessions are asked.
        """
        self._reactor = reactor
        self._path = path
        self._serving: Any = serving
        self._variables = variables
        self._reload = reload
        self._take_snapshot = take_snapshot or self._ask_for_snapshot
        self._lock = DeferredLock()
        self._port: Any = None
        self._commands: Mapping[str, Callable[[dict[str, Any]], Any]] = {
            "list": self._list,
            "end": self._end,
            "reload": self._reload_configuration,
            "drain": lambda request: {},
            "set": self._set,
            "unset": self._unset,
            "variables": self._list_variables,
        }
        self.connections = 0

    def start(self) -> None:
        """Open the socket. Exit if that fails."""
        factory = _ControlFactory(self)
        try:
            # Twisted sets the mode between bind and listen, so nobody can connect before that.
            # wantPID: a lock file tells a socket in use from one that a crash has left.
            listen = self._reactor.listenUNIX
            self._port = listen(self._path, factory, mode=_SOCKET_MODE, wantPID=True)
        except (CannotListenError, OSError) as error:
            reason = getattr(error, "socketError", error)
            _log.critical(
                "cannot open the control socket {path}: {reason}",
                event="control_bind_failed",
                path=self._path,
                reason=getattr(reason, "strerror", None) or str(reason),
            )
            raise SystemExit(1) from None
        _log.info("control socket {path}", event="control_listening", path=self._path)

    def stop(self) -> "Deferred[None]":
        """Close the socket."""
        return succeed(None) if self._port is None else maybeDeferred(self._port.stopListening)

    def answer(self, line: bytes) -> "Deferred[dict[str, Any]]":
        """Return the answer to a request; its key `error` has the reason of a failure."""

        def run() -> Any:
            request = _parse(line)
            command = self._commands.get(request["command"])
            if command is None:
                raise RequestError(f"unknown command, got {request['command']!r:.50}")
            _log.info(
                "control command: {command}", event="control_command", command=request["command"]
            )
            return command(request)

        def describe(failure: Failure) -> dict[str, Any]:
            if failure.check(RequestError, VariableError):
                return {"error": str(failure.value)}
            _log.failure("internal error in a control command", failure, event="control_failed")
            return {"error": "internal error: see the log"}

        return maybeDeferred(run).addErrback(describe)

    def after_answer(self, line: bytes) -> None:
        """Begin what a request wants after its answer: `drain` ends the daemon."""
        if _parse(line)["command"] == "drain":
            os.kill(os.getpid(), signal.SIGTERM)

    def _ask_for_snapshot(self) -> "Deferred[Snapshot]":
        return self._lock.run(self._serving.snapshot)

    def _list(self, request: dict[str, Any]) -> "Deferred[dict[str, Any]]":
        def describe(snapshot: Snapshot) -> dict[str, Any]:
            return {
                "transfers": [running_to_json(each) for each in snapshot.running],
                "count": sum(sum(states.values()) for states in snapshot.sessions.values()),
                "silent_workers": [each.number for each in snapshot.workers if not each.answers],
            }

        return self._take_snapshot().addCallback(describe)

    def _end(self, request: dict[str, Any]) -> "Deferred[dict[str, Any]]":
        client, port = request.get("client"), request.get("port")
        try:
            host = str(ip_address(client)) if isinstance(client, str) else ""
        except ValueError:
            host = ""
        if not host or not (port is None or type(port) is int):
            raise RequestError("expected the address of a client")
        ended: Deferred[int] = self._serving.end(host, port)
        return ended.addCallback(lambda number: {"ended": number})

    def _set(self, request: dict[str, Any]) -> "Deferred[dict[str, Any]]":
        seconds = request.get("seconds")
        if not (seconds is None or (type(seconds) in (int, float) and 0 < seconds <= MAX_SECONDS)):
            raise RequestError(f"expected a time of at most {MAX_SECONDS:.0f} seconds")
        values, once = request.get("values"), request.get("once") is True
        client = parse_client(request.get("client"))
        stored = self._variables.set(client, values, seconds, once)  # type: ignore[arg-type]
        _log.info(
            "variables of {client} set: {names}",
            event="variables_set",
            client=client,
            names=", ".join(values or ()),
        )
        is_persistent = self._variables.is_persistent
        return stored.addCallback(lambda _: {"client": client, "persistent": is_persistent})

    def _unset(self, request: dict[str, Any]) -> "Deferred[dict[str, Any]]":
        names = request.get("names", [])
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise RequestError("expected a list of names")
        removed = self._variables.unset(parse_client(request.get("client")), names)
        return removed.addCallback(lambda number: {"removed": number})

    def _list_variables(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"variables": self._variables.describe()}

    def _reload_configuration(self, request: dict[str, Any]) -> "Deferred[dict[str, Any]]":
        return self._reload().addCallback(lambda problems: {"problems": problems})


class _ControlFactory(Factory):
    noisy = False

    def __init__(self, server: ControlServer) -> None:
        self.server = server

    def buildProtocol(self, addr: Any) -> "_ControlConnection | None":
        """Twisted: a program has connected. None: the connection is closed."""
        if self.server.connections >= _MAX_CONNECTIONS:
            return None
        return _ControlConnection(self.server)


class _ControlConnection(LineOnlyReceiver, TimeoutMixin):
    """A connection of `tftpd ctl`."""

    delimiter = b"\n"
    MAX_LENGTH = MAX_REQUEST_BYTES
    transport: Any

    def __init__(self, server: ControlServer) -> None:
        self._server = server
        self._request: bytes | None = None

    def connectionMade(self) -> None:
        """Twisted: the connection is open."""
        self._server.connections += 1
        self.setTimeout(_MAX_SECONDS)

    def lineReceived(self, line: bytes) -> None:
        """Twisted: a request has arrived; a connection has only one."""
        if self._request is None:
            self._request = line
            self._server.answer(line).addCallback(self._send, line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the connection has ended."""
        self._server.connections -= 1
        self.setTimeout(None)

    def _send(self, answer: dict[str, Any], line: bytes) -> None:
        self.transport.write(json.dumps(answer).encode() + b"\n")
        self.transport.loseConnection()
        if "error" not in answer:
            self._server.after_answer(line)


def _parse(line: bytes) -> dict[str, Any]:
    """Return a request; raise `RequestError` if it is malformed."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        raise RequestError("malformed request")
    return request
