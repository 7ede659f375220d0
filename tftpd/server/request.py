"""What a request is answered with: the decision, apart from ports and sessions.

    mode > rewrite > find (authorize > open the file, by another name if need be) > agree

The listener acts on it, and `tftpd explain` shows it. A step that cannot go
on raises `Refused`; without `wait` one that would take its time raises `Slow`,
and then all is done again, in a thread.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tftpd.access.client import Client
from tftpd.access.mounts import Mounts
from tftpd.access.paths import RequestName
from tftpd.access.policy import Grant, ReadPolicy, Symlinks, WritePolicy
from tftpd.access.rewrite import apply_rules
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.negotiation import Direction, Mode, OptionLimits, TransferOptions, negotiate
from tftpd.protocol.packets import Request, Rrq, Wrq
from tftpd.storage.dentry_cache import DentryCache, WouldBlock
from tftpd.storage.quota import UsageTracker
from tftpd.storage.resolver import FileResolver
from tftpd.storage.source import FileLike
from tftpd.storage.upload import Upload

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RenderContext:
    """What a template is rendered for: the name that was asked for, what became of it, and whom."""

    asked: bytes
    named: RequestName
    client: Client


Render = Callable[[Grant[ReadPolicy], RenderContext], bytes]
"""Makes a file of a template; blocks, and raises `Refused`."""


def no_render(template: Grant[ReadPolicy], wanted: RenderContext) -> bytes:
    """Where nothing renders templates."""
    raise RequestRefused(ErrorCode.NOT_DEFINED, "nothing renders templates here")


@dataclass(frozen=True, slots=True)
class ResolvedRead:
    """A read that is granted. `source` is open, and the caller's to close.

    `named` is the name that it was found by.
    """

    named: RequestName
    grant: Grant[ReadPolicy]
    terms: TransferOptions
    source: FileLike


@dataclass(frozen=True, slots=True)
class ResolvedWrite:
    """A write that is granted as far as its name and the policy go.

    `named` is the name that it is stored by; `size` is what the file will
    have, in octets, None where that is not known. Whether a directory takes
    it is seen by `open()`, which begins the file beneath the first root that
    has the directory of its name, or by `check()`, which leaves everything
    as it is.
    """

    named: RequestName
    grants: Sequence[Grant[WritePolicy]]
    terms: TransferOptions
    size: int | None

    def open(self, ledgers: Mapping[Path, UsageTracker], cache: DentryCache, wait: bool) -> Upload:
        """The file in the making; raises `Refused`. `ledgers` are those of roots with quotas."""

        def begin(grant: Grant[WritePolicy]) -> Upload:
            follows = grant.symlinks is Symlinks.FOLLOW
            if not (wait or cache.is_cached(grant.root, grant.name[:-1], follows)):
                raise WouldBlock(grant.root)
            ledger = ledgers.get(grant.root)
            return Upload.open(grant, self.size, self.terms.mode is Mode.NETASCII, ledger)

        return self._first(begin)

    def check(self) -> None:
        """Raises `Refused` where `open()` would."""

        def check(grant: Grant[WritePolicy]) -> None:
            ledger = UsageTracker(grant.root) if grant.policy.measured else None
            if ledger is not None:
                ledger.measure()
            Upload.check(grant, self.size, ledger)

        self._first(check)

    def _first(self, take: Callable[[Grant[WritePolicy]], T]) -> T:
        """What `take` makes of the first grant whose directory is there."""
        missing = []
        for grant in self.grants:
            try:
                return take(grant)
            except RequestRefused as refused:
                if refused.code is not ErrorCode.FILE_NOT_FOUND:
                    raise self.named.annotate(refused) from None
                missing.append(refused)
        raise self.named.annotate(missing[0])


def resolve_read(
    request: Rrq,
    client: Client,
    finder: FileResolver,
    limits: OptionLimits,
    render: Render,
    wait: bool,
) -> ResolvedRead:
    """What `client` gets for `request`; raises `Refused`, and `Slow` unless it may `wait`."""
    mode = _mode(request)
    named = apply_rules(finder.mounts.naming.rules, request.filename, False, client)

    def made(template: Grant[ReadPolicy], name: RequestName) -> bytes:
        return render(template, RenderContext(request.filename, name, client))

    found = finder.resolve(named, client, made, wait)
    terms = negotiate(request.options, limits, mode, Direction.READ, found.source.size)
    return ResolvedRead(found.named, found.grant, terms, found.source)


def resolve_write(
    request: Wrq, client: Client, mounts: Mounts, limits: OptionLimits
) -> ResolvedWrite:
    """What `client` may store by `request`; raises `Refused`."""
    mode = _mode(request)
    named = apply_rules(mounts.naming.rules, request.filename, True, client)
    try:
        grants = mounts.authorize_write(named.name, client)
    except RequestRefused as refused:
        raise named.annotate(refused) from None
    terms = negotiate(request.options, limits, mode, Direction.WRITE)
    # Netascii text is longer on the wire than on disk, by as much as it
    # has lines: an announced size says nothing exact of the file.
    return ResolvedWrite(named, grants, terms, terms.tsize if mode is Mode.OCTET else None)


def _mode(request: Request) -> Mode:
    mode = Mode.parse(request.mode)
    if mode is None:
        raise RequestRefused(ErrorCode.ILLEGAL_OPERATION, f"mode {request.mode!r} is not served")
    return mode
