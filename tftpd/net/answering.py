"""What a request is answered with: the decision, apart from ports and sessions.

    mode > rewrite > find (authorize > open the file, by another name if need be) > agree

The listener acts on it, and `tftpd explain` shows it. A step that cannot go
on raises `Refused`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tftpd.access.mounts import Mounts
from tftpd.access.names import Named
from tftpd.access.policy import Address, Grant, ReadPolicy, WritePolicy
from tftpd.access.rewriting import rewritten
from tftpd.storage.finding import find
from tftpd.storage.ledger import Ledger
from tftpd.storage.sink import Sink
from tftpd.storage.source import Source
from tftpd.transfer.terms import Direction, Limits, Mode, Terms, agree
from tftpd.wire.errors import ErrorCode, Refused
from tftpd.wire.packets import Request, Rrq, Wrq


@dataclass(frozen=True, slots=True)
class Reading:
    """A read that is granted. `source` is open, and the caller's to close.

    `named` is the name that it was found by.
    """

    named: Named
    grant: Grant[ReadPolicy]
    terms: Terms
    source: Source


@dataclass(frozen=True, slots=True)
class Writing:
    """A write that is granted as far as its name and the policy go.

    `named` is the name that it is stored by; `size` is what the file will
    have, in octets, None where that is not known. Whether the directory
    takes it is seen by `open()`, which begins the file, or by `check()`,
    which leaves everything as it is.
    """

    named: Named
    grant: Grant[WritePolicy]
    terms: Terms
    size: int | None

    def open(self, ledgers: Mapping[Path, Ledger]) -> Sink:
        """The file in the making; raises `Refused`. `ledgers` are those of roots with quotas."""
        ledger = ledgers.get(self.grant.root)
        with _told_of(self.named):
            return Sink.open(self.grant, self.size, self.terms.mode is Mode.NETASCII, ledger)

    def check(self) -> None:
        """Raises `Refused` where `open()` would."""
        ledger = Ledger(self.grant.root) if self.grant.policy.measured else None
        if ledger is not None:
            ledger.measure()
        with _told_of(self.named):
            Sink.check(self.grant, self.size, ledger)


def answer_read(request: Rrq, client: Address, mounts: Mounts, limits: Limits) -> Reading:
    """What `client` gets for `request`; raises `Refused`."""
    mode = _mode(request)
    named = rewritten(mounts.naming.rules, request.filename, False, client)
    found = find(named, client, mounts)
    terms = agree(request.options, limits, mode, Direction.READ, found.source.size)
    return Reading(found.named, found.grant, terms, found.source)


def answer_write(request: Wrq, client: Address, mounts: Mounts, limits: Limits) -> Writing:
    """What `client` may store by `request`; raises `Refused`."""
    mode = _mode(request)
    named = rewritten(mounts.naming.rules, request.filename, True, client)
    with _told_of(named):
        grant = mounts.authorize_write(named.name, client)
    terms = agree(request.options, limits, mode, Direction.WRITE)
    # Netascii text is longer on the wire than on disk, by as much as it
    # has lines: an announced size says nothing exact of the file.
    return Writing(named, grant, terms, terms.tsize if mode is Mode.OCTET else None)


@contextmanager
def _told_of(named: Named) -> Iterator[None]:
    """A refusal in here tells by which name."""
    try:
        yield
    except Refused as refused:
        raise named.telling(refused) from None


def _mode(request: Request) -> Mode:
    mode = Mode.spelled(request.mode)
    if mode is None:
        raise Refused(ErrorCode.ILLEGAL_OPERATION, f"mode {request.mode!r} is not served")
    return mode
