"""Uploads to an origin, in the processes that serve.

    client > file in the spool > fetcher, which reads it while it grows > origin

The client gets its last ACK when the origin has confirmed the object. Nothing here waits: the
fetcher answers over its socket.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from tftpd.access.origin_roots import OriginRoot
from tftpd.access.policy import WritePolicy
from tftpd.config.origins import SPOOL
from tftpd.origins.answers import AnswerCache, CallQueue
from tftpd.origins.fetcher_messages import (
    AbortUpload,
    CheckCreate,
    GrowUpload,
    StoreUpload,
    UploadState,
)
from tftpd.protocol.errors import ErrorCode, ErrorText, HostFault, RequestRefused
from tftpd.storage.errors import translate_os_errors
from tftpd.storage.origin_files import AnswerNeeded
from tftpd.storage.tempfiles import create_temporary
from tftpd.storage.upload import ReceivedFile, check_size

Call = Callable[..., "Deferred[Any]"]
"""Sends a command of `protocol` with its arguments to the fetcher."""

# An answer of `CheckCreate` is for the requests that wait for it, and those that repeat it.
_ANSWER_SECONDS = 1.0


class UploadSpool:
    """Directory of the uploads that their origins have not confirmed yet.

    Attributes:
        path: The directory.
        min_free: Space that stays free on its file system, in bytes.
    """

    def __init__(
        self,
        clock: IReactorTime,
        cache: Path,
        call: Call,
        calls: CallQueue,
        on_stored: Callable[[OriginRoot, str], None],
    ) -> None:
        """Initialize the spool.

        Args:
            clock: Monotonic time and timers.
            cache: Directory of the cache.
            call: Sends a command to the fetcher.
            calls: Wakes the requests that wait for an answer.
            on_stored: Called with the root and the key of an object that was stored.
        """
        self.clock = clock
        self.path = cache / SPOOL
        self.min_free = 0
        self.call = call
        self._on_stored = on_stored
        self._create_answers: AnswerCache[_CreateAnswer] = AnswerCache(clock, calls)

    def open(
        self, root: OriginRoot, key: str, policy: WritePolicy, size: int | None, netascii: bool
    ) -> ReceivedFile:
        """Begin an upload; see `OriginFiles.open_upload`."""
        check_size(size, policy)
        if not policy.overwrite:
            self._check_create(root, key)
        with translate_os_errors(ErrorText.WRITE_FAILED):
            return OriginUpload(self, root, key, policy, size, netascii)

    def ask(self, root: OriginRoot, key: str) -> "Deferred[None]":
        """Ask if an object can be created; see `AnswerCache.ask`."""

        def question() -> "Deferred[tuple[_CreateAnswer, float]]":
            answer = self.call(CheckCreate, origin=root.origin, key=key)
            answer.addCallbacks(_refusal_for, _failure_of)
            return answer.addCallback(lambda refused: (_CreateAnswer(refused), _ANSWER_SECONDS))

        return self._create_answers.ask(root, key, question)

    def on_stored(self, root: OriginRoot, key: str) -> None:
        """Forget what was known of an object that is stored now."""
        self._create_answers.forget(root, key)
        self._on_stored(root, key)

    def check_free(self, directory: int, size: int) -> None:
        """Raise `RequestRefused` if `size` more bytes would not leave `min_free` bytes."""
        volume = os.fstatvfs(directory)
        free = volume.f_bavail * volume.f_frsize
        if free - size < self.min_free:
            reason = f"{free} bytes are free for uploads, and cache.min_free is {self.min_free}"
            raise HostFault(ErrorCode.DISK_FULL, reason)

    def _check_create(self, root: OriginRoot, key: str) -> None:
        answer = self._create_answers.find(root, key)
        if answer is None:
            raise AnswerNeeded(root, key, create=True)
        if answer.refused is not None:
            raise answer.refused


@dataclass(frozen=True, slots=True)
class _CreateAnswer:
    """Answer of `CheckCreate`: the refusal, or None if an upload may begin."""

    refused: RequestRefused | None


class OriginUpload(ReceivedFile):
    """A file on its way to an origin."""

    def __init__(
        self,
        spool: UploadSpool,
        root: OriginRoot,
        key: str,
        policy: WritePolicy,
        size: int | None,
        netascii: bool,
    ) -> None:
        """Create the file in the spool; raise `OSError` or `RequestRefused` if that fails."""
        super().__init__(policy, size, netascii)
        self._spool = spool
        self._root = root
        self._key = key
        self._is_sent = False  # the fetcher knows the file
        self._is_answered = False
        self._refused: RequestRefused | None = None
        self._done: Callable[[RequestRefused | None], None] | None = None
        spool.path.mkdir(mode=0o700, exist_ok=True)
        self._directory = os.open(spool.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            spool.check_free(self._directory, size or 0)
            self._temporary, self._fd = create_temporary(self._directory)
        except BaseException:
            os.close(self._directory)
            raise

    def flush(self) -> None:
        """Write the collected data, which the fetcher may then read.

        Raises:
            RequestRefused: The disk is full, or the origin has refused the upload.
        """
        self._flush()
        self._report(is_whole=False)

    def begin_commit(self, done: Callable[[RequestRefused | None], None]) -> None:
        """Call `done` when the origin has confirmed the object; see `ReceivedFile`."""
        try:
            self._complete()
        except RequestRefused as refused:
            self.discard()
            self._spool.clock.callLater(0, done, refused)
        else:
            self._done = done
            self._report(is_whole=True)

    def discard(self) -> None:
        """Remove the file; without a confirmation of the origin, let it store no object."""
        if self._fd < 0:
            return
        if self._is_sent and not self._is_answered:
            self._send(AbortUpload)
        fd, self._fd = self._fd, -1
        with contextlib.suppress(OSError):
            os.unlink(self._temporary, dir_fd=self._directory)
        for descriptor in (fd, self._directory):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _flush(self) -> None:
        if self._refused is not None:
            raise self._refused
        data = self._take_pending()
        with translate_os_errors(ErrorText.WRITE_FAILED):
            self._spool.check_free(self._directory, len(data))
            while data:
                data = data[os.write(self._fd, data) :]

    def _report(self, is_whole: bool) -> None:
        """Tell the fetcher the size of the file."""
        if self._is_sent:
            self._send(GrowUpload, size=self.size, is_whole=is_whole)
            return
        self._is_sent = True
        answer = self._spool.call(
            StoreUpload,
            origin=self._root.origin,
            key=self._key,
            basename=self._temporary.decode(),
            create=not self.policy.overwrite,
            size=self.size,
            is_whole=is_whole,
        )
        answer.addCallbacks(_refusal_for, _failure_of).addCallback(self._on_answer)

    def _send(self, command: Any, **arguments: Any) -> None:
        sent = self._spool.call(command, basename=self._temporary.decode(), **arguments)
        # Without a connection, the answer to StoreUpload is a failure.
        sent.addErrback(lambda _: None)

    def _on_answer(self, refused: RequestRefused | None) -> None:
        self._is_answered, self._refused = True, refused
        self.discard()  # the session may dally for seconds
        if refused is None:
            self._spool.on_stored(self._root, self._key)
        done, self._done = self._done, None
        if done is not None:
            done(refused)


def _refusal_for(answer: dict[str, Any]) -> RequestRefused | None:
    """Return the refusal for an answer of the fetcher; None if the upload is stored or allowed."""
    reason = answer["reason"]
    match UploadState(answer["state"]):
        case UploadState.STORED | UploadState.ALLOWED:
            return None
        case UploadState.EXISTS:
            return RequestRefused(ErrorCode.FILE_EXISTS)
        case UploadState.REFUSED:
            return HostFault(ErrorCode.ACCESS_VIOLATION, reason)
        case UploadState.FULL:
            return HostFault(ErrorCode.DISK_FULL, reason)
        case _:
            return HostFault(ErrorCode.NOT_DEFINED, reason, ErrorText.WRITE_FAILED)


def _failure_of(failure: Failure) -> RequestRefused:
    reason = f"no process that fetches from origins answers: {failure.getErrorMessage()}"
    return HostFault(ErrorCode.NOT_DEFINED, reason, ErrorText.WRITE_FAILED)
