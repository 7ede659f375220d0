"""Mounts: which directory, under which policies, a client's name lies in."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tftpd.access.ladder import Candidate, Rung, fold
from tftpd.access.names import PARENT, TEMPORARY, Name, steps
from tftpd.access.naming import AS_ASKED, Naming
from tftpd.access.policy import (
    Address,
    Grant,
    Policy,
    ReadPolicy,
    Symlinks,
    WritePolicy,
    admits,
)
from tftpd.wire.errors import ErrorCode, Refused


@dataclass(frozen=True, slots=True)
class Mount:
    """A prefix of the names that clients use, and the directory behind it.

    A mount without a read policy is not read, one without a write policy
    not written. `rungs` are those by which names may lead here, None for
    those of the server's ladder.
    """

    prefix: Name
    root: Path
    read: ReadPolicy | None = None
    write: WritePolicy | None = None
    symlinks: Symlinks = Symlinks.INSIDE
    rungs: tuple[Rung, ...] | None = None


class Unmounted(Refused):
    """The name lies in no directory."""


class Mounts:
    """All mounts of a server; the longest prefix of a name decides.

    `naming` is what comes before that: see `Naming`. `rungs` are those of all
    ladders that there are.
    """

    def __init__(self, mounts: Iterable[Mount], naming: Naming = AS_ASKED) -> None:
        self.naming = naming
        self._by_prefix = {mount.prefix: mount for mount in mounts}
        self._deepest = max(map(len, self._by_prefix), default=0)
        every = [rung for mount in self if mount.rungs for rung in mount.rungs]
        general = naming.ladder.rungs if any(mount.rungs is None for mount in self) else ()
        self.rungs = tuple(dict.fromkeys((*general, *every)))

    def __iter__(self) -> Iterator[Mount]:
        return iter(self._by_prefix.values())

    def authorize_read(self, filename: bytes, client: Address) -> Grant[ReadPolicy]:
        """Leave for `client` to read `filename`; raises `Refused`."""
        mount, name = self.locate(filename)
        return _grant(mount, name, mount.read, client)

    def authorize_write(self, filename: bytes, client: Address) -> Grant[WritePolicy]:
        """Leave for `client` to write `filename`; raises `Refused`."""
        mount, name = self.locate(filename)
        return _grant(mount, name, mount.write, client)

    def locate(self, filename: bytes) -> tuple[Mount, Name]:
        """The mount of `filename` and the rest of its name; raises `Refused`.

        `..` goes back one step of the name, but never out of the mount that
        the name has entered by then.
        """
        walked: list[bytes] = []
        for step in steps(filename):
            if step != PARENT:
                walked.append(step)
                continue
            inside = self._find(walked)
            if not walked or self._find(walked[:-1]) is not inside:
                raise Refused(ErrorCode.ACCESS_VIOLATION, "the name leaves its directory")
            walked.pop()
        mount = self._find(walked)
        if mount is None:
            why = "no directory is configured for the name"
            raise Unmounted(ErrorCode.ACCESS_VIOLATION, why)
        return mount, tuple(walked[len(mount.prefix) :])

    def climb(self, filename: bytes) -> Iterator[Candidate]:
        """What to try where `filename` is not there."""
        return self.naming.ladder.climb(filename, self.rungs)

    def rungs_of(self, filename: bytes) -> tuple[Rung, ...]:
        """Those by which one may come to the directory of `filename`; raises `Refused`."""
        mount, _ = self.locate(filename)
        return self.naming.ladder.rungs if mount.rungs is None else mount.rungs

    def respelled(self, filename: bytes) -> bytes:
        """`filename` with the longest prefix that differs in case only, as it is configured."""
        walked = steps(filename)
        folded = tuple(map(fold, walked))
        for length in range(min(len(walked), self._deepest), 0, -1):
            for prefix in self._by_prefix:
                if len(prefix) == length and tuple(map(fold, prefix)) == folded[:length]:
                    return b"/".join((*prefix, *walked[length:]))
        return filename

    def _find(self, name: list[bytes]) -> Mount | None:
        for length in range(min(len(name), self._deepest), -1, -1):
            mount = self._by_prefix.get(tuple(name[:length]))
            if mount is not None:
                return mount
        return None


def _grant(mount: Mount, name: Name, policy: Policy | None, client: Address) -> Grant[Policy]:
    if policy is None:
        raise Refused(ErrorCode.ACCESS_VIOLATION, "the directory has no policy for this")
    if not admits(policy.clients, client):
        raise Refused(ErrorCode.ACCESS_VIOLATION, "the policy does not admit this client")
    if any(step.startswith(TEMPORARY) for step in name):
        raise Refused(ErrorCode.ACCESS_VIOLATION, "the name is reserved for unfinished uploads")
    return Grant(mount.root, name, policy, mount.symlinks)
