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

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from tftpd.access.origins import OriginRoot
from tftpd.access.policy import WritePolicy
from tftpd.config.origins import SPOOL
from tftpd.origins.protocol import (
    AbortUpload,
    CheckCreate,
    GrowUpload,
    StoreUpload,
    UploadState,
)
from tftpd.protocol.errors import ErrorCode, ErrorText, HostFault, RequestRefused, ResourceExhausted
from tftpd.storage.errors import translate_os_errors
from tftpd.storage.origins import AnswerNeeded
from tftpd.storage.tempfiles import create_temporary
from tftpd.storage.upload import ReceivedFile, check_size

Call = Callable[..., "Deferred[Any]"]
"""Sends a command of `protocol` with its arguments to the fetcher."""

# How long an answer of `CheckCreate` is used.
_ANSWER_SECONDS = 10.0
_FAILURE_SECONDS = 1.0

_MAX_WAITING = 2000  # for an answer; requests that were dropped meanwhile are among them


@dataclass(frozen=True, slots=True)
class _CreateAnswer:
    """Answer of `CheckCreate`: None if the origin can be used, and the end of its use."""

    refused: RequestRefused | None
    expires_at: float


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
        on_stored: Callable[[OriginRoot, str], None],
    ) -> None:
        """Initialize the spool.

        Args:
            clock: Monotonic time and timers.
            cache: Directory of the cache.
            call: Sends a command to the fetcher.
            on_stored: Called with the root and the key of an object that was stored.
        """
        self.clock = clock
        self.path = cache / SPOOL
        self.min_free = 0
        self.call = call
        self.on_stored = on_stored
        self._create_answers: dict[str, _CreateAnswer] = {}
        self._waiting: dict[str, list[Deferred[None]]] = {}

    def open(
        self, root: OriginRoot, key: str, policy: WritePolicy, size: int | None, netascii: bool
    ) -> ReceivedFile:
        """Begin an upload; see `OriginFiles.open_upload`."""
        check_size(size, policy)
        if not policy.overwrite:
            self._check_create(root, key)
        with translate_os_errors(ErrorText.WRITE_FAILED):
            return OriginUpload(self, root, key, policy, size, netascii)

    def ask(self, needed: AnswerNeeded) -> "Deferred[None]":
        """Ask whether an origin refuses to create an object that exists.

        Returns:
            A Deferred that fires later, when `open` does not raise `AnswerNeeded`. It fails with
            `ResourceExhausted` if too many requests wait for this origin.
        """
        origin = needed.root.origin
        done: Deferred[None] = Deferred()
        waiting = self._waiting.setdefault(origin, [])
        if len(waiting) >= _MAX_WAITING:
            reason = f"{_MAX_WAITING} uploads wait for an answer of {needed.root}"
            return fail(ResourceExhausted(ErrorCode.NOT_DEFINED, reason))
        waiting.append(done)
        if len(waiting) == 1:
            answer = self.call(CheckCreate, origin=origin)
            answer.addCallbacks(_refusal_for, _failure_of).addCallback(self._on_checked, origin)
        return done

    def check_free(self, directory: int, size: int) -> None:
        """Raise `RequestRefused` if `size` more bytes would not leave `min_free` bytes."""
        volume = os.fstatvfs(directory)
        free = volume.f_bavail * volume.f_frsize
        if free - size < self.min_free:
            reason = f"{free} bytes are free for uploads, and cache.min_free is {self.min_free}"
            raise HostFault(ErrorCode.DISK_FULL, reason)

    def _check_create(self, root: OriginRoot, key: str) -> None:
        answer = self._create_answers.get(root.origin)
        if answer is None or self.clock.seconds() >= answer.expires_at:
            raise AnswerNeeded(root, key, create=True)
        if answer.refused is not None:
            raise answer.refused

    def _on_checked(self, refused: RequestRefused | None, origin: str) -> None:
        seconds = _ANSWER_SECONDS if refused is None else _FAILURE_SECONDS
        expires_at = self.clock.seconds() + seconds
        self._create_answers[origin] = _CreateAnswer(refused, expires_at)
        for done in self._waiting.pop(origin):
            # Not now: each of them may start a session.
            self.clock.callLater(0, done.callback, None)


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

    def commit(self) -> None:
        """Not called: `commit_later` needs no thread."""
        raise NotImplementedError

    def commit_later(self, done: Callable[[RequestRefused | None], None]) -> bool:
        """Call `done` when the origin has confirmed the object; see `ReceivedFile`."""
        try:
            self._complete()
        except RequestRefused as refused:
            self.discard()
            self._spool.clock.callLater(0, done, refused)
        else:
            self._done = done
            self._report(is_whole=True)
        return True

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
