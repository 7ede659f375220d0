"""Uploads on their way from the spool to an origin, in the fetcher.

A short upload is sent to the origin when it is whole. A longer one that may replace an object is
sent in parts while it still grows, so that its client need not wait for all of it at the end.
obstore has no condition for an object in parts, and collects them in memory instead: with
`overwrite: false` each upload is sent when it is whole.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tftpd.origins.fetcher_messages import MAX_REASON_CHARS, UploadState
from tftpd.origins.fills import InReactor
from tftpd.origins.stores import ConditionsIgnored, ObjectExists, OriginError, Store

STREAM_BYTES = 5 << 20
"""Size from which on an upload is sent while it grows: a part of S3."""

MAX_STREAMS = 8
"""Uploads of one origin that are sent while they grow. Others are sent when they are whole."""

MAX_WHOLE = 32
"""Whole uploads that are sent to one origin at the same time; the others wait."""

MAX_UPLOAD_THREADS = MAX_STREAMS + MAX_WHOLE + 1
"""Threads for the uploads of one origin, and for its probe."""

_MAX_MEMORY_BYTES = 256 << 20
"""Memory of whole uploads that are sent to one origin, except for one that is sent alone."""

# A store has at most so much of an upload in parts in memory: 4 parts, and the next one.
_MAX_PARTS_BYTES = 5 * STREAM_BYTES

_READ_BYTES = 1 << 20
_MAX_PROBE_PAUSE_SECONDS = 60.0

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

InThread = Callable[[Callable[[], None]], None]
"""Runs a function in a thread."""

OnAnswer = Callable[[OriginError | None], None]
"""Called with the failure of an origin, or with None if it has answered."""


class UploadAborted(Exception):
    """The client or its process has ended the upload."""


def upload_answer(state: UploadState, reason: str = "") -> dict[str, Any]:
    """Return an answer to `StoreUpload` or `CheckCreate`."""
    return {"state": str(state), "reason": reason[:MAX_REASON_CHARS]}


@dataclass
class SpoolUsage:
    """Bytes of all unfinished uploads, and their limit."""

    limit: int
    used: int = 0


class UploadStream:
    """A file of the spool, as far as it has come. `chunks` runs in a thread of the store.

    Attributes:
        key: Key of the object.
        create: True: only if there is no object with this key.
        size: Number of bytes that are in the file.
        is_whole: True if that is the whole file.
        is_queued: True if it waits for a thread, or has one.
        answer: Fires at the end with the answer to `StoreUpload`.
    """

    def __init__(self, path: Path, key: str, create: bool) -> None:
        """Create the stream; nothing is read before `chunks`."""
        self.key = key
        self.create = create
        self.size = 0
        self.is_whole = False
        self.is_queued = False
        self.answer: Deferred[dict[str, Any]] = Deferred()
        self._path = path
        self._is_aborted = False
        self._has_changed = threading.Condition()

    @property
    def memory(self) -> int:
        """Estimated memory that the store needs for it, in bytes."""
        return self.size if self.create else min(self.size, _MAX_PARTS_BYTES)

    def grow(self, size: int, is_whole: bool) -> None:
        """Note how many bytes are in the file."""
        with self._has_changed:
            self.size, self.is_whole = size, is_whole
            self._has_changed.notify_all()

    def abort(self) -> None:
        """Let `chunks` raise `UploadAborted`."""
        with self._has_changed:
            self._is_aborted = True
            self._has_changed.notify_all()

    def chunks(self) -> Iterator[bytes]:
        """Yield the content; wait until the file has grown.

        Raises:
            UploadAborted: The upload was aborted, or the file cannot be read.
        """
        offset = 0
        try:
            # Not earlier: an upload that waits for others must not occupy a descriptor.
            with open(os.open(self._path, _FLAGS), "rb", buffering=0) as file:
                while n_bytes := min(self._wait_for_more(offset), _READ_BYTES):
                    chunk = file.read(n_bytes)
                    if not chunk:
                        raise UploadAborted("the spool was truncated")
                    offset += len(chunk)
                    yield chunk
        except OSError as error:
            raise UploadAborted(f"the spool cannot be read: {error.strerror}") from error

    def _wait_for_more(self, offset: int) -> int:
        """Return the number of bytes behind an offset; 0 at the end of the file."""
        with self._has_changed:
            while not (self.size > offset or self.is_whole or self._is_aborted):
                self._has_changed.wait()
            if self._is_aborted:
                raise UploadAborted("the upload was aborted")
            return self.size - offset


class CreateProbe:
    """Finds out whether an origin refuses to create an object that exists.

    An origin that does not answer is asked again, after pauses of 1 to 60 s.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        store: Store,
        clock: IReactorTime,
        in_thread: InThread,
        in_reactor: InReactor,
        on_answer: OnAnswer,
        on_end: Callable[[], None],
    ) -> None:
        """Initialize the probe; `begin` starts it.

        Args:
            name: Name of the origin.
            store: The store behind it.
            clock: Timers.
            in_thread: Runs a function in a thread.
            in_reactor: Calls a function in the reactor thread.
            on_answer: Called in the reactor thread if the origin has answered, or has failed to.
            on_end: Called when no thread uses the store any longer.
        """
        self._name = name
        self._store = store
        self._clock = clock
        self._in_thread = in_thread
        self._in_reactor = in_reactor
        self._on_answer = on_answer
        self._on_end = on_end
        self._answer: dict[str, Any] | None = None
        self._is_running = False
        self._is_closed = False
        self._pause = 1.0
        self._waiting: list[Deferred[dict[str, Any]]] = []

    @property
    def is_running(self) -> bool:
        """True while a thread uses the store."""
        return self._is_running

    def begin(self) -> None:
        """Ask the origin, unless it has been found to be right."""
        is_known = self._answer is not None and self._answer["state"] == UploadState.ALLOWED
        if not (self._is_running or is_known or self._is_closed):
            self._is_running = True
            self._in_thread(self._run)

    def close(self) -> None:
        """Do not ask again."""
        self._is_closed = True

    def wait(self) -> "Deferred[dict[str, Any]]":
        """Return the answer to `CheckCreate`, when it is known."""
        if self._answer is not None:
            return succeed(self._answer)
        done: Deferred[dict[str, Any]] = Deferred()
        self._waiting.append(done)
        self.begin()
        return done

    def _run(self) -> None:
        """Ask the origin; runs in a thread."""
        state, reason = UploadState.FAILED, ""
        try:
            self._store.probe(writes=True)
            state = UploadState.ALLOWED
            self._in_reactor(self._on_answer, None)
        except ConditionsIgnored as error:
            state, reason = UploadState.REFUSED, error.reason
            self._in_reactor(self._on_answer, None)
        except OriginError as error:
            reason = error.reason
            self._in_reactor(self._on_answer, error)
        except BaseException as error:
            self.log.failure("internal error in a probe", event="probe_failed")
            reason = f"internal error: {error!r}"
        self._in_reactor(self._on_result, state, reason)

    def _on_result(self, state: UploadState, reason: str) -> None:
        self._is_running = False
        before = self._answer
        self._answer = upload_answer(state, f"origin {self._name}: {reason}" if reason else "")
        if self._answer != before and state is not UploadState.ALLOWED:
            self.log.error(
                "origin {origin}: uploads with overwrite: false are refused: {reason}",
                event="create_refused",
                origin=self._name,
                reason=reason,
            )
        if state is UploadState.FAILED and not self._is_closed:
            self._clock.callLater(self._pause, self.begin)
            self._pause = min(2 * self._pause, _MAX_PROBE_PAUSE_SECONDS)
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(self._answer)
        self._on_end()


class OriginUploads:
    """The uploads to one origin."""

    log = Logger()

    def __init__(
        self,
        name: str,
        store: Store,
        probe: CreateProbe,
        usage: SpoolUsage,
        in_thread: InThread,
        in_reactor: InReactor,
        on_answer: OnAnswer,
        on_end: Callable[[str, int | None], None],
    ) -> None:
        """Initialize the uploads.

        Args:
            name: Name of the origin.
            store: The store behind it.
            probe: Knows whether `create` can be kept.
            usage: Space of all unfinished uploads.
            in_thread: Runs a function in a thread.
            in_reactor: Calls a function in the reactor thread.
            on_answer: Called in the reactor thread if the origin has answered, or has failed to.
            on_end: Called after each upload with its key, and its size in bytes if it is stored.
        """
        self._name = name
        self._store = store
        self._probe = probe
        self._usage = usage
        self._in_thread = in_thread
        self._in_reactor = in_reactor
        self._on_answer = on_answer
        self._on_end = on_end
        self._streams: set[UploadStream] = set()
        self._n_growing = 0
        self._n_whole = 0
        self._memory = 0
        self._ready: deque[UploadStream] = deque()
        self._idle: Deferred[None] | None = None

    def __len__(self) -> int:
        return len(self._streams)

    def begin(self, path: Path, key: str, create: bool) -> UploadStream:
        """Begin an upload of the file with a path."""
        stream = UploadStream(path, key, create)
        self._streams.add(stream)
        return stream

    def grow(self, stream: UploadStream, size: int, is_whole: bool) -> None:
        """Note how many bytes are in the file of an upload, and send it if it is time."""
        if stream not in self._streams or stream.is_whole:
            return
        if self._usage.used + size - stream.size > self._usage.limit:
            reason = f"unfinished uploads use cache.max_size ({self._usage.limit} bytes)"
            self._refuse(stream, upload_answer(UploadState.FULL, reason))
            return
        self._usage.used += size - stream.size
        stream.grow(size, is_whole)
        if stream.is_queued:
            return
        if is_whole:
            stream.is_queued = True
            self._start_if_permitted(stream)
        elif size >= STREAM_BYTES and not stream.create and self._n_growing < MAX_STREAMS:
            stream.is_queued = True
            self._n_growing += 1
            self._run_in_thread(stream, self._on_growing_ended)

    def abort(self, stream: UploadStream) -> None:
        """End an upload; the origin stores no object, unless it has all of it already."""
        if stream in self._streams:
            self._refuse(stream, upload_answer(UploadState.FAILED, "the upload was aborted"))

    def abort_all(self) -> "Deferred[None]":
        """End all uploads. Fires when the origin has removed what it had of them."""
        for stream in list(self._streams):
            self.abort(stream)
        if not self._streams:
            return succeed(None)
        self._idle = Deferred()
        return self._idle

    def _start_if_permitted(self, stream: UploadStream) -> None:
        """Start a whole upload if the origin can keep its condition."""

        def on_checked(answer: dict[str, Any]) -> None:
            if answer["state"] != UploadState.ALLOWED:
                self._answer(stream, answer)
            self._ready.append(stream)
            self._start_ready()

        allowed = succeed(upload_answer(UploadState.ALLOWED))
        (self._probe.wait() if stream.create else allowed).addCallback(on_checked)

    def _start_ready(self) -> None:
        while self._ready and self._n_whole < MAX_WHOLE:
            stream = self._ready[0]
            memory = stream.memory
            if self._n_whole and self._memory + memory > _MAX_MEMORY_BYTES:
                return
            self._ready.popleft()
            self._n_whole += 1
            self._memory += memory
            self._run_in_thread(stream, partial(self._on_whole_ended, memory))

    def _on_whole_ended(self, memory: int) -> None:
        self._n_whole -= 1
        self._memory -= memory
        self._start_ready()

    def _on_growing_ended(self) -> None:
        self._n_growing -= 1

    def _run_in_thread(self, stream: UploadStream, then: Callable[[], None]) -> None:
        if stream.answer.called:  # refused meanwhile
            self._end(stream)
            then()
        else:
            self._in_thread(lambda: self._run(stream, then))

    def _run(self, stream: UploadStream, then: Callable[[], None]) -> None:
        """Send an upload to the origin; runs in a thread."""
        state, reason = UploadState.FAILED, ""
        try:
            self._store.put(stream.key, stream.chunks(), stream.create)
            state = UploadState.STORED
            self._in_reactor(self._on_answer, None)
        except ObjectExists:
            state = UploadState.EXISTS
            self._in_reactor(self._on_answer, None)
        except OriginError as error:
            reason = f"origin {self._name}: {error.reason}"
            self._in_reactor(self._on_answer, error)
        except UploadAborted as error:
            reason = str(error)
        except BaseException as error:
            self.log.failure("internal error in an upload", event="upload_failed")
            reason = f"internal error: {error!r}"
        self._in_reactor(self._on_result, stream, upload_answer(state, reason), then)

    def _on_result(
        self, stream: UploadStream, answer: dict[str, Any], then: Callable[[], None]
    ) -> None:
        is_stored = answer["state"] == UploadState.STORED
        if is_stored:
            self.log.info(
                "origin {origin}: stored {key} ({size} bytes)",
                event="object_stored",
                origin=self._name,
                key=stream.key,
                size=stream.size,
            )
        self._end(stream, is_stored)
        self._answer(stream, answer)
        then()

    def _refuse(self, stream: UploadStream, answer: dict[str, Any]) -> None:
        stream.abort()
        self._answer(stream, answer)
        if not stream.is_queued:
            self._end(stream)

    def _answer(self, stream: UploadStream, answer: dict[str, Any]) -> None:
        if not stream.answer.called:
            stream.answer.callback(answer)

    def _end(self, stream: UploadStream, is_stored: bool = False) -> None:
        self._streams.discard(stream)
        self._usage.used -= stream.size
        self._on_end(stream.key, stream.size if is_stored else None)
        if self._idle is not None and not self._streams:
            idle, self._idle = self._idle, None
            idle.callback(None)
