"""Events: what happened, the programs and webhooks that learn of it, and their process.

The process of the daemon makes the events from results, and hands them over to a process that has
the queue and runs the programs. A transfer never waits for either.
"""

import os
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from socket import gethostname
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tftpd.access import paths
from tftpd.access.policy import Networks, admits
from tftpd.config.events import EventSection
from tftpd.config.settings import Settings
from tftpd.daemon.access_log import shorten
from tftpd.daemon.ipc import EventProcessConfig, encode_for_events
from tftpd.daemon.supervisor import STOP_TIMEOUT_SECONDS, ChildProcess, ProcessSupervisor
from tftpd.events.hooks import DeliveryState, EventCounts
from tftpd.net.rate_limit import LogLimiter
from tftpd.net.sockets import client_address
from tftpd.origins.factory import take_variables
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult, TransferStart
from tftpd.status.json_view import result_to_json, start_to_json
from tftpd.status.uploads import format_time

SCHEMA = 1
"""Version of the JSON of events. A new field does not change it."""

_MAX_UNCONFIRMED = 1000  # events on their way to the queue; each has at most some KB

_FAILURES = (Outcome.TIMED_OUT, Outcome.ABORTED, Outcome.FAILED, Outcome.STOPPED)

# -P: nothing is imported from twistd's working directory.
_COMMAND = [sys.executable, "-P", "-m", "tftpd.daemon.event_process"]

_log = Logger()


@dataclass(frozen=True, slots=True)
class _EventRule:
    """A hook, and the events that it learns of.

    Attributes:
        hook: Key of the hook.
        directories: Paths as clients see them; None: all.
        clients: Networks of clients.
    """

    hook: str
    directories: tuple[paths.Name, ...] | None
    clients: Networks

    def matches(self, client: str | None, filename: bytes | None) -> bool:
        """Return True if the hook learns of an event about this client and name."""
        if client is not None and not admits(self.clients, client_address(client)):
            return False
        if self.directories is None:
            return True
        name = None if filename is None else _normalize(filename)
        return name is not None and any(name[: len(each)] == each for each in self.directories)


class EventSupervisor(ProcessSupervisor["EventChild"]):
    """Observer that makes events, and keeps the process that delivers them alive.

    An event stays here until the process has it in its queue. A successor gets it again.

    Attributes:
        counts: Figures for the metrics.
    """

    kind = "events"

    def __init__(self, reactor: Any) -> None:
        """Create the supervisor; `configure` starts the process."""
        super().__init__(reactor, "the process that delivers events")
        self.counts = EventCounts()
        self._rules: dict[str, list[_EventRule]] = {}
        self._node = ""
        self._unconfirmed: dict[str, bytes] = {}
        self._drop_limiter = LogLimiter(time.monotonic)

    def __call__(self, result: TransferResult) -> None:
        """Make an event of a result, if a hook learns of it."""
        name = _name_of(result)
        if name in self._rules:
            file = result.served_name or result.filename

            def fields() -> dict[str, Any]:
                values = result_to_json(result, shorten) | {"size": result.size}
                values["resolution_steps"] = ", ".join(result.resolution_steps)
                if name == "upload_stored":
                    path = result.stored_path
                    values["path"] = None if path is None else os.fsdecode(path)
                return values

            self.emit(name, result.peer[0], file, fields)

    def on_start(self, start: TransferStart) -> None:
        """Make an event of the start of a transfer."""
        file = start.served_name or start.filename
        self.emit("transfer_started", start.peer[0], file, lambda: start_to_json(start, shorten))

    def on_verdict(self, client: str, fields: dict[str, Any]) -> None:
        """Make an event of another verdict about the boot of a client."""
        self.emit("boot_verdict_changed", client, None, lambda: fields)

    def on_device(self, name: str, fields: dict[str, Any]) -> None:
        """Make an event of a device that has become overdue, or has recovered."""
        self.emit(name, None, None, lambda: fields)

    def emit(
        self,
        name: str,
        client: str | None,
        filename: bytes | None,
        fields: Callable[[], dict[str, Any]],
    ) -> None:
        """Hand over an event to the hooks that learn of it.

        Args:
            name: Name of the event.
            client: Address of the client; None: the event is not about a request.
            filename: Name of the file as clients see it; None: the event is not about a file.
            fields: Returns the values of the event; called if a hook matches.
        """
        rules = self._rules.get(name, ())
        hooks = [rule.hook for rule in rules if rule.matches(client, filename)]
        if not hooks:
            return
        if len(self._unconfirmed) >= _MAX_UNCONFIRMED:
            self._drop(name, len(hooks))
            return
        identity = str(uuid.uuid4())
        head = {"schema": SCHEMA, "id": identity, "event": name}
        event = head | {"time": format_time(time.time()), "node": self._node} | fields()
        message = encode_for_events(hooks, event)
        self._unconfirmed[identity] = message
        if self.process is not None:
            self.process.sendString(message)

    def configure(self, settings: Settings) -> None:
        """Use the hooks of these settings from now on."""
        self._node = settings.node or gethostname()
        rules: dict[str, list[_EventRule]] = {}
        for section in settings.events:
            for name in section.event:
                rules.setdefault(name, []).append(_make_rule(section))
        self._rules = rules
        for key in product(rules, (state.value for state in DeliveryState)):
            self.counts.ended[key] += 0  # `rate()` needs a start at 0
        queue = settings.event_queue
        config = EventProcessConfig(settings.events, queue, queue.path, settings.log.level)
        self.send_config(config)

    @property
    def has_verdicts(self) -> bool:
        """True if a hook learns of verdicts about boots."""
        return "boot_verdict_changed" in self._rules

    def stop(self) -> "Deferred[None]":
        """End the process. Fires when it has ended; programs that run get some seconds."""
        if self.process is not None:
            self.process.transport.closeStdin()
        return self.await_end(STOP_TIMEOUT_SECONDS).addCallback(self._log_loss)

    def _log_loss(self, _: None) -> None:
        if self._unconfirmed:
            _log.error(
                "{count} events are lost: the process that delivers them was not ready",
                event="events_lost",
                count=len(self._unconfirmed),
            )

    def spawn(self) -> "EventChild":
        """Start and configure the process; see `ProcessSupervisor.spawn`."""
        process = EventChild(self)
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
        take_variables(environment)  # programs get no credentials of origins
        self._reactor.spawnProcess(process, _COMMAND[0], _COMMAND, env=environment)
        process.sendString(self._config)
        for message in self._unconfirmed.values():
            process.sendString(message)
        return process

    def on_progress(self, progress: dict[str, Any]) -> None:
        """Forget the events that are in the queue, and count those that have ended."""
        for identity in progress["taken"]:
            self._unconfirmed.pop(identity, None)
        self.counts.queued = progress["queued"]
        for name, state, number in progress["ended"]:
            if state == DeliveryState.DROPPED.value:
                self._drop(name, number)
            else:
                self.counts.ended[name, state] += number

    def _drop(self, name: str, number: int) -> None:
        self.counts.ended[name, DeliveryState.DROPPED.value] += number
        suffix = self._drop_limiter.suffix()
        if suffix is not None:
            _log.warn(
                "event {name} dropped: the queue of events is full{suffix}",
                event="event_dropped",
                name=name,
                suffix=suffix,
            )


class EventChild(ChildProcess):
    """Process protocol of the process that delivers events."""

    namespace = "tftpd.daemon.event_process"
    _supervisor: EventSupervisor

    def messageReceived(self, kind: str, value: Any) -> None:
        """Handle the progress of the queue."""
        if kind == "progress":
            self._supervisor.on_progress(value)


def _make_rule(section: EventSection) -> _EventRule:
    directories = None if section.directories is None else tuple(section.directories)
    return _EventRule(section.key, directories, section.clients)


def _name_of(result: TransferResult) -> str:
    """Return the name of the event of a result; empty if it has none."""
    if result.outcome is Outcome.REFUSED:
        return "request_refused"
    if result.outcome in _FAILURES:
        return "transfer_failed"
    if result.direction is Direction.WRITE:
        return "upload_stored" if result.outcome is Outcome.DONE else ""
    return "read_done" if result.outcome in (Outcome.DONE, Outcome.UNCONFIRMED) else ""


def _normalize(filename: bytes) -> paths.Name | None:
    """Return the components of a name without `..`; None if it is not a name."""
    components: list[bytes] = []
    try:
        for component in paths.split_name(filename):
            if component == paths.PARENT:
                components.pop()
            else:
                components.append(component)
    except (RequestRefused, IndexError):
        return None
    return tuple(components)
