"""Template variables that `tftpd ctl set` gives to single clients, kept across restarts."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from tftpd.access.variables import ClientValue, ClientVariables, is_mac_key
from tftpd.config.variables import (
    check_values,
    dump_client_variables,
    load_client_variables,
)
from tftpd.net.sockets import client_address
from tftpd.status.state_file import read_state, write_state

SINGLE_USE_SECONDS = 120.0
"""Time from the first template of a client to the end of its values for one boot.

A boot loader requests a file again, or a second template, until the machine has its kernel.
"""

MAX_CLIENTS = 10_000
MAX_CLIENT_BYTES = 3_000
"""All values of one client as JSON. A file with those of all clients can be read again."""

_log = Logger()


class VariableError(Exception):
    """A value cannot be set, or is not stored; the text has the reason."""


class Serving(Protocol):
    """The server of this process, or the workers."""

    on_single_use: Callable[[str], None]

    def set_variables(self, clients: Mapping[str, Mapping[str, ClientValue]]) -> None:
        """Replace the template variables of single clients."""


class VariableStore:
    """The values of all clients. A change goes to the servers and to the file."""

    def __init__(self, reactor: Any, serving: Serving, path: str | None) -> None:
        """Create the store; `load` fills it.

        Args:
            reactor: The reactor.
            serving: Gets the values.
            path: The file; None: the values end with the daemon.
        """
        self._reactor = reactor
        self._serving = serving
        self._path = None if path is None else Path(path)
        self._variables = ClientVariables()
        self._lock = DeferredLock()
        serving.on_single_use = self._end_single_use

    @property
    def is_persistent(self) -> bool:
        """True if the values survive a restart of the daemon."""
        return self._path is not None

    def load(self) -> None:
        """Read the file, and send its values to the servers. A damaged file is only logged."""
        if self._path is None:
            return
        try:
            clients = load_client_variables(read_state(self._path))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            _log.error(
                "{path} cannot be read, and no client has values of `tftpd ctl set`: {reason}",
                event="variables_unreadable",
                path=str(self._path),
                reason=str(error).partition("\n")[0],
            )
            return
        self._variables.update(clients)
        self._serving.set_variables(self._variables.clients)

    def set(
        self, client: str, values: dict[str, Any], seconds: float | None, once: bool
    ) -> "Deferred[None]":
        """Set values of a client. Fires when they are in the file.

        Args:
            client: IP or MAC address.
            values: The values by name.
            seconds: Time until they expire; None: they do not.
            once: True: they end soon after the next template of the client.

        Raises:
            VariableError: A name or a value is invalid, or there are too many.
        """
        key = parse_client(client)
        self._remove_expired()
        if key not in self._variables.clients and len(self._variables.clients) >= MAX_CLIENTS:
            raise VariableError(f"{MAX_CLIENTS} clients have values; remove some with unset")
        try:
            check_values(values)
        except ValueError as error:
            raise VariableError(str(error)) from None
        expires = None if seconds is None else time.time() + seconds
        new = {name: ClientValue(value, expires, once) for name, value in values.items()}
        all_values = {**self._variables.clients.get(key, {}), **new}
        if len(dump_client_variables({key: all_values})) > MAX_CLIENT_BYTES:
            raise VariableError(f"expected at most {MAX_CLIENT_BYTES} bytes for one client")
        return self._change(key, all_values)

    def unset(self, client: str, names: list[str]) -> "Deferred[int]":
        """Remove values of a client, all of them without names; fires with their number."""
        key = parse_client(client)
        self._remove_expired()
        values = self._variables.clients.get(key, {})
        kept = {name: each for name, each in values.items() if names and name not in names}
        number = len(values) - len(kept)
        changed = self._change(key, kept) if number else succeed(None)
        return changed.addCallback(lambda _: number)

    def describe(self) -> list[dict[str, Any]]:
        """Return the values, sorted by client and name, with the time at which they expire."""
        self._remove_expired()
        return [
            {
                "client": client,
                "name": name,
                "value": each.value,
                "expires": None if each.expires is None else _format_time(each.expires),
                "once": each.once,
            }
            for client, values in sorted(self._variables.clients.items())
            for name, each in sorted(values.items())
        ]

    def _remove_expired(self) -> None:
        """Forget what has expired. The servers ignore it already."""
        now = time.time()
        for client, values in list(self._variables.clients.items()):
            kept = {name: each for name, each in values.items() if each.is_valid(now)}
            if len(kept) < len(values):
                self._send(client, kept)

    def _end_single_use(self, client: str) -> None:
        """Let the values for one boot expire, since the client has read a template."""
        end = time.time() + SINGLE_USE_SECONDS
        values = dict(self._variables.clients.get(client, {}))
        used = [name for name, each in values.items() if each.once]
        if not used:
            return  # several templates were rendered at the same time
        for name in used:
            before = values[name]
            expires = end if before.expires is None else min(end, before.expires)
            values[name] = ClientValue(before.value, expires)
        _log.info(
            "variables of {client} for one boot were used and end in {seconds:g} s: {names}",
            event="variables_used",
            client=client,
            seconds=SINGLE_USE_SECONDS,
            names=", ".join(used),
        )
        # A failure is logged, and nobody waits for the result.
        self._change(client, values).addErrback(lambda failure: failure.trap(VariableError))

    def _change(self, client: str, values: Mapping[str, ClientValue]) -> "Deferred[None]":
        self._send(client, values)
        return self._lock.run(self._save)

    def _send(self, client: str, values: Mapping[str, ClientValue]) -> None:
        self._variables.update({client: values})
        self._serving.set_variables({client: values})

    def _save(self) -> "Deferred[None]":
        """Write the file; fails with `VariableError`."""
        if self._path is None:
            return succeed(None)
        path, data = self._path, dump_client_variables(self._variables.clients)

        def describe(failure: Failure) -> None:
            failure.trap(OSError, RuntimeError)  # RuntimeError: there is no thread
            reason = getattr(failure.value, "strerror", None) or str(failure.value)
            _log.error(
                "variables cannot be saved in {path}: {reason}",
                event="variables_not_saved",
                path=str(path),
                reason=reason,
            )
            raise VariableError(f"changed until the daemon stops: cannot write {path}: {reason}")

        threads = self._reactor.getThreadPool()
        written = deferToThreadPool(self._reactor, threads, write_state, path, data)
        return written.addErrback(describe)


def parse_client(text: object) -> str:
    """Return the key of a client in `ClientVariables`.

    Raises:
        VariableError: `text` is neither an IP address nor a MAC address.
    """
    if isinstance(text, str):
        mac = text.lower().replace("-", ":")
        if is_mac_key(mac):
            return mac
        try:
            return str(client_address(str(ip_address(text))))
        except ValueError:
            pass
    raise VariableError(f"expected a MAC or IP address such as 52:54:00:12:34:56, got {text!r:.60}")


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
