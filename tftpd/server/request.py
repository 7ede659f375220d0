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
from tftpd.access.paths import Named
from tftpd.access.policy import Grant, ReadPolicy, Symlinks, WritePolicy
from tftpd.access.rewrite import rewritten
from tftpd.protocol.errors import ErrorCode, Refused
from tftpd.protocol.negotiation import Direction, Limits, Mode, Terms, agree
from tftpd.protocol.packets import Request, Rrq, Wrq
from tftpd.storage.dentry_cache import Cache, Slow
from tftpd.storage.quota import Ledger
from tftpd.storage.resolver import Finder
from tftpd.storage.source import Octets
from tftpd.storage.upload import Sink

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a template is rendered for: the name that was asked for, what became of it, and whom."""

    asked: bytes
    named: Named
    client: Client


Render = Callable[[Grant[ReadPolicy], Wanted], bytes]
"""Makes a file of a template; blocks, and raises `Refused`."""


def no_render(template: Grant[ReadPolicy], wanted: Wanted) -> bytes:
    """Where nothing renders templates."""
    raise Refused(ErrorCode.NOT_DEFINED, "nothing renders templates here")


@dataclass(frozen=True, slots=True)
class Reading:
    """A read that is granted. `source` is open, and the caller's to close.

    `named` is the name that it was found by.
    """

    named: Named
    grant: Grant[ReadPolicy]
    terms: Terms
    source: Octets


@dataclass(frozen=True, slots=True)
class Writing:
    """A write that is granted as far as its name and the policy go.

    `named` is the name that it is stored by; `size` is what the file will
    have, in octets, None where that is not known. Whether a directory takes
    it is seen by `open()`, which begins the file beneath the first root that
    has the directory of its name, or by `check()`, which leaves everything
    as it is.
    """

    named: Named
    grants: Sequence[Grant[WritePolicy]]
    terms: Terms
    size: int | None

    def open(self, ledgers: Mapping[Path, Ledger], cache: Cache, wait: bool) -> Sink:
        """The file in the making; raises `Refused`. `ledgers` are those of roots with quotas."""

        def begin(grant: Grant[WritePolicy]) -> Sink:
            follows = grant.symlinks is Symlinks.FOLLOW
            if not (wait or cache.knows(grant.root, grant.name[:-1], follows)):
                raise Slow(grant.root)
            ledger = ledgers.get(grant.root)
            return Sink.open(grant, self.size, self.terms.mode is Mode.NETASCII, ledger)

        return self._first(begin)

    def check(self) -> None:
        """Raises `Refused` where `open()` would."""

        def check(grant: Grant[WritePolicy]) -> None:
            ledger = Ledger(grant.root) if grant.policy.measured else None
            if ledger is not None:
                ledger.measure()
            Sink.check(grant, self.size, ledger)

        self._first(check)

    def _first(self, take: Callable[[Grant[WritePolicy]], T]) -> T:
        """What `take` makes of the first grant whose directory is there."""
        missing = []
        for grant in self.grants:
            try:
                return take(grant)
            except Refused as refused:
                if refused.code is not ErrorCode.FILE_NOT_FOUND:
                    raise self.named.telling(refused) from None
                missing.append(refused)
        raise self.named.telling(missing[0])


def answer_read(
    request: Rrq, client: Client, finder: Finder, limits: Limits, render: Render, wait: bool
) -> Reading:
    """What `client` gets for `request`; raises `Refused`, and `Slow` unless it may `wait`."""
    mode = _mode(request)
    named = rewritten(finder.mounts.naming.rules, request.filename, False, client)

    def made(template: Grant[ReadPolicy], name: Named) -> bytes:
        return render(template, Wanted(request.filename, name, client))

    found = finder.find(named, client, made, wait)
    terms = agree(request.options, limits, mode, Direction.READ, found.source.size)
    return Reading(found.named, found.grant, terms, found.source)


def answer_write(request: Wrq, client: Client, mounts: Mounts, limits: Limits) -> Writing:
    """What `client` may store by `request`; raises `Refused`."""
    mode = _mode(request)
    named = rewritten(mounts.naming.rules, request.filename, True, client)
    try:
        grants = mounts.authorize_write(named.name, client)
    except Refused as refused:
        raise named.telling(refused) from None
    terms = agree(request.options, limits, mode, Direction.WRITE)
    # Netascii text is longer on the wire than on disk, by as much as it
    # has lines: an announced size says nothing exact of the file.
    return Writing(named, grants, terms, terms.tsize if mode is Mode.OCTET else None)


def _mode(request: Request) -> Mode:
    mode = Mode.spelled(request.mode)
    if mode is None:
        raise Refused(ErrorCode.ILLEGAL_OPERATION, f"mode {request.mode!r} is not served")
    return mode
