"""Fills: objects on their way from an origin into the cache, and those that wait for them."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tftpd.origins.cache import CachedObject, Fill
from tftpd.origins.stores import Download, OriginError

MAX_UNKNOWN_BYTES = 64 << 20
"""Largest object whose origin does not announce its size. It is fetched before it is served."""

# Minimum time between two reports of growth. Chunks of 64 KiB may arrive every 0.2 ms, and each
# report costs more than that in this process and in the one that waits.
_REPORT_SECONDS = 0.005

InReactor = Callable[..., None]
"""Calls a function with its arguments in the reactor thread, from any thread."""

OnEnd = Callable[[CachedObject | None, str], None]
"""Called at the end of a fill with the object, or with the reason why there is none."""


class RunningFill:
    """A fill, as the reactor thread sees it. `copy` alone runs in another thread.

    Attributes:
        basename: Name of the file in the cache.
        size: Size of the object in bytes; None if it is not known before the end.
        have: Number of bytes that a reader finds in the file.
        complete: True if that is the whole object.
        reason: Reason why the rest will not come; empty if it may.
    """

    log = Logger()

    def __init__(
        self, fill: Fill, clock: IReactorTime, in_reactor: InReactor, on_end: OnEnd
    ) -> None:
        """Create the fill; `copy` fetches the content.

        Args:
            fill: The file in the cache.
            clock: Timers.
            in_reactor: Calls a function in the reactor thread.
            on_end: Called in the reactor thread.
        """
        self.basename = fill.basename
        self.size = fill.info.size
        self.have = 0
        self.complete = False
        self.reason = ""
        self._fill = fill
        self._clock = clock
        self._in_reactor = in_reactor
        self._on_end = on_end
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self._is_growth_reported = False
        self._report_at = 0.0  # of the next growth

    @property
    def has_ended(self) -> bool:
        """True if no more bytes will come."""
        return self.complete or bool(self.reason)

    def wait_for(self, offset: int) -> "Deferred[None]":
        """Fire when there are more than `offset` bytes, or when the fill has ended."""
        if self.have > offset or self.has_ended:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._waiting.append((offset, done))
        return done

    def copy(self, download: Download) -> None:
        """Copy the content into the cache; runs in a thread and does not raise."""
        fill = self._fill
        try:
            with closing(download):
                for chunk in download.chunks():
                    fill.write(chunk)
                    if self.size is None and fill.have > MAX_UNKNOWN_BYTES:
                        limit = f"{MAX_UNKNOWN_BYTES >> 20} MiB"
                        raise OriginError(f"no Content-Length, and more than {limit}")
                    self._report_growth()
            cached = fill.finish()
        except OriginError as error:
            fill.abort()
            self._in_reactor(self._end, None, error.reason or "the fetch failed")
        except BaseException as error:
            fill.abort()
            self.log.failure("internal error in a fetch", event="fetch_failed")
            self._in_reactor(self._end, None, f"internal error: {error!r}")
        else:
            self._in_reactor(self._end, cached, "")

    def _report_growth(self) -> None:
        # One call to the reactor is enough, however many chunks arrive before it runs.
        if not self._is_growth_reported:
            self._is_growth_reported = True
            self._in_reactor(self._grow)

    def _grow(self) -> None:
        wait = self._report_at - self._clock.seconds()
        if wait > 0:
            self._clock.callLater(wait, self._grow)
            return
        self._is_growth_reported = False
        self._report_at = self._clock.seconds() + _REPORT_SECONDS
        if not self.has_ended:
            self.have = self._fill.have
            self._wake()

    def _end(self, cached: CachedObject | None, reason: str) -> None:
        self.have = self._fill.have
        self.complete = cached is not None
        self.reason = reason
        self._on_end(cached, reason)
        self._wake()

    def _wake(self) -> None:
        ended = self.has_ended
        due = [done for offset, done in self._waiting if ended or self.have > offset]
        if due:
            self._waiting = [
                (offset, done)
                for offset, done in self._waiting
                if not (ended or self.have > offset)
            ]
        for done in due:
            done.callback(None)


def describe_wait(fill: "RunningFill | None") -> dict[str, Any]:
    """Return the answer to `WaitFor`; None stands for a fill that is not known."""
    if fill is None:
        return {"have": 0, "complete": False, "reason": "the fetch was interrupted"}
    return {"have": fill.have, "complete": fill.complete, "reason": fill.reason}
