"""Resolve a request: the decision, without ports and sessions.

    mode > rewrite > resolve (authorize > open, with fallback names) > negotiate

The listener acts on the decision, and `tftpd explain` shows it. A step that cannot
continue raises `RequestRefused`. In non-blocking mode a step that would wait for a disk
raises `WouldBlock`; then all steps run again in a thread.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

from tftpd.access.client import ClientIdentity
from tftpd.access.mounts import Mounts
from tftpd.access.origin_roots import OriginRoot, object_key
from tftpd.access.paths import RequestName
from tftpd.access.policy import Grant, ReadPolicy, WritePolicy
from tftpd.access.rewrite import apply_rules
from tftpd.net.types import TID
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.negotiation import (
    MODES,
    Direction,
    Mode,
    OptionLimits,
    TransferOptions,
    negotiate,
)
from tftpd.protocol.packets import Request, Rrq, Wrq
from tftpd.protocol.result import TransferResult
from tftpd.storage.dentry_cache import WouldBlock
from tftpd.storage.errors import add_path
from tftpd.storage.quota import UsageTracker
from tftpd.storage.resolver import FileResolver
from tftpd.storage.source import FileLike, read_whole
from tftpd.storage.upload import ReceivedFile, Upload, check_size
from tftpd.templates.protocol import check_template_size

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RenderContext:
    """Context for rendering a template.

    Attributes:
        requested: The name in the request.
        name: The resolved name.
        client: The client.
        source: The template if it is at an origin; None: the renderer reads it.
    """

    requested: bytes
    name: RequestName
    client: ClientIdentity
    source: bytes | None = None


OnEnd = Callable[[TransferResult], None]

Render = Callable[[Grant[ReadPolicy], RenderContext], FileLike]
"""Renders a template to a file; blocks; raises `RequestRefused`."""


def no_render(template: Grant[ReadPolicy], context: RenderContext) -> FileLike:
    """Refuse to render a template."""
    raise RequestRefused(ErrorCode.NOT_DEFINED, "no template renderer is running")


@dataclass(slots=True)
class ResolvedRead:
    """A granted read.

    Attributes:
        name: Name under which the file was found.
        options: Negotiated options.
        source: The open file; the owner of this value closes it.
        on_end: Called with the result of the transfer; None: nobody waits for it.
        is_hashed: True if the result has the SHA-256 of the file.
    """

    name: RequestName
    options: TransferOptions
    source: FileLike
    on_end: OnEnd | None = None
    is_hashed: bool = False


@dataclass(frozen=True, slots=True)
class ResolvedWrite:
    """A write that the policy grants. The file system is not checked yet.

    Attributes:
        name: Name under which the file will be stored.
        grants: Permission to write below each root, in order of preference.
        options: Negotiated options.
        size: Size of the file in bytes; None if unknown.
        on_end: Called with the result of the transfer; None: nobody waits for it.
    """

    name: RequestName
    grants: Sequence[Grant[WritePolicy]]
    options: TransferOptions
    size: int | None
    on_end: OnEnd | None = None

    def open(
        self, usage_trackers: Mapping[Path, UsageTracker], resolver: FileResolver, blocking: bool
    ) -> ReceivedFile:
        """Create the upload below the first root that has the directory of the name.

        An origin has the directory of any name.

        Args:
            usage_trackers: Disk usage of roots with a quota.
            resolver: Has the origins, and answers whether a directory can be opened without disk
                I/O.
            blocking: False: raise `WouldBlock` rather than wait for a disk.

        Raises:
            RequestRefused: No root accepts the file.
            WouldBlock: The directory is not cached.
            AnswerNeeded: An origin must be asked first.
        """
        cache = resolver.cache
        netascii = self.options.mode is Mode.NETASCII

        def create(grant: Grant[WritePolicy], directories: bool = False) -> ReceivedFile:
            if isinstance(grant.root, OriginRoot):
                key = object_key(grant.root, grant.name)
                return resolver.origins.open_upload(grant.root, key, grant, self.size, netascii)
            if blocking:
                cache.learn_root(grant.root)
            elif grant.encodings or not cache.is_cached(
                grant.root, grant.name[:-1], grant.symlinks
            ):
                raise WouldBlock(grant.root)
            tracker = usage_trackers.get(grant.root)
            upload = Upload.open(grant, self.size, netascii, tracker, directories)
            upload.blocking_device = cache.blocking_device(upload.device)
            return upload

        return self._try_grants(create, partial(create, directories=True))

    def check(self) -> None:
        """Raise `RequestRefused` if `open()` would, without a change on disk.

        An origin is not asked.
        """

        def check(grant: Grant[WritePolicy], directories: bool = False) -> None:
            if isinstance(grant.root, OriginRoot):
                object_key(grant.root, grant.name)
                check_size(self.size, grant.policy)
                return
            tracker = UsageTracker(grant.root) if grant.policy.needs_usage else None
            if tracker is not None:
                if grant.policy.versions is not None:
                    tracker.versions = frozenset([Path(grant.policy.versions)])
                tracker.counts_directories = grant.policy.create_directories
                tracker.measure()
            Upload.check(grant, self.size, tracker, directories)

        self._try_grants(check, partial(check, directories=True))

    def _try_grants(
        self,
        action: Callable[[Grant[WritePolicy]], T],
        create: Callable[[Grant[WritePolicy]], T],
    ) -> T:
        """Return the result of `action` for the first grant whose directory exists.

        If there is none, return that of `create` for the first grant, if its policy allows it.
        """
        not_found = []
        attempts = [(action, grant) for grant in self.grants]
        if self.grants[0].policy.create_directories:
            attempts.append((create, self.grants[0]))
        for attempt, grant in attempts:
            try:
                return attempt(grant)
            except RequestRefused as original:
                refused = add_path(original, grant)
                if refused.code is not ErrorCode.FILE_NOT_FOUND:
                    raise self.name.annotate(refused) from None
                not_found.append(refused)
        raise self.name.annotate(
            not_found[-1] if len(attempts) > len(self.grants) else not_found[0]
        )


class RequestHandler(Protocol):
    """Answers the requests of a program's server, in place of directories.

    Both methods raise `RequestRefused`, and `WouldBlock` if they are called without `blocking`.
    """

    def resolve_read(
        self, request: Rrq, tid: TID, client: ClientIdentity, limits: OptionLimits, blocking: bool
    ) -> ResolvedRead:
        """Open the file of an RRQ and negotiate its options."""
        ...

    def resolve_write(
        self, request: Wrq, tid: TID, client: ClientIdentity, limits: OptionLimits, blocking: bool
    ) -> tuple[ResolvedWrite, ReceivedFile]:
        """Begin the upload of a WRQ and negotiate its options."""
        ...


def resolve_read(
    request: Rrq,
    client: ClientIdentity,
    resolver: FileResolver,
    limits: OptionLimits,
    render: Render | None,
    blocking: bool,
) -> ResolvedRead:
    """Find and open the file of an RRQ and negotiate its options.

    Args:
        request: The RRQ.
        client: The client.
        resolver: Resolver of names.
        limits: Limits of the options.
        render: Renders a template. None: raise `WouldBlock`.
        blocking: False: raise `WouldBlock` rather than wait for a disk.

    Raises:
        RequestRefused: The client gets no file.
        WouldBlock: The file cannot be opened without disk I/O or rendering.
        AnswerNeeded: An origin must be asked first.
    """
    mode = MODES.get(request.mode.lower()) or refuse_mode(request)
    filename = request.filename
    name_rules = resolver.mounts.name_rules
    name = RequestName(filename) if filename.isascii() else name_rules.decode(filename)
    if name_rules.rules:
        name = apply_rules(name_rules.rules, name.name, False, client, steps=name.steps)

    if resolver.mounts.mac_from_name:
        client = resolver.mounts.identify(name.name, client)

    def render_file(template: Grant[ReadPolicy], name: RequestName, opened: FileLike) -> FileLike:
        if render is None:
            raise WouldBlock(template.root, True)
        source = None
        if isinstance(template.root, OriginRoot):
            check_template_size(opened.size)
            source = read_whole(opened)
        return render(template, RenderContext(request.filename, name, client, source))

    file = resolver.resolve(name, client, render_file, blocking)
    if request.options:
        options = negotiate(request.options, limits, mode, Direction.READ, file.source.size)
    else:
        options = TransferOptions(mode, rollover=limits.rollover)
    is_hashed = file.grant.policy.sha256
    return ResolvedRead(file.name, options, file.source, is_hashed=is_hashed)


def resolve_write(
    request: Wrq, client: ClientIdentity, mounts: Mounts, limits: OptionLimits
) -> ResolvedWrite:
    """Authorize a WRQ and negotiate its options.

    Raises:
        RequestRefused: The client may not write this name.
    """
    mode = MODES.get(request.mode.lower()) or refuse_mode(request)
    decoded = mounts.name_rules.decode(request.filename)
    rules = mounts.name_rules.rules
    name = apply_rules(rules, decoded.name, True, client, steps=decoded.steps)
    try:
        grants = mounts.authorize_write(name.name, client)
    except RequestRefused as refused:
        raise name.annotate(refused) from None
    if mounts.renames_uploads:
        stored = mounts.stored_name(name.name, grants, client)
        name = name if stored == name.name else name.rewritten(stored, "store_as")
    options = negotiate(request.options, limits, mode, Direction.WRITE)
    # Netascii text is longer on the wire than on disk, by one byte per line: `tsize` is
    # not the size of the file.
    return ResolvedWrite(name, grants, options, options.tsize if mode is Mode.OCTET else None)


def refuse_mode(request: Request) -> NoReturn:
    """Raise `RequestRefused` for a request with a mode that is not in `MODES`."""
    raise RequestRefused(ErrorCode.ILLEGAL_OPERATION, f"mode {request.mode!r} is not supported")
