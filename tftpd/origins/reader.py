"""Reader: opens objects in the cache for the processes that serve.

It asks the fetcher over its socket, keeps the answers for a short time, and reads the files of the
cache by itself. It also reads a file that is still being fetched, as far as it has come.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols import amp
from twisted.python.failure import Failure

from tftpd.access.origin_roots import OriginRoot
from tftpd.access.policy import Grant, WritePolicy
from tftpd.config.origins import FETCHER_SOCKET
from tftpd.origins.answers import AnswerCache, CallQueue
from tftpd.origins.cache import open_cached
from tftpd.origins.fetcher_messages import AnswerState, CacheState, CheckCreate, Open, WaitForEnd
from tftpd.origins.spool import Call, UploadSpool
from tftpd.protocol.errors import ErrorCode, ErrorText, HostFault, RequestRefused
from tftpd.storage.dentry_cache import DentryCache
from tftpd.storage.errors import refusal_for
from tftpd.storage.origin_files import AnswerNeeded
from tftpd.storage.source import FileLike, FileSource
from tftpd.storage.upload import ReceivedFile

_FAILURE_SECONDS = 1.0  # for which a question is not repeated if the fetcher does not run
# To wait for the successor of a fetcher that has ended: an ERROR would end the boot of a client.
_CONNECT_SECONDS = 20.0

# Between two looks at the length of a file that grows; longer if it stops, up to a tenth of the
# time for which it has not grown. A look costs less than a report of the fetcher.
_POLL_SECONDS = 0.005
_POLL_FACTOR = 0.1


# Commands that may be repeated: they change nothing.
_QUESTIONS = (Open, CheckCreate)


def _retry_delay(attempt: int) -> float:
    return float(min(0.05 * 2**attempt, 1.0))


class FetcherConnection:
    """Connection to the fetcher, and to its successors."""

    def __init__(self, reactor: Any, cache: Path) -> None:
        """Create the connection; `start` connects.

        Args:
            reactor: The reactor.
            cache: Directory of the cache.
        """
        self._reactor = reactor
        endpoint = UNIXClientEndpoint(reactor, str(cache / FETCHER_SOCKET))
        self._service = ClientService(
            endpoint, Factory.forProtocol(amp.AMP), retryPolicy=_retry_delay, clock=reactor
        )

    def start(self) -> None:
        """Connect, as soon as there is a fetcher."""
        self._service.startService()

    def stop(self) -> None:
        """Close the connection."""
        self._service.stopService()

    def call(self, command: type[amp.Command], **arguments: Any) -> "Deferred[dict[str, Any]]":
        """Send a command. Fails if no fetcher runs within 20 s, or if it ends.

        A question is sent once more to the successor of a fetcher that ends: at the start, this
        may be a process of a daemon that was killed a moment ago.
        """

        def send() -> "Deferred[dict[str, Any]]":
            connected: Deferred[Any] = self._service.whenConnected()
            connected.addTimeout(_CONNECT_SECONDS, self._reactor)
            return connected.addCallback(lambda fetcher: fetcher.callRemote(command, **arguments))

        def on_failure(failure: Failure) -> "Deferred[dict[str, Any]]":
            failure.trap(ConnectionClosed)
            # The service learns of the end after this.
            later: Deferred[None] = deferLater(self._reactor, 0)
            return later.addCallback(lambda _: send())

        return send().addErrback(on_failure) if command in _QUESTIONS else send()


class FillProgress:
    """Progress of a file that is being fetched. It is written in order: its length is the progress.

    Attributes:
        have: Number of bytes that may be read, as far as any reader knows.
        complete: True if that is the whole object.
        reason: Reason why the rest will not come; empty if it may.
    """

    def __init__(self, clock: IReactorTime, calls: CallQueue) -> None:
        self.have = 0
        self.complete = False
        self.reason = ""
        self._clock = clock
        self._calls = calls
        self._waiting: dict[GrowingFile, tuple[int, Callable[[], None]]] = {}
        self._waiting_for_end: list[Deferred[None]] = []
        self._poll: IDelayedCall | None = None
        self._grown_at = 0.0

    @property
    def has_ended(self) -> bool:
        """True if no more bytes will come."""
        return self.complete or bool(self.reason)

    def wait(self, file: "GrowingFile", offset: int, wake: Callable[[], None]) -> None:
        """Call `wake` when there are more than `offset` bytes, or at the end.

        Args:
            file: The file that is read; it waits once at a time.
            offset: Number of bytes.
            wake: Called later, in the reactor thread.
        """
        self._waiting[file] = offset, wake
        if self._poll is None:
            self._grown_at = self._clock.seconds()
            self._poll = self._clock.callLater(_POLL_SECONDS, self._look)

    def wait_for_end(self) -> "Deferred[None]":
        """Fire later, at the end."""
        done: Deferred[None] = Deferred()
        self._waiting_for_end.append(done)
        return done

    def forget(self, file: "GrowingFile") -> None:
        """Do not call the function of a file any longer."""
        self._waiting.pop(file, None)

    def end(self, reason: str) -> None:
        """Take the report of the fetcher that the file is whole, or why it never will be."""
        self.complete, self.reason = not reason, reason
        self._wake_all()
        for done in self._waiting_for_end:
            self._calls.add(lambda done=done: done.callback(None))  # type: ignore[misc]

    def _look(self) -> None:
        self._poll = None
        file = next(iter(self._waiting), None)
        if file is None or self.has_ended:
            return
        before, now = self.have, self._clock.seconds()
        file.measure()
        if self.have > before:
            self._grown_at = now
            self._wake_all()
        delay = max(_POLL_SECONDS, _POLL_FACTOR * (now - self._grown_at))
        self._poll = self._clock.callLater(delay, self._look)

    def _wake_all(self) -> None:
        for file, (offset, _) in self._waiting.items():
            if self.have > offset or self.has_ended:
                self._calls.add(lambda file=file: self._wake(file))  # type: ignore[misc]

    def _wake(self, file: "GrowingFile") -> None:
        offset, wake = self._waiting.get(file, (0, None))
        if wake is not None and (self.have > offset or self.has_ended):
            del self._waiting[file]
            wake()


class CachedFile(FileSource):
    """A whole object in the cache. Its file never changes."""

    def __init__(self, fd: int, status: os.stat_result, answer: "OriginAnswer", age: float) -> None:
        """Initialize the file.

        Args:
            fd: Its descriptor, which this object closes from now on.
            status: Its status.
            answer: What the fetching process has answered.
            age: Time since the origin has sent or confirmed the object, in seconds.
        """
        super().__init__(fd, status)
        self._basename = answer.basename
        self.cache_state, self.cache_age = answer.cache_state.value, age

    @property
    def version(self) -> bytes:
        """Name of the file, which only this version of the object has; see `FileLike`."""
        return self._basename.encode()

    @property
    def modified(self) -> int | None:
        """Return None: the file has the time of the fetch."""
        return None

    def is_touched(self) -> bool:
        """Return False: another version of an object has another file."""
        return False


class GrowingFile(CachedFile):
    """An object that is being fetched. Bytes that have not arrived raise `BlockingIOError`."""

    def __init__(
        self,
        fd: int,
        status: os.stat_result,
        answer: "OriginAnswer",
        age: float,
        progress: FillProgress,
    ) -> None:
        super().__init__(fd, status, answer, age)
        self.size = answer.size
        self._progress = progress

    def fileno(self) -> int:
        """Return -1: the file may end before the object does."""
        return -1

    def close(self) -> None:
        """Close the descriptor, and wait no longer; idempotent."""
        self._progress.forget(self)
        super().close()

    def read(self, buffers: Sequence[memoryview], offset: int, blocking: bool) -> int:
        """Read data that has arrived; see `FileLike.read`. Does not wait for the origin."""
        if not self._has(offset):
            if self._progress.reason:
                raise _origin_failed(self._progress.reason)
            raise BlockingIOError
        return super().read(buffers, offset, blocking)

    def when_readable(self, offset: int, wake: Callable[[], None]) -> bool:
        """Call `wake` when more data has arrived; see `FileLike.when_readable`."""
        if self._has(offset) or self._progress.has_ended:
            return False
        self._progress.wait(self, offset, wake)
        return True

    def measure(self) -> None:
        """Note how many bytes are in the file."""
        self._progress.have = os.fstat(self._fd).st_size

    def _has(self, offset: int) -> bool:
        progress = self._progress
        if progress.have <= offset and not progress.complete:
            self.measure()
        return progress.complete or progress.have > offset


@dataclass(frozen=True, slots=True)
class OriginAnswer:
    """Answer of the fetcher to `Open`.

    Attributes:
        state: Kind of the answer.
        basename: Name of the file.
        size: Size of the object in bytes.
        progress: Progress of its fetch; None if the file was whole at the time of the answer.
        reason: Reason of a failure.
        cache_state: State of the object.
        confirmed_at: Time when the origin has sent or confirmed it, on the clock of the reader.
    """

    state: AnswerState
    basename: str
    size: int
    progress: FillProgress | None
    reason: str
    cache_state: CacheState = CacheState.FETCHED
    confirmed_at: float = 0.0


class OriginReader:
    """Implementation of `storage.origins.OriginFiles`, and of the questions to the fetcher.

    `open` may be called in any thread, everything else in the reactor thread.

    Attributes:
        spool: Unfinished uploads.
    """

    def __init__(self, clock: IReactorTime, cache: Path, call: Call) -> None:
        """Initialize the reader.

        Args:
            clock: Monotonic time and timers.
            cache: Directory of the cache.
            call: Sends a command to the fetcher.
        """
        self._clock = clock
        self._data = cache / "data"
        self._call = call
        self._calls = CallQueue(clock)
        self._answers: AnswerCache[OriginAnswer] = AnswerCache(clock, self._calls)
        self._fills: dict[str, FillProgress] = {}  # those that run
        self._file_systems = DentryCache()
        self._file_systems.learn_root(cache)
        self.spool = UploadSpool(clock, cache, call, self._calls, self._answers.forget)

    def open(self, root: OriginRoot, key: str, whole: bool = False) -> FileLike:
        """Open an object in the cache; see `OriginFiles.open`."""
        answer = self._answers.find(root, key)
        if answer is None:
            raise AnswerNeeded(root, key, whole)
        if answer.state is AnswerState.MISSING:
            raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "the origin has no such object")
        if answer.state is AnswerState.FAILED:
            raise _origin_failed(answer.reason)
        progress = answer.progress
        if progress is not None and (progress.reason or (whole and not progress.complete)):
            raise AnswerNeeded(root, key, whole)
        try:
            return self._open_file(answer, progress)
        except FileNotFoundError:
            # It was evicted or aborted a moment ago.
            self._answers.forget(root, key)
            raise AnswerNeeded(root, key, whole) from None
        except OSError as error:
            raise refusal_for(error, ErrorText.READ_FAILED) from error

    def open_upload(
        self,
        root: OriginRoot,
        key: str,
        grant: Grant[WritePolicy],
        size: int | None,
        netascii: bool,
    ) -> ReceivedFile:
        """Begin an upload; see `OriginFiles.open_upload`."""
        return self.spool.open(root, key, grant.policy, size, netascii)

    def ask(self, needed: AnswerNeeded) -> "Deferred[None]":
        """Ask the fetcher; one question for any number of requests.

        Returns:
            A Deferred that fires later, in one of the next turns of the reactor: then `open` or
            `open_upload` does not raise `AnswerNeeded` for the object, unless the answer was
            outdated at once. It fails with `ResourceExhausted` if too many questions wait.
        """
        root, key = needed.root, needed.key
        if needed.create:
            return self.spool.ask(root, key)

        def question() -> "Deferred[tuple[OriginAnswer, float]]":
            answer = self._call(Open, origin=root.origin, key=key)
            return answer.addCallbacks(self._make_answer, _make_failure)

        done = self._answers.ask(root, key, question)
        return done.addCallback(lambda _: self._wait_for_end(root, key)) if needed.whole else done

    def _make_answer(self, values: dict[str, Any]) -> tuple[OriginAnswer, float]:
        state = AnswerState(values["state"])
        progress = None
        if state is AnswerState.FILE and not values["complete"]:
            progress = self._follow(values["basename"])
        answer = OriginAnswer(
            state,
            values["basename"],
            values["size"],
            progress,
            values["reason"],
            CacheState(values["cache_state"]),
            self._clock.seconds() - values["age_seconds"],
        )
        return answer, values["fresh_seconds"]

    def _wait_for_end(self, root: OriginRoot, key: str) -> "Deferred[None] | None":
        """Fire when the object is whole, or will never be."""
        answer = self._answers.find(root, key)
        if answer is None or answer.progress is None or answer.progress.has_ended:
            return None
        return answer.progress.wait_for_end()

    def _follow(self, basename: str) -> FillProgress:
        """Return the progress of a fill, with one question to the fetcher under way."""
        progress = self._fills.get(basename)
        if progress is None:
            progress = self._fills[basename] = FillProgress(self._clock, self._calls)
            ended = self._call(WaitForEnd, basename=basename)
            ended.addCallbacks(
                lambda values: values["reason"],
                lambda failure: f"the fetch was interrupted: {failure.getErrorMessage()}",
            )
            ended.addCallback(lambda reason: self._on_end(basename, progress, reason))
        return progress

    def _on_end(self, basename: str, progress: FillProgress, reason: str) -> None:
        del self._fills[basename]
        progress.end(reason)

    def _open_file(self, answer: OriginAnswer, progress: FillProgress | None) -> FileLike:
        fd = open_cached(self._data / answer.basename)
        try:
            status = os.fstat(fd)
            facts = fd, status, answer, self._clock.seconds() - answer.confirmed_at
            source: CachedFile
            if progress is None or progress.complete:
                source = CachedFile(*facts)
            else:
                source = GrowingFile(*facts, progress)
            # Older kernels know no non-blocking reads for tmpfs.
            source.in_memory = self._file_systems.is_in_memory(source.device)
            return source
        except BaseException:
            os.close(fd)
            raise


def _make_failure(failure: Failure) -> tuple[OriginAnswer, float]:
    reason = f"no process that fetches from origins answers: {failure.getErrorMessage()}"
    return OriginAnswer(AnswerState.FAILED, "", 0, None, reason), _FAILURE_SECONDS


def _shorten(buffers: Sequence[memoryview], n_bytes: int) -> list[memoryview]:
    """Return the parts of the buffers for the first `n_bytes` bytes."""
    parts = []
    for buffer in buffers:
        if n_bytes <= 0:
            break
        parts.append(buffer[:n_bytes])
        n_bytes -= len(buffer)
    return parts


def _origin_failed(reason: str) -> RequestRefused:
    return HostFault(ErrorCode.NOT_DEFINED, reason, ErrorText.ORIGIN_FAILED)
