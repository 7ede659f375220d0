"""The process that delivers events: `python -m tftpd.daemon.event_process`.

The daemon sends its configuration and the events over a pipe. Progress and log events go back over
another pipe. When the pipe of the daemon closes, running programs get some seconds, and
events that are not delivered stay in the queue on disk.
"""

import json
import os
import pickle
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import (
    FilteringLogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
)
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from tftpd.access.paths import escape_control_chars
from tftpd.config.events import EventSection
from tftpd.daemon.ipc import PING, Channel, EventProcessConfig, MessageQueue, encode, encode_event
from tftpd.events.hooks import Attempt, DeliveryState, Hook
from tftpd.events.programs import ProgramHook
from tftpd.events.queue import EventQueue, QueueEntry, QueueError
from tftpd.events.webhooks import WebhookHook
from tftpd.net.rate_limit import LogLimiter

# When the daemon stops: the time until programs get SIGTERM, and until this process ends. The
# daemon kills it after 5 s.
_GRACE_SECONDS = 2.0
_STOP_SECONDS = 4.5

_MIN_DELAY_SECONDS = 1.0
_MAX_DELAY_SECONDS = 300.0
_PURGE_INTERVAL_SECONDS = 60.0
_POLL_SECONDS = 0.05

# Events that arrive within this time are written together.
_COMMIT_SECONDS = 0.02

_log = Logger("tftpd.daemon.event_process")  # the module runs as __main__


class Delivery:
    """Deliveries of one hook, in order, with delays after failures.

    Attributes:
        section: The present settings.
    """

    def __init__(self, process: "EventProcess", section: EventSection) -> None:
        self.section = section
        self._process = process
        self._hook = _make_hook(section)
        self._running: Counter[Hook] = Counter()  # after a reload there may be two
        self._n_failures = 0  # since the last success
        self._paused_until = 0.0
        self._wakeup: IDelayedCall | None = None
        self._log_limiter = LogLimiter(time.monotonic)

    @property
    def is_running(self) -> bool:
        """True while an attempt runs."""
        return self._running.total() > 0

    def configure(self, section: EventSection) -> None:
        """Use these settings for the next deliveries, which begin without a delay."""
        if section != self.section:
            self.section, self._hook = section, _make_hook(section)
            self._n_failures, self._paused_until = 0, 0.0

    def stop(self) -> None:
        """Interrupt the attempts that run now."""
        for hook in +self._running:
            hook.stop()

    def cancel_wakeup(self) -> None:
        """Forget the next attempt, until `advance`."""
        if self._wakeup is not None and self._wakeup.active():
            self._wakeup.cancel()
        self._wakeup = None

    def advance(self) -> None:
        """Start the attempts that are due."""
        process, key, hook = self._process, self.section.key, self._hook
        self.cancel_wakeup()
        # After a failure, one attempt shows if the others may succeed.
        limit = 1 if self._n_failures else self.section.parallel
        while self._running.total() < limit:
            now = process.seconds()
            entry = process.queue.take(key, now) if now >= self._paused_until else None
            if entry is None:
                self._sleep(now)
                return
            self._running[hook] += 1
            done = process.run(partial(hook.deliver, json.loads(entry.body)))
            done.addBoth(self._on_attempt, entry, hook).addErrback(process.log_fault)

    def _sleep(self, now: float) -> None:
        due = self._process.queue.next_due(self.section.key)
        if due is not None:
            delay = max(due, self._paused_until) - now
            advance = partial(self._process.advance, self)
            self._wakeup = self._process.call_later(max(0.0, delay), advance)

    def _on_attempt(self, result: Attempt | Failure, entry: QueueEntry, hook: Hook) -> None:
        self._running[hook] -= 1
        self._running = +self._running
        if isinstance(result, Failure):
            self._process.log_fault(result)
            result = Attempt("internal error", again=True)
        if result.output:
            _log.info(
                "output of {hook}: {output}",
                event="event_output",
                hook=self.section.label,
                output=escape_control_chars(result.output),
            )
        if not result.problem:
            self._n_failures = 0
            self._process.end(entry, DeliveryState.DELIVERED)
        elif result.again and self._process.is_stopping:
            return  # the entry stays in the file
        else:
            self._on_failure(result, entry)
        self._process.advance(self)

    def _on_failure(self, result: Attempt, entry: QueueEntry) -> None:
        process = self._process
        now: float = process.seconds()
        expires = entry.created + process.max_age
        again = result.again and time.time() < expires
        text = "no further attempt"
        if again:
            self._n_failures += 1
            self._paused_until = now + _delay_after(self._n_failures)
            due = now + _delay_after(entry.attempts + 1)
            text = f"next attempt in {max(due, self._paused_until) - now:.0f} s"
            process.postpone(entry, due)
        else:
            process.end(entry, DeliveryState.FAILED)
        suffix = self._log_limiter.suffix()
        if suffix is not None:
            _log.warn(
                "event {name} was not delivered to {hook}: {problem}; {text}{suffix}",
                event="event_not_delivered",
                name=entry.event,
                hook=self.section.label,
                problem=escape_control_chars(result.problem),
                text=text,
                suffix=suffix,
            )


def _delay_after(n_failures: int) -> float:
    """Return the delay after a number of failures, in seconds: exponential, with jitter."""
    delay: float = _MIN_DELAY_SECONDS * 2 ** min(n_failures - 1, 16)
    return min(delay, _MAX_DELAY_SECONDS) * random.uniform(0.5, 1.0)


def _make_hook(section: EventSection) -> Hook:
    return ProgramHook(section) if section.exec is not None else WebhookHook(section)


@implementer(IHalfCloseableProtocol)
class EventProcess(Channel):
    """This process's end of the pipes, and its queue.

    Attributes:
        queue: The queue.
        is_stopping: No further delivery starts.
        max_age: Time for which a delivery is attempted, in seconds.
    """

    transport: StandardIO
    queue: EventQueue

    def __init__(self, reactor: Any) -> None:
        self.is_stopping = False
        self.max_age = 0.0
        self.seconds: Callable[[], float] = time.monotonic
        self.call_later: Callable[..., IDelayedCall] = reactor.callLater
        self._reactor = reactor
        self._messages = MessageQueue(self.sendString)
        self._deliveries: dict[str, Delivery] = {}
        self._retired: list[Delivery] = []
        self._arrived: list[dict[str, Any]] = []
        self._ended: Counter[tuple[str, str]] = Counter()
        self._commit_call: IDelayedCall | None = None
        self._is_configured = False
        self._threads = ThreadPool(0, 1, "events")
        self._threads.start()
        self._purge = LoopingCall(self._remove_expired)
        self._fault_limiter = LogLimiter(time.monotonic)

    def connectionMade(self) -> None:
        """Twisted: the pipes are open."""
        self.transport.registerProducer(self._messages, True)

    def stringReceived(self, string: bytes) -> None:
        """Twisted: the daemon has sent a message."""
        if string == PING:
            self._messages.push(encode("pong", None))
        elif string.startswith(b"{"):
            self._arrived.append(json.loads(string))
            self._commit_soon()
        else:
            self._configure(pickle.loads(string))

    def readConnectionLost(self) -> None:
        """Twisted: the daemon has closed its pipe and waits for the end."""
        self._stop()

    def writeConnectionLost(self) -> None:
        """Twisted: the daemon has ended."""
        self._stop()

    def connectionLost(self, reason: Any = None) -> None:
        """Twisted: both pipes are closed."""
        self._stop()

    def send_event(self, event: LogEvent) -> None:
        """Send a log event to the daemon."""
        self._messages.push(encode_event(event))

    def run(self, work: Callable[[], Attempt]) -> Any:
        """Run `work` in a thread; return a Deferred of its result."""
        return deferToThreadPool(self._reactor, self._threads, work)

    def advance(self, delivery: Delivery) -> None:
        """Start the deliveries of a hook that are due. A fault of the disk is logged."""
        try:
            if not self.is_stopping and self._deliveries.get(delivery.section.key) is delivery:
                delivery.advance()
        except QueueError:
            self.log_fault(Failure())
            self.call_later(_MIN_DELAY_SECONDS, self.advance, delivery)

    def end(self, entry: QueueEntry, state: DeliveryState) -> None:
        """Remove an entry, and count it."""
        self._ended[entry.event, state.value] += 1
        self._try(lambda: self.queue.remove(entry))
        self._commit_soon()

    def postpone(self, entry: QueueEntry, due: float) -> None:
        """Try an entry again at a time on the clock `seconds`."""
        self._try(lambda: self.queue.postpone(entry, due))

    def log_fault(self, failure: Failure) -> None:
        """Log a fault of the disk or an internal error, at most once per second."""
        suffix = self._fault_limiter.suffix()
        if suffix is None:
            return
        if failure.check(QueueError):
            message = "the queue of events cannot be used: {reason}{suffix}"
            reason = str(failure.value)
            _log.error(message, event="event_queue_failed", reason=reason, suffix=suffix)
        else:
            message = "internal error in the delivery of events{suffix}"
            _log.failure(message, failure, event="event_failed", suffix=suffix)

    def _configure(self, config: EventProcessConfig) -> None:
        if not self._is_configured:
            self._start(config)
            self._is_configured = True
        self._threads.adjustPoolsize(0, max(1, sum(each.parallel for each in config.events)))
        before, self._deliveries = self._deliveries, {}
        for section in config.events:
            delivery = before.pop(section.key, None) or Delivery(self, section)
            delivery.configure(section)
            self._deliveries[section.key] = delivery
        for delivery in before.values():
            delivery.cancel_wakeup()
        retired = (*self._retired, *before.values())
        self._retired = [delivery for delivery in retired if delivery.is_running]
        orphans = sum(n for key, n in self.queue.sizes.items() if key not in self._deliveries)
        if orphans:
            _log.warn(
                "{count} queued events belong to programs or webhooks that are not configured; "
                "they wait for max_age",
                event="event_hook_missing",
                count=orphans,
            )
        for delivery in self._deliveries.values():
            self.advance(delivery)
        self._commit_soon()

    def _start(self, config: EventProcessConfig) -> None:
        level = LogLevelFilterPredicate(LogLevel.lookupByName(config.log_level))
        # Any callable works; the annotation of Twisted is stricter.
        observer = FilteringLogObserver(self.send_event, [level])  # type: ignore[arg-type]
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
        self.max_age = config.queue.max_age
        self.queue = EventQueue(config.path, config.queue.max_events)
        if self.queue.problem:
            _log.error(
                "the queue of events starts empty: {reason}",
                event="event_queue_failed",
                reason=self.queue.problem,
            )
        self._purge.start(_PURGE_INTERVAL_SECONDS)

    def _commit_soon(self) -> None:
        if self._commit_call is None:
            self._commit_call = self.call_later(_COMMIT_SECONDS, self._commit)

    def _commit(self) -> None:
        """Write the events that have arrived, and report to the daemon."""
        self._commit_call = None
        arrived, self._arrived = self._arrived, []
        rows = [
            (event["id"], hook, event["event"], json.dumps(event))
            for each in arrived
            for event in (each["event"],)
            for hook in each["hooks"]
        ]
        try:
            dropped = self.queue.add(rows)
        except QueueError:
            self.log_fault(Failure())
            dropped = [name for _, _, name, _ in rows]
        self._ended.update((name, DeliveryState.DROPPED.value) for name in dropped)
        ended, self._ended = self._ended, Counter()
        progress = {
            "taken": [each["event"]["id"] for each in arrived],
            "ended": [[*key, n] for key, n in ended.items()],
            "queued": len(self.queue),
        }
        # Not by the queue of messages, which may lose some: the daemon waits for this one.
        self.sendString(encode("progress", progress))
        for hook in {hook for _, hook, _, _ in rows}:
            if hook in self._deliveries:
                self.advance(self._deliveries[hook])

    def _remove_expired(self) -> None:
        def remove() -> None:
            expired = self.queue.remove_older(time.time() - self.max_age)
            self._ended.update((name, DeliveryState.FAILED.value) for name in expired)
            if expired:
                _log.warn(
                    "{count} events were not delivered within {max_age:g} s, and are dropped",
                    event="events_expired",
                    count=len(expired),
                    max_age=self.max_age,
                )
                self._commit_soon()

        self._try(remove)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except QueueError:
            self.log_fault(Failure())

    def _stop(self) -> None:
        """Write what has arrived, give running deliveries some time, and end."""
        if self.is_stopping:
            return
        self.is_stopping = True
        if not self._is_configured:
            os._exit(0)
        self._commit()
        deliveries = [*self._deliveries.values(), *self._retired]
        ends_at = self.seconds() + _STOP_SECONDS
        for delivery in deliveries:
            self.call_later(_GRACE_SECONDS, delivery.stop)

        def end_when_idle() -> None:
            is_running = any(delivery.is_running for delivery in deliveries)
            if is_running and self.seconds() < ends_at:
                self.call_later(_POLL_SECONDS, end_when_idle)
                return
            self._commit()
            self._try(self.queue.close)
            self.transport.loseConnection()
            self.call_later(_POLL_SECONDS, os._exit, 0)  # a thread may hang

        end_when_idle()


def _catch_signals() -> None:
    """Ignore signals that systemd and a terminal send to all processes of the daemon.

    Handlers, unlike SIG_IGN, are not inherited by programs.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)


def main() -> None:
    """Deliver until the daemon at the other end of the standard streams ends."""
    from twisted.internet import reactor

    # The reactor's timers use the wall clock. If that is set back, they fire late.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    reactor.callWhenRunning(_catch_signals)  # later than the handlers of Twisted
    StandardIO(EventProcess(reactor))
    reactor.run()


if __name__ == "__main__":
    main()
