"""Handlers: a program answers the requests of its server.

    request > Handler.read > bytes, path, file or stream > FileLike
    request > Handler.write > path, file or function > ReceivedFile

The methods of a handler may block: they run in the threads of the lookups, at most four at a time.
"""

import os
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import iscoroutine
from pathlib import Path
from shutil import copyfileobj
from threading import Lock
from typing import IO, Any, BinaryIO, Literal, TypeVar

from pydantic import ValidationError
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger, LogLevel

from tftpd.access.client import ClientIdentity
from tftpd.access.mounts import Mount, Mounts
from tftpd.access.paths import RequestName, printable_name, refuse_reserved
from tftpd.access.policy import Address, Grant, ReadPolicy, Symlinks, WritePolicy
from tftpd.config.directories import DirectorySection
from tftpd.config.types import ConfigModel
from tftpd.net.types import TID
from tftpd.protocol.errors import (
    AccessDenied,
    AlreadyExists,
    DiskFull,
    ErrorCode,
    ErrorText,
    NotFound,
    Refusal,
    RequestRefused,
    ResourceExhausted,
    ServerError,
    server_error_class,
)
from tftpd.protocol.negotiation import (
    MODES,
    Direction,
    Mode,
    OptionLimits,
    TransferOptions,
    negotiate,
)
from tftpd.protocol.packets import Rrq, Wrq
from tftpd.protocol.result import TransferResult
from tftpd.server.memory import MemoryBudget
from tftpd.server.request import OnEnd, ResolvedRead, ResolvedWrite, refuse_mode
from tftpd.storage.dentry_cache import DentryCache, WouldBlock
from tftpd.storage.errors import refusal_for
from tftpd.storage.resolver import FileResolver
from tftpd.storage.source import FileLike, FileSource
from tftpd.storage.streams import CollectedUpload, StreamSource
from tftpd.storage.upload import ReceivedFile, Upload
from tftpd.storage.walk import open_file

_READ_BYTES = 64 << 10  # of an open file at a time
_MAX_TEXT_CHARS = 128  # of an ERROR
_DEFAULT_MAX_BYTES = 64 << 20  # of an upload to a function, and of all in a `Memory`

T = TypeVar("T")
Section = TypeVar("Section", bound=ConfigModel)

_log = Logger()

_NO_THREAD = "transfer_ended was not called: no thread could be started"


@dataclass(frozen=True, slots=True)
class Stream:
    """Content of a file that is sent while it is made.

    Attributes:
        chunks: The content in parts of any size. An iterator is closed at the end of the transfer.
        size: Number of all bytes, for the option `tsize`; None if it is not known.
    """

    chunks: Iterable[bytes]
    size: int | None = None


Content = bytes | os.PathLike[str] | BinaryIO | Stream | Iterable[bytes] | FileLike
"""Content of a file that a handler sends."""

Destination = os.PathLike[str] | BinaryIO | Callable[[bytes], object] | ReceivedFile
"""Place for a file that a client sends."""


@dataclass(eq=False)
class ServerRequest:
    """A request for one file.

    Attributes:
        name: Name of the file: components with slashes between them. It has no slash at its start
            and no `..`, so that a path below a directory stays below it. Bytes that are not UTF-8
            are surrogate escapes, as in `os.fsdecode`.
        filename: The name exactly as the client sent it.
        client: Address of the client.
        port: Port of the client.
        server: Address of this server to which the client sent the request.
        direction: `Direction.READ` or `Direction.WRITE`.
        mode: Transfer mode.
        options: Requested options by their names in lower case.
        size: Size in bytes that the client announced for its upload; None if it did not.
    """

    name: str
    filename: bytes
    client: Address
    port: int
    server: str
    direction: Direction
    mode: Mode
    options: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None

    def __post_init__(self) -> None:
        self._environment = _Environment()
        self._handler: Handler | None = None  # that has accepted the request


class _NotSupported(AccessDenied):
    """The handler has no files in this direction."""


class Handler:
    """Base class of handlers. Override `read`, `write` or both.

    Each method may be a coroutine function if the server runs under asyncio or Twisted. To refuse
    a request, raise `NotFound`, `AccessDenied`, `AlreadyExists`, `DiskFull` or an `OSError` with
    that meaning. `ServerError("text")` sends the text to the client with ERROR 0. After any other
    exception the client gets ERROR 0, and the log has the traceback.
    """

    def read(self, request: ServerRequest) -> Content | Coroutine[Any, Any, Content]:
        """Return the content of a file that a client wants to read.

        Args:
            request: The request.

        Returns:
            The content as bytes; a `pathlib.Path`; a binary file, which is read from its position
            to its end and closed; a `Stream`, or another iterable of bytes.

        Raises:
            ServerError: The client gets an ERROR.
        """
        raise _NotSupported("the handler serves no files")

    def write(self, request: ServerRequest) -> Destination | Coroutine[Any, Any, Destination]:
        """Return the destination of a file that a client wants to write.

        Nothing of an incomplete upload reaches the destination.

        Args:
            request: The request.

        Returns:
            A `pathlib.Path`, which is replaced in one step; a binary file, which is written and
            closed; or a function that is called with the content. If the function raises an
            exception, the client gets an ERROR in place of the last ACK.

        Raises:
            ServerError: The client gets an ERROR.
        """
        raise _NotSupported("the handler takes no uploads")

    def transfer_ended(
        self, request: ServerRequest, result: TransferResult
    ) -> Coroutine[Any, Any, None] | None:
        """Take note of the end of a transfer that began.

        Args:
            request: The request that `read` or `write` has accepted.
            result: The result. An upload is complete and stored if `result.outcome` is
                `Outcome.DONE`.
        """


@dataclass(eq=False)
class _FunctionHandler(Handler):
    """A function that handles the downloads."""

    function: Callable[[ServerRequest], Any]

    def read(self, request: ServerRequest) -> Any:
        return self.function(request)


class Directory(Handler):
    """Files below a directory, with the confinement and the atomic uploads of the daemon."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read: bool = True,
        write: bool = False,
        create: bool = True,
        overwrite: bool = False,
        max_size: int | None = None,
        symlinks: Literal["deny", "inside", "chroot", "follow"] = "inside",
    ) -> None:
        """Initialize the handler.

        Args:
            path: The directory.
            read: Allow downloads.
            write: Allow uploads.
            create: Allow uploads of new files.
            overwrite: Allow uploads that replace files.
            max_size: Largest upload in bytes; None: no limit.
            symlinks: Handling of symbolic links, as the key `symlinks` of the configuration.

        Raises:
            ValueError: No file could be read or written.
        """
        root = os.fspath(Path(path).absolute())
        upload = {"create": create, "overwrite": overwrite, "max_size": max_size}
        self.section = validate(
            DirectorySection,
            root=root.replace("{", "{{").replace("}", "}}"),
            read=read,
            write=write and upload,
            symlinks=symlinks,
        )
        self._resolver = FileResolver(Mounts([self.section.build_mount()]))

    def read(self, request: ServerRequest) -> Content:
        """Open the file below the directory."""
        if self.section.read is None:
            raise _NotSupported("the directory is not for reading")

        def open_file() -> FileLike:
            name, client = RequestName(request.filename), ClientIdentity(request.client)
            return self._resolver.resolve(name, client, _render_nothing, blocking=True).source

        return _with_server_errors(open_file)

    def write(self, request: ServerRequest) -> Destination:
        """Begin an upload below the directory."""
        if self.section.write is None:
            raise _NotSupported("the directory is not for writing")

        def open_upload() -> ReceivedFile:
            name, client = RequestName(request.filename), ClientIdentity(request.client)
            grants = self._resolver.mounts.authorize_write(name.name, client)
            grants = [_limit_size(grant, request._environment.max_upload_size) for grant in grants]
            options = TransferOptions(request.mode)
            write = ResolvedWrite(name, grants, options, request.size)
            return write.open({}, self._resolver, blocking=True)

        return _with_server_errors(open_upload)


class Memory(Handler):
    """Files in memory.

    Attributes:
        files: Content by name, without a slash at the start. The program may change it at any
            time.
    """

    def __init__(
        self,
        files: Mapping[str, bytes] | None = None,
        *,
        write: bool = False,
        overwrite: bool = True,
        max_bytes: int = _DEFAULT_MAX_BYTES,
    ) -> None:
        """Initialize the handler.

        Args:
            files: Content by name.
            write: Allow uploads.
            overwrite: Allow uploads that replace files.
            max_bytes: Bytes of all files that an upload may not exceed.
        """
        self.files = {name.lstrip("/"): data for name, data in (files or {}).items()}
        self._write = write
        self._overwrite = overwrite
        self._max_bytes = max_bytes
        self._lock = Lock()

    def read(self, request: ServerRequest) -> Content:
        """Return the content of the file."""
        try:
            return self.files[request.name]
        except KeyError:
            raise NotFound(f"{request.name!r} is not in memory") from None

    def write(self, request: ServerRequest) -> Destination:
        """Return a function that stores the upload."""
        if not self._write:
            raise _NotSupported("the handler takes no uploads")
        self._check(request.name, request.size or 0)
        return partial(self._store, request.name)

    def _store(self, name: str, data: bytes) -> None:
        with self._lock:
            self._check(name, len(data))
            self.files[name] = data

    def _check(self, name: str, size: int) -> None:
        files = dict(self.files)
        if not name:
            raise AccessDenied("the name is empty")
        if not self._overwrite and name in files:
            raise AlreadyExists(f"{name!r} is in memory")
        files.pop(name, None)
        if size + sum(map(len, files.values())) > self._max_bytes:
            raise DiskFull(f"more than max_bytes ({self._max_bytes})")


class Chain(Handler):
    """Several handlers: the next one is tried if a file does not exist."""

    def __init__(self, *handlers: "Handler | Callable[[ServerRequest], Any]") -> None:
        """Initialize the chain.

        Args:
            handlers: Handlers or functions, in the order in which they are tried.
        """
        self._handlers = [to_handler(handler) for handler in handlers]

    def read(self, request: ServerRequest) -> Content:
        """Return the file of the first handler that has it."""
        return self._try(_open_content, request)

    def write(self, request: ServerRequest) -> Destination:
        """Return the upload of the first handler that takes it."""
        return self._try(_open_destination, request)

    def _try(self, action: Callable[[Handler, ServerRequest], T], request: ServerRequest) -> T:
        reason: ServerError = _NotSupported("no handler supports the request")
        for handler in self._handlers:
            try:
                return action(handler, request)
            except _NotSupported:
                pass
            except NotFound as error:
                reason = error
            except FileNotFoundError as error:
                reason = NotFound(str(error))
        raise reason


def validate(section: type[Section], **values: Any) -> Section:
    """Return a section of the configuration with these values.

    Raises:
        ValueError: A value is invalid.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        problems = [": ".join(map(str, (*each["loc"], each["msg"]))) for each in error.errors()]
        raise ValueError("; ".join(problems)) from None


def to_handler(handler: "Handler | Callable[[ServerRequest], Any]") -> Handler:
    """Return a handler; a function handles the downloads.

    Raises:
        TypeError: The value is neither a handler nor a function.
    """
    if isinstance(handler, Handler):
        return handler
    if not callable(handler) or isinstance(handler, type):
        raise TypeError(f"expected a Handler or a function, got {handler!r}")
    return _FunctionHandler(handler)


class _Environment:
    """Services of the server for its handlers.

    Attributes:
        share: Returns the source for bytes in memory.
        cache: Knows which file systems are local.
        max_upload_size: Largest upload in bytes; None: no limit.
        run_coroutine: Runs a coroutine in the program's event loop, and waits for its result.
    """

    def __init__(
        self,
        memory: MemoryBudget | None = None,
        max_upload_size: int | None = None,
        run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any] | None = None,
    ) -> None:
        self.share = (memory or MemoryBudget()).share
        self.cache = DentryCache()
        self.max_upload_size = max_upload_size
        self._run_coroutine = run_coroutine

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of a handler, perhaps a coroutine function."""
        result = function(*arguments)
        if not iscoroutine(result):
            return result
        if self._run_coroutine is None:
            result.close()
            raise TypeError("a coroutine function needs a server under asyncio or Twisted")
        return self._run_coroutine(result)


class HandlerResolver:
    """Resolves requests by a handler: the `RequestHandler` of a program's server."""

    def __init__(
        self,
        handler: Handler,
        in_thread: Callable[[Callable[[], None]], "Deferred[None]"],
        memory: MemoryBudget,
        max_upload_size: int | None = None,
        run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any] | None = None,
    ) -> None:
        """Initialize the resolver.

        Args:
            handler: The handler.
            in_thread: Runs a function in a thread.
            memory: Memory of the server's sessions.
            max_upload_size: Largest upload in bytes; None: no limit.
            run_coroutine: Runs a coroutine in the program's event loop, and waits for its result.
        """
        self._handler = handler
        self._in_thread = in_thread
        self._calls: set[Deferred[None]] = set()  # of `transfer_ended`, in threads
        self._environment = _Environment(memory, max_upload_size, run_coroutine)

    def resolve_read(
        self, request: Rrq, tid: TID, client: ClientIdentity, limits: OptionLimits, blocking: bool
    ) -> ResolvedRead:
        """Open the file of an RRQ; see `RequestHandler`."""
        server_request = self._make_request(request, tid, client, blocking)
        with _refusals(server_request):
            source = _open_content(self._handler, server_request)
        size = source.known_size
        options = negotiate(request.options, limits, server_request.mode, Direction.READ, size)
        on_end = self._on_end(server_request)
        return ResolvedRead(RequestName(request.filename), options, source, on_end)

    def resolve_write(
        self, request: Wrq, tid: TID, client: ClientIdentity, limits: OptionLimits, blocking: bool
    ) -> tuple[ResolvedWrite, ReceivedFile]:
        """Begin the upload of a WRQ; see `RequestHandler`."""
        server_request = self._make_request(request, tid, client, blocking)
        options = negotiate(request.options, limits, server_request.mode, Direction.WRITE)
        if server_request.mode is Mode.OCTET:
            server_request.size = options.tsize
        with _refusals(server_request):
            upload = _open_destination(self._handler, server_request)
        name, on_end = RequestName(request.filename), self._on_end(server_request)
        return ResolvedWrite(name, (), options, server_request.size, on_end), upload

    def _make_request(
        self, packet: Rrq | Wrq, tid: TID, client: ClientIdentity, blocking: bool
    ) -> ServerRequest:
        mode = MODES.get(packet.mode.lower()) or refuse_mode(packet)
        _, name = _ANY_NAME.locate(packet.filename, client)
        refuse_reserved(name)
        if not blocking:
            raise WouldBlock("handler")
        options = {_to_text(key).lower(): _to_text(value) for key, value in packet.options}
        direction = Direction.READ if isinstance(packet, Rrq) else Direction.WRITE
        request = ServerRequest(
            name=os.fsdecode(b"/".join(name)),
            filename=packet.filename,
            client=client.address,
            port=tid[0][1],
            server=client.server,
            direction=direction,
            mode=mode,
            options=options,
        )
        request._environment = self._environment
        return request

    def _on_end(self, request: ServerRequest) -> OnEnd | None:
        handler = request._handler
        if handler is None or type(handler).transfer_ended is Handler.transfer_ended:
            return None

        def call_handler(result: TransferResult) -> None:
            try:
                self._environment.call(handler.transfer_ended, request, result)
            except Exception:
                _log_error(request, "transfer_ended")

        def on_end(result: TransferResult) -> None:
            call = self._in_thread(partial(call_handler, result))
            self._calls.add(call)
            call.addErrback(lambda failure: _log.failure(_NO_THREAD, failure, LogLevel.error))
            call.addBoth(lambda _: self._calls.discard(call))

        return on_end

    def calls_ended(self) -> "Deferred[None]":
        """Return a Deferred that fires when no call of `transfer_ended` runs."""
        return DeferredList(list(self._calls)).addCallback(lambda _: None)


_ANY_NAME = Mounts([Mount((), ())])


def _to_text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _limit_size(grant: Grant[WritePolicy], max_size: int | None) -> Grant[WritePolicy]:
    """Return a grant for files of at most `max_size` bytes."""
    if max_size is None:
        return grant
    own = grant.policy.max_size
    max_size = max_size if own is None else min(own, max_size)
    return replace(grant, policy=replace(grant.policy, max_size=max_size))


def _render_nothing(template: Grant[ReadPolicy], name: RequestName, opened: FileLike) -> FileLike:
    raise RequestRefused(ErrorCode.NOT_DEFINED, "no template renderer is running")


def _with_server_errors(action: Callable[[], T]) -> T:
    """Return the result of `action`; raise a `ServerError` for a refusal, for programs."""
    try:
        return action()
    except ResourceExhausted:
        raise
    except RequestRefused as refused:
        raise server_error_class(refused.code)(str(refused), refused.code) from refused


_CODES: dict[type[ServerError], ErrorCode] = {
    NotFound: ErrorCode.FILE_NOT_FOUND,
    AccessDenied: ErrorCode.ACCESS_VIOLATION,
    DiskFull: ErrorCode.DISK_FULL,
    AlreadyExists: ErrorCode.FILE_EXISTS,
    Refusal: ErrorCode.ACCESS_VIOLATION,
    ServerError: ErrorCode.NOT_DEFINED,
}


def _to_refusal(error: ServerError) -> RequestRefused:
    """Return the refusal for an exception of a handler."""
    if isinstance(error.__cause__, RequestRefused):
        return error.__cause__
    code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
    # Only the meaning of ERROR 0 is in its text.
    text = error.text[:_MAX_TEXT_CHARS] if code is ErrorCode.NOT_DEFINED else ""
    return RequestRefused(code, error.text, text or None)


def _log_error(request: ServerRequest, method: str) -> None:
    # The level is not critical: Twisted prints critical events to stderr, besides the log.
    _log.failure(
        'the handler failed in {method} of "{file}"',
        level=LogLevel.error,
        event="handler_failed",
        method=method,
        file=printable_name(request.filename),
    )


@contextmanager
def _refusals(request: ServerRequest) -> Iterator[None]:
    """Raise `RequestRefused` for each exception of a handler; log those that are mistakes."""
    try:
        yield
    except (RequestRefused, WouldBlock, GeneratorExit):
        raise
    except ServerError as error:
        raise _to_refusal(error) from error
    except Exception as error:
        if isinstance(error, OSError):
            refused = refusal_for(error, ErrorText.READ_FAILED)
            if refused.code is not ErrorCode.NOT_DEFINED or isinstance(refused, ResourceExhausted):
                raise refused from error
        _log_error(request, request.direction.value)
        reason = f"{type(error).__name__} in the handler"
        raise RequestRefused(ErrorCode.NOT_DEFINED, reason, ErrorText.INTERNAL) from error


def _open_content(handler: Handler, request: ServerRequest) -> FileLike:
    """Return the open file for what a handler returns."""
    environment = request._environment
    content = environment.call(handler.read, request)
    if isinstance(content, FileLike):
        source = content
    elif isinstance(content, bytes | bytearray | memoryview):
        source = environment.share(bytes(content))
    elif isinstance(content, os.PathLike):
        grant = _grant_path(content, ReadPolicy())
        source = _with_server_errors(partial(_open_path, grant, environment.cache))
    elif isinstance(content, Stream):
        source = _open_stream(iter(content.chunks), content.size, request)
    elif hasattr(content, "read"):
        source = _open_file(content, request)
    elif isinstance(content, Iterable) and not isinstance(content, str):
        source = _open_stream(iter(content), None, request)
    else:
        raise TypeError(f"expected bytes, a pathlib.Path, a binary file or a stream: {content!r}")
    request._handler = request._handler or handler
    return source


def _open_path(grant: Grant[ReadPolicy], cache: DentryCache) -> FileSource:
    cache.learn_root(grant.directory)
    source = open_file(grant)
    source.blocking_device = cache.blocking_device(source.device)
    source.in_memory = cache.is_in_memory(source.device)
    return source


def _grant_path(path: os.PathLike[str], policy: Any) -> Grant[Any]:
    absolute = Path(path).absolute()
    name = os.fsencode(absolute.name)
    return Grant(absolute.parent, (name,) if name else (), policy, Symlinks.FOLLOW)


def _open_file(file: BinaryIO, request: ServerRequest) -> StreamSource:
    size = None
    if file.seekable():
        position = file.tell()
        size = file.seek(0, os.SEEK_END) - position
        file.seek(position)
    return _open_stream(iter(partial(file.read, _READ_BYTES), b""), size, request, file.close)


def _open_stream(
    chunks: Iterator[bytes],
    size: int | None,
    request: ServerRequest,
    close: Callable[[], object] | None = None,
) -> StreamSource:
    close_chunks: Callable[[], object] = getattr(chunks, "close", lambda: None)

    def guarded() -> Iterator[bytes]:
        with _refusals(request):
            for chunk in chunks:
                if not isinstance(chunk, bytes | bytearray | memoryview):
                    raise TypeError(f"expected an iterable of bytes, got {type(chunk).__name__}")
                yield bytes(chunk)

    return StreamSource(guarded(), size, partial(_call_guarded, request, close or close_chunks))


def _call_guarded(request: ServerRequest, function: Callable[..., object], *arguments: Any) -> None:
    with _refusals(request):
        request._environment.call(function, *arguments)


def _open_destination(handler: Handler, request: ServerRequest) -> ReceivedFile:
    """Return the upload for what a handler returns."""
    environment = request._environment
    destination = environment.call(handler.write, request)
    if isinstance(destination, ReceivedFile):
        upload = destination
    elif isinstance(destination, os.PathLike):
        policy = WritePolicy(overwrite=True, max_size=environment.max_upload_size)
        open_upload = partial(_open_upload, _grant_path(destination, policy), request)
        upload = _with_server_errors(open_upload)
    elif hasattr(destination, "write"):
        store = partial(_call_guarded, request, partial(_copy, to=destination))
        close = partial(_call_guarded, request, destination.close)
        upload = _collect(request, environment.max_upload_size, store, close)
    elif callable(destination):
        # The whole content is in memory at the end.
        is_default = environment.max_upload_size is None
        max_size = _DEFAULT_MAX_BYTES if is_default else environment.max_upload_size
        store = partial(_pass_content, request, destination)
        upload = _collect(request, max_size, store, lambda: None)
    else:
        raise TypeError(f"expected a pathlib.Path, a binary file or a function: {destination!r}")
    request._handler = request._handler or handler
    return upload


def _open_upload(grant: Grant[WritePolicy], request: ServerRequest) -> Upload:
    cache = request._environment.cache
    cache.learn_root(grant.directory)
    upload = Upload.open(grant, request.size, request.mode is Mode.NETASCII)
    upload.blocking_device = cache.blocking_device(upload.device)
    return upload


def _collect(
    request: ServerRequest,
    max_size: int | None,
    store: Callable[[IO[bytes]], None],
    close: Callable[[], object],
) -> CollectedUpload:
    is_netascii = request.mode is Mode.NETASCII
    if max_size is not None and request.size is not None and request.size > max_size:
        close()
        raise DiskFull(f"{request.size} bytes are more than {max_size}")
    return CollectedUpload(request.size, is_netascii, max_size, store, close)


def _copy(spool: IO[bytes], to: BinaryIO) -> None:
    copyfileobj(spool, to)
    to.flush()


def _pass_content(
    request: ServerRequest, function: Callable[[bytes], object], spool: IO[bytes]
) -> None:
    _call_guarded(request, function, spool.read())
