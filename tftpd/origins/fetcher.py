"""The fetcher: answers which object a key has, and fetches objects into the cache.

It runs in a process of its own, which alone talks to the origins. However many clients and
workers ask for a key, the origin gets one question.

    Open > in the cache and fresh > answer
           not known, or too old  > question to the origin (thread) > answer
                                                                    > fill (same thread)
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from enum import Enum, auto
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from tftpd.access.paths import TEMPORARY
from tftpd.config.origins import SPOOL, OriginSection
from tftpd.origins.cache import CachedObject, CacheError, DiskCache
from tftpd.origins.factory import origin_identity
from tftpd.origins.fetcher_messages import (
    MAX_REASON_CHARS,
    AbortUpload,
    AnswerState,
    CacheState,
    CheckCreate,
    GrowUpload,
    Open,
    StoreUpload,
    UploadState,
    WaitForEnd,
)
from tftpd.origins.fills import InReactor, RunningFill
from tftpd.origins.freshness import Freshness, FreshnessRules, KeyHistory, judge
from tftpd.origins.statistics import FetcherStatistics, OriginStatistics
from tftpd.origins.stores import (
    NotModified,
    ObjectNotFound,
    OriginError,
    OriginUnavailable,
    Store,
)
from tftpd.origins.upload_streams import (
    CreateProbe,
    InThread,
    OriginUploads,
    SpoolUsage,
    UploadStream,
    upload_answer,
)

MAX_QUESTIONS = 16
"""Questions to one origin at the same time. A dead origin must not occupy all threads."""

MAX_THREADS_PER_ORIGIN = 64
"""Questions and fills of one origin at the same time."""

# A worker uses an answer for a short time only: the cache must learn which objects are in use.
_MAX_FRESH_SECONDS = 10.0
_MIN_FRESH_SECONDS = 1.0

# A request for an upload waits for so long to learn if its object exists. Firmware repeats requests
# after 1 s and more. Without an answer the upload begins, and the origin decides at its end.
_MAX_EXISTS_SECONDS = 1.0

_MAX_REMEMBERED = 4096  # absences and failures of one origin, and fills that have ended

# Minimum time between two warnings about an origin: one that stays silent, and one that answers
# some questions and not others.
_REMINDER_SECONDS = 60.0
_WARNING_SECONDS = 5.0

T = TypeVar("T")


class _Memory(Generic[T]):
    """Bounded memory of values by key; the oldest ones are forgotten first."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str) -> T | None:
        return self._values.get(key)

    def put(self, key: str, value: T) -> None:
        self._values.pop(key, None)
        self._values[key] = value
        while len(self._values) > _MAX_REMEMBERED:
            self._values.popitem(last=False)

    def forget(self, key: str) -> None:
        self._values.pop(key, None)


class _Outcome(Enum):
    """Result of a question."""

    CONFIRMED = auto()
    FETCHED = auto()
    FILLING = auto()
    MISSING = auto()
    FAILED = auto()


class _Question:
    """One question to an origin; any number of requests waits for its outcome."""

    def __init__(self) -> None:
        self.outcome: _Outcome | None = None
        self.reason = ""
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> "Deferred[None]":
        """Fire when the outcome is known."""
        if self.outcome is not None:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        return done

    def answer(self, outcome: _Outcome, reason: str = "") -> None:
        """Set the outcome, at the first call only."""
        if self.outcome is None:
            self.outcome, self.reason = outcome, reason
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done.callback(None)


class OriginClient:
    """One origin: its questions, fills, and what is remembered of its keys.

    Attributes:
        name: Name in the configuration.
        section: The configuration.
        store: The store behind the origin.
        figures: Figures for the status page; `running` alone is not kept up to date.
        probe: Knows whether the origin refuses to create an object that exists.
        uploads: The uploads to it.
    """

    log = Logger()

    def __init__(self, name: str, section: OriginSection, store: Store, fetcher: "Fetcher") -> None:
        self.name = name
        self.section = section
        self.store = store
        self.figures = OriginStatistics()
        self._identity = origin_identity(name, section)
        self._fetcher = fetcher
        self._cache = fetcher.cache
        self._questions: dict[str, _Question] = {}
        self._fills: dict[str, RunningFill] = {}
        self._absent_at: _Memory[float] = _Memory()
        self._failures: _Memory[tuple[float, str]] = _Memory()
        self._threads = DeferredSemaphore(MAX_THREADS_PER_ORIGIN)
        self._asking = DeferredSemaphore(MAX_QUESTIONS)
        self._n_running = 0
        self._is_closed = False
        threads = fetcher.in_thread, fetcher.in_reactor, self._on_write_answered
        self.probe = CreateProbe(name, store, fetcher.clock, *threads, self._close_if_idle)
        self.uploads = OriginUploads(
            name, store, self.probe, fetcher.spool_usage, *threads, self._on_upload_ended
        )
        self._is_warned = False
        self._warned_at = -_WARNING_SECONDS
        self._stale_logged_at = -_REMINDER_SECONDS
        self._n_stale_unlogged = 0

    @property
    def n_fills(self) -> int:
        """Number of objects that are being fetched."""
        return len(self._fills)

    def open(self, key: str) -> "Deferred[dict[str, Any]]":
        """Return the answer to `Open`."""
        if key in self._fills:
            return succeed(self._filling(self._fills[key]))
        cached = self._cache.find(self._identity, key)
        match judge(self._history(key, cached), self._rules, self._fetcher.wall_clock()):
            case Freshness.FRESH | Freshness.SERVE_STALE if cached is not None:
                return succeed(self._file(cached))
            case Freshness.ABSENT:
                return succeed(self._missing())
            case Freshness.FAILED:
                return succeed(self._failed(key))
            case Freshness.REVALIDATE if cached is not None:
                question = self._ask(key, cached)
                waiting = question.wait()
                waiting.addTimeout(self.section.revalidate_timeout, self._fetcher.clock)
                waiting.addErrback(_ignore_timeout)
                return waiting.addCallback(lambda _: self._revalidated(key, question, cached))
            case _:
                question = self._ask(key, cached)
                return question.wait().addCallback(lambda _: self._asked(key, question))

    def check_create(self, key: str) -> "Deferred[dict[str, Any]]":
        """Return the answer to `CheckCreate`."""

        def on_probed(answer: dict[str, Any]) -> "dict[str, Any] | Deferred[dict[str, Any]]":
            if answer["state"] != UploadState.ALLOWED:
                return answer
            found: Deferred[bool] = Deferred()
            self._start_question(lambda: self._run_exists(key, found))
            found.addTimeout(_MAX_EXISTS_SECONDS, self._fetcher.clock, lambda *_: False)
            return found.addCallback(lambda exists: _EXISTS if exists else answer)

        return self.probe.wait().addCallback(on_probed)

    def close(self) -> None:
        """Close the store after the last question, fill and upload."""
        self._is_closed = True
        self.probe.close()
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        is_busy = self._n_running or len(self.uploads) or self.probe.is_running
        if self._is_closed and not is_busy:
            self.store.close()

    def _on_upload_ended(self, key: str, size: int | None) -> None:
        if size is None:
            self.figures.unstored += 1
        else:
            self.figures.stored += 1
            self.figures.stored_bytes += size
            # The object in the cache is an older version.
            self._note_success(key)
            cached = self._cache.find(self._identity, key)
            if cached is not None:
                self._cache.remove(cached)
        self._close_if_idle()

    # Answers.

    @property
    def _rules(self) -> FreshnessRules:
        section = self.section
        return FreshnessRules(section.max_age, section.stale, section.negative)

    def _history(self, key: str, cached: CachedObject | None) -> KeyHistory:
        failed = self._failures.get(key)
        return KeyHistory(
            checked_at=None if cached is None else cached.checked_at,
            absent_at=self._absent_at.get(key),
            failed_at=None if failed is None else failed[0],
        )

    def _revalidated(self, key: str, question: _Question, old: CachedObject) -> dict[str, Any]:
        """Return what is known now: the origin may not have answered yet."""
        if key in self._fills:
            return self._filling(self._fills[key])
        cached = self._cache.find(self._identity, key)
        if cached is None and self._absent_at.get(key) is not None:
            return self._missing()
        return self._file(cached or old, question)

    def _asked(self, key: str, question: _Question) -> dict[str, Any]:
        cached = self._cache.find(self._identity, key)
        if question.outcome is _Outcome.FILLING and key in self._fills:
            return self._filling(self._fills[key])
        if question.outcome is _Outcome.MISSING:
            return self._missing()
        if question.outcome is _Outcome.FAILED or cached is None:
            return self._failed(key, question.reason)
        return self._file(cached, question)

    def _file(self, cached: CachedObject, question: _Question | None = None) -> dict[str, Any]:
        self._cache.remember_use(cached)
        age = max(0.0, self._fetcher.wall_clock() - cached.checked_at)
        left = self.section.max_age - age
        self.figures.hits += 1
        state = CacheState.HIT
        if left < 0:
            state = CacheState.STALE
            self._note_stale(cached.key, age)
        elif question is not None and question.outcome is _Outcome.FETCHED:
            state = CacheState.FETCHED
        return _answer(
            AnswerState.FILE,
            basename=cached.basename,
            size=cached.size,
            complete=True,
            fresh_seconds=min(max(left, _MIN_FRESH_SECONDS), _MAX_FRESH_SECONDS),
            age_seconds=age,
            cache_state=str(state),
        )

    def _filling(self, fill: RunningFill) -> dict[str, Any]:
        assert fill.size is not None
        self.figures.misses += 1
        return _answer(
            AnswerState.FILE,
            basename=fill.basename,
            size=fill.size,
            complete=fill.complete,
        )

    def _missing(self) -> dict[str, Any]:
        return _answer(AnswerState.MISSING, fresh_seconds=self._remember_seconds)

    def _failed(self, key: str, reason: str = "") -> dict[str, Any]:
        _, known = self._failures.get(key) or (0.0, "the fetch failed")
        reason = f"origin {self.name}: {reason or known}"[:MAX_REASON_CHARS]
        seconds = self._remember_seconds
        return _answer(AnswerState.FAILED, fresh_seconds=seconds, reason=reason)

    @property
    def _remember_seconds(self) -> float:
        return float(min(max(self.section.negative, _MIN_FRESH_SECONDS), _MAX_FRESH_SECONDS))

    # Questions.

    def _ask(self, key: str, cached: CachedObject | None) -> _Question:
        """Return the question for a key that is under way, or begin one."""
        question = self._questions.get(key)
        if question is None:
            new = question = self._questions[key] = _Question()
            self._start_question(lambda: self._run(key, cached, new))
        return question

    def _start_question(self, run: Callable[[], None]) -> None:
        """Call `run` in a thread, when it is the turn of this question."""

        def start(_: object) -> None:
            self.figures.questions += 1
            self._fetcher.in_thread(run)

        self._n_running += 1
        self._threads.acquire().addCallback(lambda _: self._asking.acquire().addCallback(start))

    def _run_exists(self, key: str, found: "Deferred[bool]") -> None:
        """Ask the origin if it has an object; runs in a thread."""
        in_reactor = self._fetcher.in_reactor
        exists = False
        try:
            if not found.called:  # its time was over before its turn came
                exists = self.store.exists(key)
                in_reactor(self._on_write_answered, None)
        except OriginError as error:
            in_reactor(self._on_write_answered, error)
        except BaseException:
            self.log.failure("internal error in a question", event="upload_failed")
        in_reactor(self._on_exists, found, exists)

    def _run(self, key: str, cached: CachedObject | None, question: _Question) -> None:
        """Ask the origin and fetch what it sends; runs in a thread."""
        in_reactor = self._fetcher.in_reactor
        fill = None
        try:
            fill = self._get(key, cached, question)
        except ObjectNotFound:
            if cached is not None:
                self._cache.remove(cached)
            in_reactor(self._on_missing, key, question)
        except OriginError as error:
            in_reactor(self._on_failed, key, question, error)
        except BaseException as error:
            self.log.failure("internal error in a question", event="fetch_failed")
            in_reactor(self._on_failed, key, question, OriginError(f"internal error: {error!r}"))
        finally:
            if fill is None:
                in_reactor(self._on_answered, key)
                in_reactor(self._on_thread_ended)

    def _get(
        self, key: str, cached: CachedObject | None, question: _Question
    ) -> RunningFill | None:
        """Ask the origin; return the fill, after its end, if the object has changed."""
        etag = "" if cached is None else cached.info.etag
        in_reactor = self._fetcher.in_reactor
        try:
            download = self.store.get(key, etag)
        except NotModified:
            if cached is None:
                raise OriginError("304 Not Modified without a question for it") from None
            self._cache.confirm(cached)
            in_reactor(self._on_confirmed, key, question)
            return None
        if cached is not None and etag and download.info.etag == etag:
            download.close()  # an origin that ignores If-None-Match
            self._cache.confirm(cached)
            in_reactor(self._on_confirmed, key, question)
            return None
        try:
            file = self._cache.begin(self._identity, key, download.info)
        except BaseException:
            download.close()
            raise
        started = time.monotonic()

        def on_end(done: CachedObject | None, reason: str) -> None:
            self._on_filled(key, question, fill, done, reason, time.monotonic() - started)

        fill = RunningFill(file, in_reactor, on_end)
        in_reactor(self._on_begun, key, question, fill)
        fill.copy(download)
        return fill

    # Results, in the reactor thread.

    def _on_begun(self, key: str, question: _Question, fill: RunningFill) -> None:
        self._asking.release()
        self._fetcher.fills.put(fill.basename, fill)
        self._note_success(key)
        if fill.size is not None:
            self._fills[key] = fill
            del self._questions[key]
            question.answer(_Outcome.FILLING)

    def _on_filled(
        self,
        key: str,
        question: _Question,
        fill: RunningFill,
        cached: CachedObject | None,
        reason: str,
        seconds: float,
    ) -> None:
        self._fills.pop(key, None)
        self._questions.pop(key, None) if fill.size is None else None
        if cached is None:
            self._note_failure(key, reason)
            question.answer(_Outcome.FAILED, reason)
            message = "origin {origin}: {key} was not fetched: {reason}"
            fields = {"origin": self.name, "key": key, "reason": reason}
            self.log.warn(message, event="fetch_failed", **fields)
        else:
            self.figures.fetched += 1
            self.figures.fetched_bytes += cached.size
            question.answer(_Outcome.FETCHED)
            message = "origin {origin}: fetched {key} ({size} bytes in {seconds:.3f} s)"
            what = {"origin": self.name, "key": key, "size": cached.size, "seconds": seconds}
            self.log.info(message, event="object_fetched", **what)
        self._on_thread_ended()

    def _on_confirmed(self, key: str, question: _Question) -> None:
        self.figures.not_modified += 1
        self._note_success(key)
        question.answer(_Outcome.CONFIRMED)

    def _on_missing(self, key: str, question: _Question) -> None:
        self.figures.missing += 1
        self._note_success(key)
        self._absent_at.put(key, self._fetcher.wall_clock())
        question.answer(_Outcome.MISSING)

    def _on_failed(self, key: str, question: _Question, error: OriginError) -> None:
        self._note_failure(key, error.reason)
        if not isinstance(error, CacheError):
            self._warn(error.reason)
        question.answer(_Outcome.FAILED, error.reason)

    def _on_answered(self, key: str) -> None:
        del self._questions[key]
        self._asking.release()

    def _on_exists(self, found: "Deferred[bool]", exists: bool) -> None:
        found.callback(exists)  # without effect after its timeout
        self._asking.release()
        self._on_thread_ended()

    def _on_write_answered(self, error: OriginError | None) -> None:
        """Note if the origin has answered an upload or a question before one."""
        if error is None:
            self._note_available()
        elif isinstance(error, OriginUnavailable):
            self._count_failure(error.reason)
            self._warn(error.reason)

    def _on_thread_ended(self) -> None:
        self._threads.release()
        self._n_running -= 1
        self._close_if_idle()

    def _note_success(self, key: str) -> None:
        self._failures.forget(key)
        self._absent_at.forget(key)
        self._note_available()

    def _note_available(self) -> None:
        self.figures.unavailable_since = None
        if self._is_warned:
            self._is_warned = False
            message = "origin {origin} answers again"
            self.log.info(message, event="origin_available", origin=self.name)

    def _note_failure(self, key: str, reason: str) -> None:
        self._failures.put(key, (self._count_failure(reason), reason))

    def _count_failure(self, reason: str) -> float:
        """Count a failure, and return its time."""
        now = self._fetcher.wall_clock()
        self.figures.failures += 1
        self.figures.last_failure, self.figures.last_failure_at = reason, now
        return now

    def _note_stale(self, key: str, age: float) -> None:
        self.figures.stale_answers += 1
        now = self._fetcher.clock.seconds()
        if now - self._stale_logged_at < _REMINDER_SECONDS:
            self._n_stale_unlogged += 1
            return
        more = f" ({self._n_stale_unlogged} more since then)" if self._n_stale_unlogged else ""
        self._stale_logged_at, self._n_stale_unlogged = now, 0
        self.log.info(
            "origin {origin}: {key} is served {age:.0f} s after its last confirmation{more}",
            event="stale_served",
            origin=self.name,
            key=key,
            age=age,
            more=more,
        )

    def _warn(self, reason: str) -> None:
        if self.figures.unavailable_since is None:
            self.figures.unavailable_since = self._fetcher.wall_clock()
        now = self._fetcher.clock.seconds()
        interval = _REMINDER_SECONDS if self._is_warned else _WARNING_SECONDS
        if now - self._warned_at < interval:
            return
        self._is_warned, self._warned_at = True, now
        self.log.warn(
            "origin {origin} does not answer: {reason}; objects in the cache are served",
            event="origin_unavailable",
            origin=self.name,
            reason=reason,
        )


class Fetcher:
    """All origins of a configuration, and the cache.

    Attributes:
        cache: The cache.
        clock: Timers.
        wall_clock: Returns the seconds since the epoch.
        in_thread: Runs a function in a thread.
        in_reactor: Calls a function in the reactor thread.
        fills: The fills that run, and the last ones that have ended, by name of the file.
        spool_usage: Space of the unfinished uploads.
    """

    def __init__(
        self,
        clock: IReactorTime,
        cache: DiskCache,
        in_thread: InThread,
        in_reactor: InReactor,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.cache = cache
        self.clock = clock
        self.wall_clock = wall_clock
        self.in_thread = in_thread
        self.in_reactor = in_reactor
        self.fills: _Memory[RunningFill] = _Memory()
        self.spool_usage = SpoolUsage(limit=0)
        self._spool = cache.data.parent / SPOOL
        self._clients: dict[str, OriginClient] = {}

    def configure(
        self,
        sections: Mapping[str, OriginSection],
        open_store: Callable[[OriginSection], Store],
        create_only: Iterable[str] = (),
    ) -> None:
        """Use these origins from now on. Questions, fills and uploads of others run to their end.

        Args:
            sections: The origins by name.
            open_store: Returns the store of an origin.
            create_only: Names of origins that must refuse to create an object that exists.

        Raises:
            OriginError: A store cannot be opened. The origins stay as they were.
        """
        clients = {
            name: self._clients[name]
            for name, section in sections.items()
            if name in self._clients and self._clients[name].section == section
        }
        for name, section in sections.items():
            if name not in clients:
                clients[name] = OriginClient(name, section, open_store(section), self)
        replaced = [old for name, old in self._clients.items() if clients.get(name) is not old]
        self._clients = clients
        for client in replaced:
            client.close()
        for name in create_only:
            clients[name].probe.begin()

    def open(self, origin: str, key: str) -> "Deferred[dict[str, Any]]":
        """Return the answer to `Open`."""
        client = self._clients.get(origin)
        if client is None:
            reason = f"origin {origin} is not configured"
            return succeed(_answer(AnswerState.FAILED, reason=reason))
        return client.open(key)

    def wait_for_end(self, basename: str) -> "Deferred[dict[str, Any]]":
        """Return the answer to `WaitForEnd`."""
        fill = self.fills.get(basename)
        if fill is None:
            return succeed({"reason": "the fetch was interrupted"})
        return fill.wait().addCallback(lambda _: {"reason": fill.reason})

    def check_create(self, origin: str, key: str) -> "Deferred[dict[str, Any]]":
        """Return the answer to `CheckCreate`."""
        client = self._clients.get(origin)
        return succeed(_no_upload(origin)) if client is None else client.check_create(key)

    def begin_upload(
        self, origin: str, key: str, basename: str, create: bool
    ) -> tuple[OriginUploads, UploadStream]:
        """Begin to store a file of the spool.

        Raises:
            OriginError: The origin is not configured, or no file of the spool has this name.
        """
        client = self._clients.get(origin)
        if client is None:
            raise OriginError(f"origin {origin} is not configured")
        if not basename.startswith(TEMPORARY.decode()) or "/" in basename:
            raise OriginError(f"{basename!r} is not a file of the spool")
        return client.uploads, client.uploads.begin(self._spool / basename, key, create)

    def abort_uploads(self) -> "Deferred[Any]":
        """End all uploads. Fires when the origins have removed what they had of them."""
        return DeferredList([client.uploads.abort_all() for client in self._clients.values()])

    def statistics(self) -> FetcherStatistics:
        """Return the figures of all origins and of the cache."""
        origins = {
            name: replace(client.figures, running=client.n_fills)
            for name, client in self._clients.items()
        }
        return FetcherStatistics(origins, self.cache.usage())


class FetcherProtocol(amp.AMP):
    """Connection of one process that serves."""

    def __init__(self, fetcher: Fetcher) -> None:
        super().__init__()
        self._fetcher = fetcher
        self._uploads: dict[str, tuple[OriginUploads, UploadStream]] = {}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the process that serves has ended, and with it its uploads."""
        for uploads, stream in list(self._uploads.values()):
            uploads.abort(stream)
        super().connectionLost(reason)

    @CheckCreate.responder
    def check_create(self, origin: str, key: str) -> "Deferred[dict[str, Any]]":
        """Handle `CheckCreate`."""
        return self._fetcher.check_create(origin, key)

    @StoreUpload.responder
    def store_upload(
        self, origin: str, key: str, basename: str, create: bool, size: int, is_whole: bool
    ) -> "Deferred[dict[str, Any]]":
        """Handle `StoreUpload`."""
        try:
            begun = self._fetcher.begin_upload(origin, key, basename, create)
        except OriginError as error:
            return succeed(upload_answer(UploadState.FAILED, error.reason))
        self._uploads[basename] = begun
        _, stream = begun
        stream.answer.addBoth(self._forget_upload, basename)
        self.grow_upload(basename, size, is_whole)
        return stream.answer

    @GrowUpload.responder
    def grow_upload(self, basename: str, size: int, is_whole: bool) -> dict[str, Any]:
        """Handle `GrowUpload`."""
        if basename in self._uploads:
            uploads, stream = self._uploads[basename]
            uploads.grow(stream, size, is_whole)
        return {}

    @AbortUpload.responder
    def abort_upload(self, basename: str) -> dict[str, Any]:
        """Handle `AbortUpload`."""
        if basename in self._uploads:
            uploads, stream = self._uploads[basename]
            uploads.abort(stream)
        return {}

    def _forget_upload(self, answer: dict[str, Any], basename: str) -> dict[str, Any]:
        del self._uploads[basename]
        return answer

    @Open.responder
    def open(self, origin: str, key: str) -> "Deferred[dict[str, Any]]":
        """Handle `Open`."""
        return self._fetcher.open(origin, key)

    @WaitForEnd.responder
    def wait_for_end(self, basename: str) -> "Deferred[dict[str, Any]]":
        """Handle `WaitForEnd`."""
        return self._fetcher.wait_for_end(basename)


_EXISTS = upload_answer(UploadState.EXISTS)


def _no_upload(origin: str) -> dict[str, Any]:
    return upload_answer(UploadState.FAILED, f"origin {origin} is not configured")


def _ignore_timeout(failure: Failure) -> None:
    failure.trap(DeferredTimeout)


def _answer(state: AnswerState, **known: Any) -> dict[str, Any]:
    """Return an answer to `Open`; values that are not known are zero or empty."""
    nothing = {
        "basename": "",
        "size": 0,
        "complete": False,
        "fresh_seconds": _MIN_FRESH_SECONDS,
        "age_seconds": 0.0,
        "cache_state": str(CacheState.FETCHED),
        "reason": "",
    }
    return {"state": str(state), **nothing, **known}
