"""Mounts: which directories, under which policies, a client's name lies in.

Roots: the directories that names lie in, one client's perhaps not another's.

    /srv/tftp/{mac}   is /srv/tftp, and below it a step for each client
    /srv/tftp/{serial}   the same, by a number that the client puts before its names

What a client is known by never leaves the directory before it: it is walked
to as the rest of the name is, with the same care for links.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tftpd.access.client import Client
from tftpd.access.fallbacks import Candidate, Fallback, fold
from tftpd.access.paths import PARENT, SELF, Name, is_reserved, is_template, split_name
from tftpd.access.placeholders import PLACEHOLDERS, Part, expand, names, parse
from tftpd.access.policy import (
    ANYWHERE,
    Grant,
    Policy,
    ReadPolicy,
    Symlinks,
    WritePolicy,
    admits,
)
from tftpd.access.regex import MAX_NAME_BYTES, Pattern, pattern
from tftpd.access.rewrite import NO_RULES, NameRules
from tftpd.protocol.errors import ErrorCode, RequestRefused

SERIAL = "serial"

SERIALS = "[0-9A-Fa-f]{8,16}|[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}"
"""Serial numbers of Raspberry Pis, and MAC addresses as they spell them (TFTP_PREFIX=2)."""


@dataclass(frozen=True, slots=True)
class Root:
    """A directory, and the steps below it that are made of what is known of a client."""

    path: Path
    below: tuple[tuple[Part, ...], ...] = ()

    def __str__(self) -> str:
        return "/".join((str(self.path).rstrip("/"), *map(_shown, self.below)))

    @property
    def placeholders(self) -> frozenset[str]:
        """What has to be known of a client."""
        return frozenset().union(*map(names, self.below))

    def steps(self, client: Client, serial: bytes | None) -> Name | None:
        """The steps below `path` for `client`; None where it has none.

        What is no single step of a path fills nothing.
        """
        filled = []
        for step in self.below:
            made = expand(step, lambda key: serial if key == SERIAL else PLACEHOLDERS[key](client))
            if not made or made in (SELF, PARENT) or b"/" in made or is_reserved(made):
                return None
            filled.append(made)
        return tuple(filled)


def root(text: str) -> Root:
    """The root that `text` is: a path, whose slots {ip}, {ip_hex}, {mac} and {serial} are filled.

    Raises `BadSlot`.
    """
    steps = Path(text).parts
    made = [parse(step, _known) for step in steps]
    first = next((at for at, step in enumerate(made) if names(step)), len(made))
    path = Path(*(_literal(step) for step in made[:first]))
    return Root(path, tuple(made[first:]))


def one(path: Path) -> tuple[Root, ...]:
    """The roots where there is one, the same for all clients."""
    return (Root(path),)


@dataclass(frozen=True, slots=True)
class Serials:
    """Tells which first steps of names are serial numbers, which are no part of the name then."""

    pattern: Pattern

    def split(self, name: Name) -> tuple[bytes | None, Name]:
        """The serial number before `name`, if there is one, and the rest."""
        if len(name) > 1 and len(name[0]) <= MAX_NAME_BYTES and self.pattern.find(name[0]):
            return name[0], name[1:]
        return None, name


def serials(text: str) -> Serials:
    """Those that match the expression `text` as a whole; raises `BadPattern`."""
    return Serials(pattern(f"^({text})$"))


def needs_mac(roots: Sequence[Root], fact: str) -> bool:
    """Whether one of `roots` depends on `fact`."""
    return any(fact in root.placeholders for root in roots)


def _known(key: str) -> str | None:
    return None if key == SERIAL else f" is none of {', '.join([*PLACEHOLDERS, SERIAL])}"


def _literal(step: Sequence[Part]) -> str:
    return b"".join(part for part in step if isinstance(part, bytes)).decode(
        "utf-8", "surrogateescape"
    )


def _shown(step: Sequence[Part]) -> str:
    return "".join(
        part.decode("utf-8", "replace")
        if isinstance(part, bytes)
        else "{" + ":".join(filter(None, (part.key, part.case))) + "}"
        for part in step
    )


@dataclass(frozen=True, slots=True)
class Mount:
    """A prefix of the names that clients use, and the directories behind it.

    Of several roots the first that has a file is the one it comes from. A
    mount without a read policy is not read, one without a write policy not
    written. `rungs` are those by which names may lead here, None for those of
    the server's ladder. `serials` are before the names, where a root has to
    know them.
    """

    prefix: Name
    roots: tuple[Root, ...]
    read: ReadPolicy | None = None
    write: WritePolicy | None = None
    symlinks: Symlinks = Symlinks.INSIDE
    fallbacks: tuple[Fallback, ...] | None = None
    serials: Serials | None = None

    @property
    def per_client(self) -> bool:
        """Whether clients find different files here."""
        policies = [policy for policy in (self.read, self.write) if policy is not None]
        return any(root.below for root in self.roots) or any(
            policy.clients is not ANYWHERE for policy in policies
        )

    def roots_for(self, name: Name, client: Client) -> Iterator[tuple[Path, Name, Name]]:
        """Each root that `client` has, the steps there that are its own, and those of `name`."""
        serial: bytes | None = None
        if self.serials is not None:
            serial, name = self.serials.split(name)
        for root in self.roots:
            own: Name | None = root.steps(client, serial) if root.below else ()
            if own is not None:
                yield root.path, own, name


class NoMatchingDirectory(RequestRefused):
    """The name lies in no directory."""


class Mounts:
    """All mounts of a server; the longest prefix of a name decides.

    `naming` is what comes before that: see `Naming`. `rungs` are those of all
    ladders that there are.
    """

    def __init__(self, mounts: Iterable[Mount], naming: NameRules = NO_RULES) -> None:
        self.naming = naming
        self._by_prefix = {mount.prefix: mount for mount in mounts}
        self._deepest = max(map(len, self._by_prefix), default=0)
        every = [rung for mount in self if mount.fallbacks for rung in mount.fallbacks]
        general = (
            naming.fallbacks.fallbacks if any(mount.fallbacks is None for mount in self) else ()
        )
        self.fallbacks = tuple(dict.fromkeys((*general, *every)))
        self.needs_mac = any(needs_mac(mount.roots, "mac") for mount in self) or any(
            rule.needs_mac for rule in naming.rules
        )
        """Whether MAC addresses matter."""
        self.renders = any(mount.read and mount.read.templates for mount in self)
        """Whether there are templates."""
        self.per_client = any(mount.per_client for mount in self)
        """Whether clients find different files by the same name."""

    def __iter__(self) -> Iterator[Mount]:
        return iter(self._by_prefix.values())

    def authorize_read(self, filename: bytes, client: Client) -> Sequence[Grant[ReadPolicy]]:
        """Leave for `client` to read `filename` beneath each root; raises `Refused`."""
        mount, name = self.locate(filename)
        return _grants(mount, name, mount.read, client)

    def authorize_write(self, filename: bytes, client: Client) -> Sequence[Grant[WritePolicy]]:
        """Leave for `client` to write `filename` beneath each root; raises `Refused`.

        Templates are the administrator's: where they are rendered nobody writes them.
        """
        mount, name = self.locate(filename)
        if mount.read and mount.read.templates and name and is_template(name[-1]):
            raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "a template is not written")
        return _grants(mount, name, mount.write, client)

    def locate(self, filename: bytes) -> tuple[Mount, Name]:
        """The mount of `filename` and the rest of its name; raises `Refused`.

        `..` goes back one step of the name, but never out of the mount that
        the name has entered by then.
        """
        walked: list[bytes] = []
        for step in split_name(filename):
            if step != PARENT:
                walked.append(step)
                continue
            # Beyond the deepest prefix no step leads to another mount.
            near = len(walked) <= self._deepest
            if not walked or (near and self._find(walked[:-1]) is not self._find(walked)):
                raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the name leaves its directory")
            walked.pop()
        mount = self._find(walked)
        if mount is None:
            why = "no directory is configured for the name"
            raise NoMatchingDirectory(ErrorCode.ACCESS_VIOLATION, why)
        return mount, tuple(walked[len(mount.prefix) :])

    def candidates(self, filename: bytes) -> Iterator[Candidate]:
        """What to try where `filename` is not there."""
        return self.naming.fallbacks.candidates(filename, self.fallbacks)

    def fallbacks_for(self, filename: bytes) -> tuple[Fallback, ...]:
        """Those by which one may come to the directory of `filename`; raises `Refused`."""
        mount, _ = self.locate(filename)
        return self.naming.fallbacks.fallbacks if mount.fallbacks is None else mount.fallbacks

    def respelled(self, filename: bytes) -> bytes:
        """`filename` with the longest prefix that differs in case only, as it is configured."""
        walked = split_name(filename)
        folded = tuple(map(fold, walked))
        for length in range(min(len(walked), self._deepest), 0, -1):
            for prefix in self._by_prefix:
                if len(prefix) == length and tuple(map(fold, prefix)) == folded[:length]:
                    return b"/".join((*prefix, *walked[length:]))
        return filename

    def spelled_out(self, filename: bytes, rest: Name) -> bytes:
        """`filename`, whose last steps are spelled as `rest` is."""
        mount, beneath = self.locate(filename)
        return b"/".join((*mount.prefix, *beneath[: len(beneath) - len(rest)], *rest))

    def _find(self, name: list[bytes]) -> Mount | None:
        for length in range(min(len(name), self._deepest), -1, -1):
            mount = self._by_prefix.get(tuple(name[:length]))
            if mount is not None:
                return mount
        return None


def _grants(
    mount: Mount, name: Name, policy: Policy | None, client: Client
) -> Sequence[Grant[Policy]]:
    if policy is None:
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the directory has no policy for this")
    if policy.clients is not ANYWHERE and not admits(policy.clients, client.address):
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the policy does not admit this client")
    if any(map(is_reserved, name)):
        raise RequestRefused(
            ErrorCode.ACCESS_VIOLATION, "the name is reserved for unfinished uploads"
        )
    grants = [
        Grant(path, own + rest, policy, mount.symlinks, len(own))
        for path, own, rest in mount.roots_for(name, client)
    ]
    if not grants:
        roots = ", ".join(map(str, mount.roots))
        raise RequestRefused(ErrorCode.FILE_NOT_FOUND, f"the client has no directory in {roots}")
    return grants
