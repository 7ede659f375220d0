"""Resolve a requested name to a file: directly, or by the fallbacks.

    name > fallbacks > grants, one per root > file, or a file rendered from its template

Each name that a fallback produces passes the mounts, the policy and the walk below the root,
as if the client had requested it. Therefore no fallback gives access to a file that the client
could not request by its own name.
"""

from collections.abc import Callable, Hashable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from tftpd.access.client import ClientIdentity
from tftpd.access.fallbacks import Candidate, Fallback, LastReads
from tftpd.access.mounts import Mounts, NoMatchingDirectory
from tftpd.access.origin_roots import OriginRoot, object_key
from tftpd.access.paths import TEMPLATE, RequestName, is_template, printable_name
from tftpd.access.policy import Grant, ReadPolicy, Symlinks
from tftpd.protocol.errors import ErrorCode, ErrorText, HostFault, RequestRefused, ResourceExhausted
from tftpd.storage.casefold import ScanBudget, match_case_insensitive
from tftpd.storage.dentry_cache import DentryCache, WouldBlock
from tftpd.storage.errors import add_path, translate_os_errors
from tftpd.storage.negative_cache import MAX_CACHED_NAME_BYTES, DirectoryStamp, NegativeCache
from tftpd.storage.origin_files import NoOrigins, OriginFiles
from tftpd.storage.source import FileLike
from tftpd.storage.walk import open_file

TEMPLATED = "template"
"""Resolution step in results for a file that was rendered from a template."""

_MAX_NAMES = 5  # in the reason of a refusal
_MAX_NAME_BYTES = 255  # of each

# One lookup is one name below one root and takes about 50 us. The limits are for lookups
# without a thread, and for all lookups: a name that matches every fallback has 64
# alternatives, and there may be as many roots.
_MAX_NONBLOCKING_LOOKUPS = 32
_MAX_LOOKUPS = 128

OnName = Callable[[RequestName, str], None]
"""Called with each name tried and the reason it was rejected; the reason is empty for the name
that is served."""

RenderFile = Callable[[Grant[ReadPolicy], RequestName, FileLike], FileLike]
"""Renders the file with a name from its template, which is open. Blocks, and raises
`RequestRefused`."""


@dataclass(slots=True)
class ResolvedFile:
    """An open file and the name by which it was found; the owner of this value closes it."""

    name: RequestName
    grant: Grant[ReadPolicy]
    source: FileLike


class FileResolver:
    """Resolves requested names to files below the mounts."""

    def __init__(self, mounts: Mounts, origins: OriginFiles | None = None) -> None:
        """Initialize the resolver.

        Args:
            mounts: The mounts.
            origins: Opens files at origins; None refuses them.
        """
        self.mounts = mounts
        self.origins = origins or NoOrigins()
        self.cache = DentryCache()
        self.negative_cache = NegativeCache(self.cache)
        self.last_reads = LastReads() if Fallback.SIBLING in mounts.fallbacks else None

    def resolve(
        self,
        name: RequestName,
        client: ClientIdentity,
        render: RenderFile,
        blocking: bool,
        on_name: OnName | None = None,
    ) -> ResolvedFile:
        """Open the file that the client gets for a name.

        The fallbacks apply to names that do not exist. A file that exists but may not be
        read, or a link that leaves the directory, is refused at once.

        Args:
            name: The requested name, after the rewrite rules.
            client: The client, for grants that depend on it.
            render: Renders a template, or raises `WouldBlock`.
            blocking: Whether to wait for the disk.
            on_name: Observer of the names that are tried. With an observer, the negative
                cache is not read.

        Raises:
            RequestRefused: There is no such file, or the client may not read it.
            WouldBlock: Not blocking, and the file is not in memory.
            AnswerNeeded: An origin must be asked for the file first.
        """
        if not blocking and on_name is None:
            file = self._open_cached(name, client)
            if file is not None:
                if self.last_reads is not None:
                    self.last_reads.note(client.address, file.name.name)
                return file
        last_read = b"" if self.last_reads is None else self.last_reads.find(client.address)
        # Everything that a refusal depends on, except for the disk.
        key: tuple[Hashable, ...] = (name.name, name.steps, last_read)
        if self.mounts.per_client:
            key = (*key, client.address, client.mac if self.mounts.needs_mac else None)
        cached = None if on_name else self.negative_cache.get(key, blocking)
        if cached is not None:
            raise cached
        observer = on_name or _ignore_name
        search = _Search(
            self.mounts,
            self.cache,
            self.origins,
            name,
            client,
            render,
            blocking,
            observer,
            last_read,
        )
        try:
            file = search.run()
        except RequestRefused as refused:
            if search.all_missing and len(name.name) <= MAX_CACHED_NAME_BYTES:
                self.negative_cache.put(key, refused, search.stamps)
            raise
        if self.last_reads is not None:
            self.last_reads.note(client.address, file.name.name)
        return file

    def _open_cached(self, name: RequestName, client: ClientIdentity) -> ResolvedFile | None:
        """Open the file below its first root if all that it needs is in memory.

        Most requests are for such a file. For the others the search finds out the reason.
        """
        try:
            grant = self.mounts.authorize_read(name.name, client)[0]
        except RequestRefused:
            return None
        is_source = grant.policy.templates and grant.name and is_template(grant.name[-1])
        if is_source or grant.encodings:
            return None
        source = self.cache.open_file(grant)
        return None if source is None else ResolvedFile(name, grant, source)


@dataclass
class _Search:
    """One search, with the state that it collects.

    Attributes:
        last_read: Name of the file that the client has read last; empty if unknown.
        all_missing: No name was refused for another reason than that it does not exist.
    """

    mounts: Mounts
    cache: DentryCache
    origins: OriginFiles
    name: RequestName
    client: ClientIdentity
    render: RenderFile
    blocking: bool
    on_name: OnName
    last_read: bytes
    budget: ScanBudget = field(default_factory=ScanBudget)
    lookups: int = 0
    stamps: list[DirectoryStamp | None] = field(default_factory=list)
    all_missing: bool = True

    def run(self) -> ResolvedFile:
        requested = self.name
        try:
            return self._open_authorized(requested)
        except RequestRefused as refused:
            if not _is_missing(refused):
                self.all_missing = False
                raise requested.annotate(refused) from None
            first = _without_frames(refused)
        if not self.mounts.fallbacks:
            raise requested.annotate(first)
        self.on_name(requested, str(first))
        refusals = [first]
        tried: list[tuple[RequestName, str]] = []
        chain = self.mounts.fallback_chain
        fallbacks = self.mounts.fallbacks
        for candidate in chain.candidates(requested.name, fallbacks, self.last_read):
            if self.lookups >= _MAX_LOOKUPS:
                break
            name = candidate.to_request_name(requested)
            try:
                found = self._try(candidate, name)
            except _FallbackNotEnabled:
                continue
            except ResourceExhausted:
                raise  # unknown whether the file exists
            except RequestRefused as refused:
                self.on_name(name, str(refused))
                refusals.append(_without_frames(refused))
                exists = not _is_missing(refused)
                self.all_missing = self.all_missing and not exists
                if exists or name.name != requested.name:  # `case` looks up the same name
                    tried.append((name, f": {refused}" if exists else ""))
                continue
            self.on_name(found.name, "")
            return found
        reason = f"{requested.annotate(first)}{_describe_tried(tried)}"
        raise type(_select_reported(refusals))(first.code, reason, first.text)

    def _try(self, candidate: Candidate, name: RequestName) -> ResolvedFile:
        if candidate.ignores_case:
            return self._open_folded(candidate, name)
        self._check_enabled(candidate, name.name)
        return self._open_authorized(name)

    def _open_authorized(self, name: RequestName) -> ResolvedFile:
        grants = self.mounts.authorize_read(name.name, self.client)
        return self._open_first(grants, lambda grant: self._open_or_render(grant, name))

    def _open_first(
        self,
        grants: Sequence[Grant[ReadPolicy]],
        open_file: Callable[[Grant[ReadPolicy]], ResolvedFile],
    ) -> ResolvedFile:
        """Return the file of the first grant for which it exists; raise the first refusal else."""
        missing: list[RequestRefused] = []
        for grant in grants:
            try:
                return open_file(grant)
            except RequestRefused as refused:
                if not _is_missing(refused):
                    raise
                self.stamps.append(_find_stamp(grant))
                missing.append(_without_frames(refused))
        raise _select_reported(missing)

    def _open_or_render(self, grant: Grant[ReadPolicy], name: RequestName) -> ResolvedFile:
        templates = grant.policy.templates
        if templates and grant.name and is_template(grant.name[-1]):
            raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "templates are not served as files")
        try:
            return ResolvedFile(name, grant, self._open_source(grant))
        except RequestRefused as refused:
            if not (templates and grant.name and _is_missing(refused)):
                raise
            missing = _without_frames(refused)
        template = replace(grant, name=(*grant.name[:-1], grant.name[-1] + TEMPLATE))
        try:
            opened = self._open_source(template, whole=True)
        except RequestRefused as refused:
            raise (missing if _is_missing(refused) else refused) from None
        with closing(opened):
            source = self.render(template, name, opened)
        rendered = name.rewritten(name.name + TEMPLATE, TEMPLATED)
        return ResolvedFile(rendered, template, source)

    def _open_source(self, grant: Grant[ReadPolicy], whole: bool = False) -> FileLike:
        self.lookups += 1
        if isinstance(grant.root, OriginRoot):
            try:
                return self.origins.open(grant.root, object_key(grant.root, grant.name), whole)
            except RequestRefused as refused:
                raise add_path(refused, grant) from None
        if self.blocking:
            self.cache.learn_root(grant.root)
        elif (
            self.lookups > _MAX_NONBLOCKING_LOOKUPS
            or grant.encodings
            or not self.cache.is_cached(grant.root, grant.name, grant.symlinks)
        ):
            raise WouldBlock(grant.root)
        try:
            source = open_file(grant)
        except RequestRefused as refused:
            raise add_path(refused, grant) from None
        source.blocking_device = self.cache.blocking_device(source.device)
        source.in_memory = self.cache.is_in_memory(source.device)
        return source

    def _open_folded(self, candidate: Candidate, name: RequestName) -> ResolvedFile:
        """Open the file whose name on disk differs in letter case only."""
        folded = self.mounts.normalize_prefix(candidate.name)
        grants = self.mounts.authorize_read(folded, self.client)
        self._check_enabled(candidate, folded)
        if not self.blocking:
            raise WouldBlock(grants[0].directory)

        def open_spelled(grant: Grant[ReadPolicy]) -> ResolvedFile:
            self.lookups += 1
            with translate_os_errors(ErrorText.READ_FAILED):
                real, choices = match_case_insensitive(grant, self.budget)
            steps = (*name.steps, f"the first of {choices}") if choices > 1 else name.steps
            spelled = self.mounts.replace_tail(folded, real[grant.own :], self.client)
            self._check_enabled(candidate, spelled)
            return self._open_authorized(RequestName(spelled, steps, name.groups))

        try:
            return self._open_first(grants, open_spelled)
        except RequestRefused as refused:
            if _is_missing(refused):
                self.stamps += [DirectoryStamp.of(path) for path in self.budget.listed]
            raise

    def _check_enabled(self, candidate: Candidate, name: bytes) -> None:
        if not self.mounts.allows(candidate, name, self.client):
            raise _FallbackNotEnabled(ErrorCode.FILE_NOT_FOUND)


class _FallbackNotEnabled(RequestRefused):
    """The directory of the name does not enable a fallback that produced the name."""


def _ignore_name(name: RequestName, reason: str) -> None:
    """Observe nothing."""


def _select_reported(refusals: Sequence[RequestRefused]) -> RequestRefused:
    """Return the first fault of this host, or the first refusal if there is none."""
    faults = (refused for refused in refusals if isinstance(refused, HostFault))
    return next(faults, refusals[0])


def _find_stamp(grant: Grant[ReadPolicy]) -> DirectoryStamp | None:
    """Return the stamp by which the name of a grant stays known as missing; None if none is safe.

    An origin has no stamps. The kernel would resolve links of a chroot in the whole file system,
    and not find directories whose names are spelled in another encoding.
    """
    is_other = grant.symlinks is Symlinks.CHROOT or grant.encodings
    if is_other or isinstance(grant.root, OriginRoot):
        return None
    return DirectoryStamp.of_missing(grant.root, grant.name)


def _without_frames(refused: RequestRefused) -> RequestRefused:
    """Return a refusal without the frames that it has passed.

    A frame with a variable for the refusal would be part of a cycle. It would keep the file that
    is found in the end, such as a rendered one, until the garbage collector runs.
    """
    refused.__context__ = None
    return refused.with_traceback(None)


def _is_missing(refused: RequestRefused) -> bool:
    return refused.code is ErrorCode.FILE_NOT_FOUND or isinstance(refused, NoMatchingDirectory)


def _describe_tried(tried: list[tuple[RequestName, str]]) -> str:
    if not tried:
        return ""
    names = ", ".join(
        f'"{printable_name(name.name[:_MAX_NAME_BYTES])}" ({", ".join(name.steps)}{reason})'
        for name, reason in tried[:_MAX_NAMES]
    )
    more = len(tried) - _MAX_NAMES
    return f"; also tried {names}{f' and {more} more' if more > 0 else ''}"
