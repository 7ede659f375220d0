"""Fills: objects on their way from an origin into the cache, and those that wait for them."""

from collections.abc import Callable
from contextlib import closing

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from tftpd.origins.cache import CachedObject, Fill
from tftpd.origins.stores import Download, OriginError

MAX_UNKNOWN_BYTES = 64 << 20
"""Largest object whose origin does not announce its size. It is fetched before it is served."""

InReactor = Callable[..., None]
"""Calls a function with its arguments in the reactor thread, from any thread."""

OnEnd = Callable[[CachedObject | None, str], None]
"""Called at the end of a fill with the object, or with the reason why there is none."""


class RunningFill:
    """A fill, as the reactor thread sees it. `copy` alone runs in another thread.

    Attributes:
        basename: Name of the file in the cache.
        size: Size of the object in bytes; None if it is not known before the end.
        complete: True if the whole object is in the file.
        reason: Reason why the rest will not come; empty if it may.
    """

    log = Logger()

    def __init__(self, fill: Fill, in_reactor: InReactor, on_end: OnEnd) -> None:
        """Create the fill; `copy` fetches the content.

        Args:
            fill: The file in the cache.
            in_reactor: Calls a function in the reactor thread.
            on_end: Called in the reactor thread.
        """
        self.basename = fill.basename
        self.size = fill.info.size
        self.complete = False
        self.reason = ""
        self._fill = fill
        self._in_reactor = in_reactor
        self._on_end = on_end
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> "Deferred[None]":
        """Fire when the fill has ended."""
        if self.complete or self.reason:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
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

    def _end(self, cached: CachedObject | None, reason: str) -> None:
        self.complete = cached is not None
        self.reason = reason
        self._on_end(cached, reason)
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)
