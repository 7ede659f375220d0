"""The file for a name: the one that was asked for, or one that the ladder leads to.

    name > ladder > grants, one for each root > file, or what is made of its template

Each name takes the same way from the start, through mounts, policy and the walk
beneath the root, as if the client had asked for it. So no rung leads where a
client could not go, and what it may not read stays unread.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import starmap

from tftpd.access.client import Client
from tftpd.access.fallbacks import Candidate
from tftpd.access.mounts import Mounts, NoMatchingDirectory
from tftpd.access.paths import TEMPLATE, RequestName, is_template, printable_name
from tftpd.access.policy import Grant, ReadPolicy, Symlinks
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused, ResourceExhausted
from tftpd.storage.casefold import ScanBudget, match_case_insensitive
from tftpd.storage.dentry_cache import DentryCache, WouldBlock
from tftpd.storage.errors import translate_os_errors
from tftpd.storage.negative_cache import (
    LONGEST_KNOWN,
    DirectoryStamp,
    NegativeCache,
    stable_stamp,
    stamp_of_missing,
)
from tftpd.storage.source import FileLike, FileSource, MemorySource

TEMPLATED = "template"
"""What reports say of a file that was made of one."""

_TOLD = 5  # names that a refusal tells
_TOLD_OCTETS = 255  # of each

# A place is a name beneath one root, and takes some 50 us. So many are looked at
# without a thread, and so many in all: a name that fits every rung has 64 others,
# and there may be as many roots.
_AT_ONCE = 32
_MOST_PLACES = 128

Note = Callable[[RequestName, str], None]
"""Is told each name that was tried, and why it was not served, or ``."""

Render = Callable[[Grant[ReadPolicy], RequestName], bytes]
"""Makes the file by a name out of its template; blocks, and raises `Refused`."""


@dataclass(frozen=True, slots=True)
class ResolvedFile:
    """A file, open and the caller's to close, and the name it was found by."""

    named: RequestName
    grant: Grant[ReadPolicy]
    source: FileLike


class FileResolver:
    """Finds files in mounts."""

    def __init__(self, mounts: Mounts) -> None:
        self.mounts = mounts
        self.cache = DentryCache()
        self.negative_cache = NegativeCache(self.cache)

    def resolve(
        self,
        asked: RequestName,
        client: Client,
        render: Render,
        wait: bool,
        note: Note | None = None,
    ) -> ResolvedFile:
        """The file that `client` gets for `asked`; raises `Refused`.

        Without `wait` it asks no disk and makes no file, but raises `Slow`
        where it would have to. The ladder is for what is not there: what is
        there and may not be read, or leaves its directory, is refused at once.
        Each name that is tried is told to `note`; then nothing is recalled.
        """
        key = self._key(asked, client)
        known = None if note else self.negative_cache.get(key, wait)
        if known is not None:
            raise known
        search = _Search(self, asked, client, render, wait, note or (lambda named, why: None))
        try:
            return search.find()
        except RequestRefused as refused:
            if search.missing and len(asked.name) <= LONGEST_KNOWN:
                self.negative_cache.put(key, refused, search.witnesses)
            raise

    def _key(self, asked: RequestName, client: Client) -> Hashable:
        """What a refusal depends on besides the disk."""
        if not self.mounts.per_client:
            return asked.name, asked.steps
        mac = client.mac if self.mounts.needs_mac else None
        return asked.name, asked.steps, client.address, mac


class _Search:
    """One search, and what it came by."""

    __slots__ = (
        *("_mounts", "_cache", "_asked", "_client", "_render", "_wait", "_note", "_room"),
        "_places",
        *("witnesses", "missing"),
    )

    def __init__(
        self,
        finder: FileResolver,
        asked: RequestName,
        client: Client,
        render: Render,
        wait: bool,
        note: Note,
    ) -> None:
        self._mounts = finder.mounts
        self._cache = finder.cache
        self._asked = asked
        self._client = client
        self._render = render
        self._wait = wait
        self._note = note
        self._room = ScanBudget()
        self._places = 0  # that were looked at
        self.witnesses: list[DirectoryStamp | None] = []
        self.missing = True  # nothing was refused but for not being there

    def find(self) -> ResolvedFile:
        asked = self._asked
        try:
            return self._open(asked, self._mounts.authorize_read(asked.name, self._client))
        except RequestRefused as refused:
            if not _missing(refused):
                self.missing = False
                raise asked.annotate(refused) from None
            first = refused
        if not self._mounts.fallbacks:
            raise asked.annotate(first)
        self._note(asked, str(first))
        tried: list[tuple[RequestName, str]] = []
        for candidate in self._mounts.candidates(asked.name):
            if self._places >= _MOST_PLACES:
                break
            named = candidate.to_request_name(asked)
            try:
                found = self._try(candidate, named)
            except _OffLadder:
                continue
            except ResourceExhausted:
                raise  # whether it is there nobody knows
            except RequestRefused as refused:
                self._note(named, str(refused))
                there = not _missing(refused)
                self.missing = self.missing and not there
                if there or named.name != asked.name:  # `case` looks for the same name
                    tried.append((named, f": {refused}" if there else ""))
                continue
            self._note(found.named, "")
            return found
        why = f"{asked.annotate(first)}{_also(tried)}"
        raise RequestRefused(first.code, why, first.text)

    def _try(self, candidate: Candidate, named: RequestName) -> ResolvedFile:
        if candidate.ignores_case:
            return self._open_folded(candidate, named)
        self._check(candidate, named.name)
        return self._open(named, self._mounts.authorize_read(named.name, self._client))

    def _open(self, named: RequestName, grants: Sequence[Grant[ReadPolicy]]) -> ResolvedFile:
        """The file beneath the first root that has it."""
        missing = []
        for grant in grants:
            try:
                return self._open_beneath(grant, named)
            except RequestRefused as refused:
                if not _missing(refused):
                    raise
                missing.append(refused)
                self.witnesses.append(stamp_of_missing(grant.root, grant.name))
        raise missing[0]

    def _open_beneath(self, grant: Grant[ReadPolicy], named: RequestName) -> ResolvedFile:
        made = grant.policy.templates
        if made and grant.name and is_template(grant.name[-1]):
            raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "a template is not read as it is")
        try:
            return ResolvedFile(named, grant, self._source(grant))
        except RequestRefused as refused:
            if not (made and grant.name and _missing(refused)):
                raise
            missing = refused
        template = replace(grant, name=(*grant.name[:-1], grant.name[-1] + TEMPLATE))
        try:
            self._source(template).close()
        except RequestRefused as refused:
            raise (missing if _missing(refused) else refused) from None
        if not self._wait:
            raise WouldBlock(template.root, template.name)
        octets = self._render(template, named)
        named = named.rewritten(named.name + TEMPLATE, TEMPLATED)
        return ResolvedFile(named, template, MemorySource(octets))

    def _source(self, grant: Grant[ReadPolicy]) -> FileSource:
        self._places += 1
        if not self._wait and (self._places > _AT_ONCE or not self._knows(grant)):
            raise WouldBlock(grant.root)
        return FileSource.open(grant)

    def _knows(self, grant: Grant[ReadPolicy]) -> bool:
        return self._cache.is_cached(grant.root, grant.name, grant.symlinks is Symlinks.FOLLOW)

    def _open_folded(self, candidate: Candidate, named: RequestName) -> ResolvedFile:
        """The file whose name the directories spell in letters of another case."""
        name = self._mounts.normalize_prefix(candidate.name)
        grants = self._mounts.authorize_read(name, self._client)
        self._check(candidate, name)
        if not self._wait:
            raise WouldBlock(grants[0].root)
        missing = []
        for grant in grants:
            try:
                return self._open_spelled(candidate, name, grant, named)
            except RequestRefused as refused:
                if not _missing(refused):
                    raise
                missing.append(refused)
        self.witnesses += [stable_stamp(path) for path in self._room.listed]
        raise missing[0]

    def _open_spelled(
        self, candidate: Candidate, name: bytes, grant: Grant[ReadPolicy], named: RequestName
    ) -> ResolvedFile:
        self._places += 1
        with translate_os_errors(ErrorText.READ_FAILED):
            real = match_case_insensitive(grant.root, grant.name, grant.symlinks, self._room)
        by = (*named.steps, f"the first of {real.choices}") if real.choices > 1 else named.steps
        said = self._mounts.replace_tail(name, real.name[grant.own :])
        self._check(candidate, said)
        return self._open(
            RequestName(said, by, named.groups), self._mounts.authorize_read(said, self._client)
        )

    def _check(self, candidate: Candidate, name: bytes) -> None:
        if not set(candidate.fallbacks) <= set(self._mounts.fallbacks_for(name)):
            raise _OffLadder(ErrorCode.FILE_NOT_FOUND)


class _OffLadder(RequestRefused):
    """The directory has a ladder without one of the rungs."""


def _missing(refused: RequestRefused) -> bool:
    return refused.code is ErrorCode.FILE_NOT_FOUND or isinstance(refused, NoMatchingDirectory)


def _told(named: RequestName, why: str) -> str:
    return f'"{printable_name(named.name[:_TOLD_OCTETS])}" ({", ".join(named.steps)}{why})'


def _also(tried: list[tuple[RequestName, str]]) -> str:
    if not tried:
        return ""
    more = f" and {len(tried) - _TOLD} more" if len(tried) > _TOLD else ""
    return f"; nor is {', '.join(starmap(_told, tried[:_TOLD]))}{more}"
