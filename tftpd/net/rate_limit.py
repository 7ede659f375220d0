"""Limits on bandwidth, on requests, on repeated actions and log lines.

`BandwidthLimit` and `TrafficShaper` limit transfers. Bytes count when they are sent or
received; then the transfer pauses until the rate allows the next ones. A window is
sent as a whole, so a limit holds on average over some windows.

`ClientRateLimiter` limits the requests of each client.

`RequestThrottle` limits requests while transfers are active. A request costs as much
CPU time as about 20 blocks, and more requests may arrive than the server can answer.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import inf
from time import monotonic
from typing import Any, TypeVar

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IDelayedCall

from tftpd.net.interfaces import Clock

_MAX_CREDIT_SECONDS = 0.1  # unused bandwidth that may be used after a pause


class BandwidthLimit:
    """Number of bytes per second, shared by one or more transfers.

    Attributes:
        bytes_per_second: The limit. It may change at any time.
        until: Time at which all bytes sent so far fit the limit.
    """

    def __init__(self, bytes_per_second: float) -> None:
        self.bytes_per_second = bytes_per_second
        self.until = -inf

    def spend(self, n_bytes: int, now: float) -> float:
        """Count bytes and return the time at which they fit the limit."""
        self.until = max(self.until, now - _MAX_CREDIT_SECONDS) + n_bytes / self.bytes_per_second
        return self.until


class TrafficShaper:
    """Holds one transfer to one or more bandwidth limits.

    A new transfer starts with the debt of the shared limit. Otherwise a burst of new
    transfers could exceed the limit, and older transfers would pay for it.

    Attributes:
        until: Time at which the transfer may continue.
    """

    def __init__(self, clock: Clock, limits: Sequence[BandwidthLimit]) -> None:
        self.until = max(limit.until for limit in limits)
        self._seconds = clock.seconds
        self._limits = limits

    def spend(self, n_bytes: int) -> None:
        """Count bytes that were sent or received."""
        now = self._seconds()
        self.until = max(limit.spend(n_bytes, now) for limit in self._limits)


_MAX_RATE_CLIENTS = 65536  # clients with a token bucket; the least recent one is removed


class ClientRateLimiter:
    """Token bucket per client for its requests.

    A bucket is needed only until it is full again. The number of buckets is bounded.
    """

    def __init__(self, max_clients: int = _MAX_RATE_CLIENTS) -> None:
        self._max_clients = max_clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def has_token(self, client: str, rate: int, now: float) -> bool:
        """Return True if `take` would."""
        tokens, since = self._buckets.get(client, (1.0, now))
        return tokens + (now - since) * rate >= 1.0

    def take(self, client: str, rate: int, now: float) -> bool:
        """Take one token of the client's bucket.

        Args:
            client: Key of the client (see `client_key`).
            rate: Requests per second.
            now: Monotonic time in seconds.

        Returns:
            False if the bucket is empty.
        """
        tokens, since = self._buckets.pop(client, (float(rate), now))
        tokens = min(float(rate), tokens + max(0.0, now - since) * rate)
        allowed = tokens >= 1.0
        self._buckets[client] = (tokens - allowed, now)
        if len(self._buckets) > self._max_clients:
            self._buckets.popitem(last=False)
        return allowed


_CHARGE_FACTOR = 3.0  # delay per CPU second: rejected requests get at most a quarter
_ACTIVE_SECONDS = 0.005  # time after its last datagram for which a transfer counts as active
_MAX_DELAY_SECONDS = 0.05


class RequestThrottle:
    """Delays requests while transfers are active.

    CPU time spent on a request that is rejected is charged; requests are then held back
    for three times that long (50 ms at most), so a flood gets at most a quarter of the
    CPU. A request that becomes a transfer costs nothing, but in a storm of requests few
    transfers start while many sockets wait to be read: more transfers would only make each
    of them slower, until their clients give up.

    Attributes:
        delayed_until: Time until which requests wait if a transfer is active.
        has_backlog: True if transfers have more datagrams than can be handled at once.
    """

    __slots__ = ("_active_until", "delayed_until", "has_backlog", "seconds")

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        """Initialize the throttle with a monotonic clock."""
        self.seconds = seconds
        self._active_until = 0.0
        self.delayed_until = 0.0
        self.has_backlog = False

    def transfer_active(self) -> None:
        """Note that a transfer received a datagram."""
        self._active_until = self.seconds() + _ACTIVE_SECONDS

    def charge(self, seconds: float) -> None:
        """Charge CPU seconds spent on a request that was rejected."""
        now = self.seconds()
        delayed_until = max(now, self.delayed_until) + _CHARGE_FACTOR * seconds
        self.delayed_until = min(delayed_until, now + _MAX_DELAY_SECONDS)

    @property
    def delay(self) -> float:
        """Seconds until the next request may be handled; 0 if there is no active transfer."""
        return max(0.0, min(self.delayed_until, self._active_until) - self.seconds())


T = TypeVar("T")

_PAUSE_FACTOR = 4.0  # pause per second of the action: the action uses 20 % of the time
_MAX_PAUSE_SECONDS = 10.0  # after an action that waited for a file system


class Debouncer:
    """Runs an action soon after a call; calls that arrive in the meantime are merged.

    The action may return a Deferred that fires at its end. It uses at most 20 % of the time: after
    a run of t seconds the next run starts 4 t seconds later, or after 10 s. Used for SIGHUP, so
    that a storm of signals cannot block transfers.
    """

    def __init__(self, reactor: Any, action: Callable[[], object]) -> None:
        self._reactor = reactor
        self._action = action
        self._pending: IDelayedCall | None = None
        self._not_before = 0.0
        self._is_running = False
        self._is_repeated = False

    def __call__(self) -> None:
        """Schedule the action unless it is scheduled already, for its end if it runs."""
        if self._is_running:
            self._is_repeated = True
        elif self._pending is None:
            delay = max(0.0, self._not_before - self._reactor.seconds())
            self._pending = self._reactor.callLater(delay, self._run)

    def stop(self) -> None:
        """Cancel the scheduled run; none follows one that has not ended."""
        self._is_repeated = False
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _run(self) -> None:
        self._pending, self._is_running = None, True
        start = self._reactor.seconds()
        maybeDeferred(self._action).addBoth(self._on_end, start)

    def _on_end(self, result: T, start: float) -> T:
        end = self._reactor.seconds()
        self._not_before = end + min(_PAUSE_FACTOR * (end - start), _MAX_PAUSE_SECONDS)
        is_repeated, self._is_running, self._is_repeated = self._is_repeated, False, False
        if is_repeated:
            self()
        return result


LOG_INTERVAL_SECONDS = 1.0


class LogLimiter:
    """Limits similar log messages to one per second, so that a flood cannot fill the disk."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """Initialize the limiter with a monotonic clock."""
        self._seconds = seconds
        self._logged_at = -inf
        self._suppressed = 0

    def suffix(self) -> str | None:
        """Return the text to append to a message that is about to be logged.

        Returns:
            None if the message must be suppressed. Otherwise a note on the number of
            messages suppressed since the last one, or an empty text.
        """
        now = self._seconds()
        if now - self._logged_at < LOG_INTERVAL_SECONDS:
            self._suppressed += 1
            return None
        self._logged_at = now
        suppressed, self._suppressed = self._suppressed, 0
        return f" ({suppressed} similar messages suppressed)" if suppressed else ""
