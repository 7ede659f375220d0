"""The file for a name: the one that was asked for, or one that the ladder leads to.

Each name takes the same way from the start, through mounts, policy and the walk
beneath the root, as if the client had asked for it. So no rung leads where a
client could not go, and what it may not read stays unread.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tftpd.access.ladder import Candidate
from tftpd.access.mounts import Mounts, Unmounted
from tftpd.access.names import Named, show
from tftpd.access.policy import Address, Grant, ReadPolicy
from tftpd.storage.failures import refusing
from tftpd.storage.source import Source
from tftpd.storage.spelling import Room, spelled
from tftpd.wire.errors import ErrorCode, Reason, Refused

_TOLD = 5  # names that a refusal tells

Note = Callable[[Named, str], None]
"""Is told each name that was tried, and why it was not served, or ``."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file, open and the caller's to close, and the name it was found by."""

    named: Named
    grant: Grant[ReadPolicy]
    source: Source


def find(
    asked: Named, client: Address, mounts: Mounts, note: Note = lambda named, why: None
) -> Found:
    """The file that `client` gets for `asked`; raises `Refused`.

    The ladder is for what is not there. What is there and may not be read,
    or leaves its directory, is refused at once.
    """
    try:
        return _open(asked, client, mounts)
    except Refused as refused:
        if not mounts.rungs or not _missing(refused):
            raise asked.telling(refused) from None
        first = refused
    note(asked, str(first))
    tried: list[str] = []
    room = Room()
    for candidate in mounts.climb(asked.name):
        named = candidate.named(asked)
        try:
            named = _spelled(candidate, asked, client, mounts, room)
            _check(candidate, named.name, mounts)
            found = _open(named, client, mounts)
        except _OffLadder:
            continue
        except Refused as refused:
            note(named, str(refused))
            tried.append(_told(named, "" if _missing(refused) else f": {refused}"))
            continue
        note(named, "")
        return found
    why = f"{asked.telling(first)}{_also(tried)}"
    raise Refused(first.code, why, first.text)


class _OffLadder(Refused):
    """The directory has a ladder without one of the rungs."""


def _check(candidate: Candidate, name: bytes, mounts: Mounts) -> None:
    if not set(candidate.rungs) <= set(mounts.rungs_of(name)):
        raise _OffLadder(ErrorCode.FILE_NOT_FOUND)


def _missing(refused: Refused) -> bool:
    return refused.code is ErrorCode.FILE_NOT_FOUND or isinstance(refused, Unmounted)


def _open(named: Named, client: Address, mounts: Mounts) -> Found:
    grant = mounts.authorize_read(named.name, client)
    return Found(named, grant, Source.open(grant))


def _spelled(
    candidate: Candidate, asked: Named, client: Address, mounts: Mounts, room: Room
) -> Named:
    """The name of `candidate` as the directories have it, if letters may be of any case."""
    if not candidate.folds:
        return candidate.named(asked)
    name = mounts.respelled(candidate.name)
    mounts.authorize_read(name, client)  # before anything is looked through
    _check(candidate, name, mounts)
    mount, beneath = mounts.locate(name)
    with refusing(Reason.READ_FAILED):
        real = spelled(mount.root, beneath, mount.symlinks, room)
    named = replace(candidate, name=b"/".join((*mount.prefix, *real.name))).named(asked)
    if real.choices > 1:
        return Named(named.name, (*named.by, f"the first of {real.choices}"))
    return named


def _told(named: Named, why: str) -> str:
    return f'"{show(named.name)}" ({", ".join(named.by)}{why})'


def _also(tried: list[str]) -> str:
    if not tried:
        return ""
    more = f" and {len(tried) - _TOLD} more" if len(tried) > _TOLD else ""
    return f"; nor is {', '.join(tried[:_TOLD])}{more}"
