"""Mounts: the directory and the policies for a requested name.

A root may contain placeholders, so that each client has its own directory:

    /srv/tftp/{mac}      /srv/tftp, and below it a component for each client
    /srv/tftp/{serial}   the same, by a number that the client puts before its names

The client's own components never leave the static part before them. They are resolved with
the same care for symbolic links as the rest of the name.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import ip_address
from itertools import chain
from pathlib import Path

from tftpd.access import paths
from tftpd.access.client import ClientIdentity, find_mac
from tftpd.access.fallbacks import Candidate, Fallback, fold
from tftpd.access.origin_roots import OriginRoot, is_origin, split_origin
from tftpd.access.placeholders import PLACEHOLDERS, Part, expand, names, parse
from tftpd.access.policy import (
    ANYWHERE,
    Grant,
    Networks,
    Policy,
    ReadPolicy,
    Symlinks,
    WritePolicy,
    admits,
)
from tftpd.access.regex import MAX_NAME_BYTES, Pattern, pattern
from tftpd.access.rewrite import NO_RULES, NameRules
from tftpd.access.stored_names import SERIAL, StoredName
from tftpd.protocol.errors import ErrorCode, RequestRefused

SERIALS = "[0-9A-Fa-f]{8,16}|[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}"
"""Serial numbers of Raspberry Pis, and MAC addresses in their form (TFTP_PREFIX=2)."""


_CACHED_NAMES = 256  # a name has up to 4096 bytes
_ANY_CLIENT = ClientIdentity(ip_address("0.0.0.0"))


@dataclass(frozen=True, slots=True)
class Root:
    """A directory or a prefix at an origin, and components below it that contain placeholders."""

    path: Path | OriginRoot
    below: tuple[tuple[Part, ...], ...] = ()
    text: str = field(default="", compare=False)
    """The root as it is written in the configuration."""

    def __str__(self) -> str:
        return self.text or str(self.path)

    @property
    def placeholders(self) -> frozenset[str]:
        """Keys of all placeholders in this root."""
        return frozenset().union(*map(names, self.below))

    def expand_for(self, client: ClientIdentity, serial: bytes | None) -> paths.Name | None:
        """Return the components below `path` for `client`, or None if it has no directory here.

        A value that is not a single valid component gives None, so that a client cannot leave
        the root.
        """

        def value(key: str) -> bytes | None:
            return serial if key == SERIAL else PLACEHOLDERS[key](client)

        components = tuple(expand(parts, value) or b"" for parts in self.below)
        return components if all(map(_is_valid, components)) else None


def _is_valid(component: bytes) -> bool:
    is_name = component not in (b"", paths.SELF, paths.PARENT) and b"/" not in component
    return is_name and not paths.is_reserved(component)


def parse_root(text: str) -> Root:
    """Parse a path, or origin:NAME/PREFIX; both may contain {ip}, {ip_hex}, {mac} and {serial}.

    Raises:
        InvalidPlaceholder: A placeholder is malformed or unknown.
        ValueError: The name of the origin or its prefix is invalid.
    """
    origin, components = split_origin(text) if is_origin(text) else ("", Path(text).parts)
    parsed = [parse(component, _check_key) for component in components]
    first = next((n for n, parts in enumerate(parsed) if names(parts)), len(parsed))
    static = [part.replace("{{", "{").replace("}}", "}") for part in components[:first]]
    path: Path | OriginRoot = Path(*static)
    if origin:
        path = OriginRoot(origin, tuple(part.encode() for part in static))
    return Root(path, tuple(parsed[first:]), paths.escape_control_chars(text))


def parse_serials(text: str) -> Pattern:
    """Return a pattern for serial numbers that match the regular expression `text` completely.

    Raises:
        BadPattern: The expression is invalid.
    """
    return pattern(f"^({text})$")


def uses_placeholder(roots: Sequence[Root], key: str) -> bool:
    """Return True if one of `roots` contains the placeholder `key`."""
    return any(key in root.placeholders for root in roots)


def _check_key(key: str) -> str | None:
    return None if key == SERIAL else f" is not one of {', '.join([*PLACEHOLDERS, SERIAL])}"


@dataclass(frozen=True, slots=True)
class Mount:
    """A prefix of requested names, and the directories and policies behind it.

    Attributes:
        prefix: Components at the start of requested names.
        roots: Directories and origins. The first one that contains a file provides it.
        read: Read policy; None refuses all downloads.
        write: Write policy; None refuses all uploads.
        symlinks: Handling of symbolic links.
        fallbacks: Fallbacks for this mount; None means those of the server.
        default_loaders: Names for `Fallback.DEFAULT_LOADER`; None means those of the server.
        serials: Pattern of serial numbers before names, if a root contains {serial}.
        clients: Networks of the clients for which this mount exists.
        store_as: Name under which an upload is stored; None: the requested name.
        mac_from_name: Take an unknown MAC address of a client from the names that it reads.
    """

    prefix: paths.Name
    roots: tuple[Root, ...]
    read: ReadPolicy | None = None
    write: WritePolicy | None = None
    symlinks: Symlinks = Symlinks.INSIDE
    fallbacks: tuple[Fallback, ...] | None = None
    default_loaders: tuple[paths.Name, ...] | None = None
    serials: Pattern | None = None
    clients: Networks = ANYWHERE
    store_as: StoredName | None = None
    mac_from_name: bool = False

    @property
    def per_client(self) -> bool:
        """True if different clients may get different files."""
        return any(root.below for root in self.roots) or any(
            part.clients != ANYWHERE for part in (self, self.read, self.write) if part
        )

    @property
    def local_roots(self) -> tuple[Path, ...]:
        """The directories on this host: those roots that are not at an origin."""
        return tuple(root.path for root in self.roots if isinstance(root.path, Path))

    @property
    def origin_roots(self) -> tuple[OriginRoot, ...]:
        """The roots at an origin."""
        return tuple(root.path for root in self.roots if isinstance(root.path, OriginRoot))

    def roots_for(
        self, name: paths.Name, client: ClientIdentity, is_write: bool = False
    ) -> Iterator[tuple[Path | OriginRoot, paths.Name, paths.Name]]:
        """Yield each root of `client`: path, the client's own components, components of the file.

        Args:
            name: Components of the requested name.
            client: The client.
            is_write: Whether the file is written, and may be stored under another name.

        Raises:
            RequestRefused: The file cannot be stored under the configured name.
        """
        serial: bytes | None = None
        is_searched = len(name) > 1 and len(name[0]) <= MAX_NAME_BYTES
        if self.serials and is_searched and self.serials.find(name[0]):
            serial, name = name[0], name[1:]
        if is_write and self.store_as is not None:
            name = self.store_as.expand_for(client, serial, name)
        for root in self.roots:
            own = root.expand_for(client, serial)
            if own is not None:
                yield root.path, own, name


class NoMatchingDirectory(RequestRefused):
    """No configured directory contains the name."""


class Mounts:
    """All mounts of a server. The mount with the longest matching prefix applies to a name.

    Only mounts that admit the client count. Of several with the same prefix, the first one counts.

    Attributes:
        name_rules: Rewrite rules and fallbacks of the server.
        fallbacks: Fallbacks that any mount uses.
        fallback_chain: Fallbacks with the loaders of the server and of all mounts.
        needs_mac: True if roots or rules use MAC addresses.
        mac_from_name: True if a mount takes MAC addresses from names.
        renders: True if a mount has templates.
        per_client: True if different clients may get different files for one name.
        renames_uploads: True if a mount stores uploads under another name.
    """

    def __init__(self, mounts: Iterable[Mount], name_rules: NameRules = NO_RULES) -> None:
        self.name_rules = name_rules
        self._mounts = tuple(mounts)
        self._by_prefix: dict[paths.Name, list[Mount]] = {}
        for mount in self._mounts:
            self._by_prefix.setdefault(mount.prefix, []).append(mount)
        self._is_common = all(mount.clients == ANYWHERE for mount in self)
        self._deepest = max(map(len, self._by_prefix), default=0)
        specific = [fallback for mount in self for fallback in mount.fallbacks or ()]
        uses_general = any(mount.fallbacks is None for mount in self)
        general = name_rules.fallbacks.fallbacks if uses_general else ()
        self.fallbacks = tuple(dict.fromkeys((*general, *specific)))
        loaders = [loader for mount in self for loader in mount.default_loaders or ()]
        all_loaders = tuple(dict.fromkeys((*name_rules.fallbacks.loaders, *loaders)))
        self.fallback_chain = replace(name_rules.fallbacks, loaders=all_loaders)
        self.mac_from_name = any(mount.mac_from_name for mount in self)
        self.needs_mac = (
            self.mac_from_name
            or any(uses_placeholder(mount.roots, "mac") for mount in self)
            or any("mac" in mount.store_as.placeholders for mount in self if mount.store_as)
            or any(rule.needs_mac for rule in name_rules.rules)
        )
        self.renames_uploads = any(mount.store_as for mount in self)
        self.renders = any(mount.read and mount.read.templates for mount in self)
        self.per_client = any(mount.per_client for mount in self)
        self._common_read_grants = lru_cache(maxsize=_CACHED_NAMES)(self._find_common_read_grants)

    def __iter__(self) -> Iterator[Mount]:
        return iter(self._mounts)

    def authorize_read(
        self, filename: bytes, client: ClientIdentity
    ) -> Sequence[Grant[ReadPolicy]]:
        """Return a grant to read `filename` below each root of `client`.

        Raises:
            RequestRefused: No directory matches, or its policy denies the request.
        """
        return self._common_read_grants(filename) or self._read_grants(filename, client)

    def authorize_write(
        self, filename: bytes, client: ClientIdentity
    ) -> Sequence[Grant[WritePolicy]]:
        """Return a grant to write `filename` below each root of `client`.

        Clients cannot write templates in a directory where templates are rendered.

        Raises:
            RequestRefused: No directory matches, or its policy denies the request.
        """
        mount, name = self.locate(filename, client)
        _refuse_template(mount, name)
        grants = _grants(mount, name, mount.write, client, self._encodings_for(name))
        if mount.store_as is None:
            return grants
        stored = grants[0].name[grants[0].own :]
        _refuse_template(mount, stored)
        if self._find([*mount.prefix, *stored], client) is not mount:
            reason = f"store_as {mount.store_as.text} leads to another directory"
            raise RequestRefused(ErrorCode.ACCESS_VIOLATION, reason)
        encodings = self._encodings_for(stored)
        return [replace(grant, encodings=encodings) for grant in grants]

    def stored_name(
        self, filename: bytes, grants: Sequence[Grant[WritePolicy]], client: ClientIdentity
    ) -> bytes:
        """Return the name by which the file of an upload can be requested.

        Args:
            filename: Name in the request for the upload.
            grants: The grants for it.
            client: The client.
        """
        mount, _ = self.locate(filename, client)
        if mount.store_as is None:
            return filename
        return b"/".join((*mount.prefix, *grants[0].name[grants[0].own :]))

    def _read_grants(self, filename: bytes, client: ClientIdentity) -> Sequence[Grant[ReadPolicy]]:
        mount, name = self.locate(filename, client)
        return _grants(mount, name, mount.read, client, self._encodings_for(name))

    def _find_common_read_grants(self, filename: bytes) -> Sequence[Grant[ReadPolicy]]:
        """Return the grants of all clients; none if they depend on the client."""
        if not self._is_common:
            return ()
        mount, name = self.locate(filename, _ANY_CLIENT)
        if mount.per_client:
            return ()
        return _grants(mount, name, mount.read, _ANY_CLIENT, self._encodings_for(name))

    def identify(self, filename: bytes, client: ClientIdentity) -> ClientIdentity:
        """Return the client of a read, with the MAC address in the name if its own is unknown.

        A known address takes precedence: it is that of a host in a network of this server.
        """
        mac = find_mac(filename)
        if mac is None or client.mac is not None:
            return client
        try:
            mount, _ = self.locate(filename, client)
        except RequestRefused:
            return client
        if not mount.mac_from_name:
            return client
        return replace(client, neighbour=lambda: mac)

    def locate(self, filename: bytes, client: ClientIdentity) -> tuple[Mount, paths.Name]:
        """Return the mount of `filename` for `client`, and the components below its prefix.

        `..` removes one component, but cannot leave the mount that the name has entered.

        Raises:
            NoMatchingDirectory: No mount has a matching prefix.
            RequestRefused: `..` would leave the mount.
        """
        components: list[bytes] = []
        if not filename.isascii():
            filename = paths.decode_name(filename, self.name_rules.encodings)
        for component in paths.split_name(filename):
            if component != paths.PARENT:
                components.append(component)
                continue
            # Below the longest prefix, no component changes the mount.
            is_near_prefix = len(components) <= self._deepest
            if not components or (
                is_near_prefix
                and self._find(components[:-1], client) is not self._find(components, client)
            ):
                raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the name leaves its directory")
            components.pop()
        mount = self._find(components, client)
        if mount is None:
            reason = "no directory is configured for the name"
            raise NoMatchingDirectory(ErrorCode.ACCESS_VIOLATION, reason)
        return mount, tuple(components[len(mount.prefix) :])

    def allows(self, candidate: Candidate, filename: bytes, client: ClientIdentity) -> bool:
        """Return True if the directory of `filename` has all fallbacks of a candidate.

        Args:
            candidate: The candidate.
            filename: Its name, or the name of a file that differs from it only in case.
            client: The client.

        Raises:
            RequestRefused: See `locate`.
        """
        mount, _ = self.locate(filename, client)
        general = self.name_rules.fallbacks
        allowed = general.fallbacks if mount.fallbacks is None else mount.fallbacks
        if not set(candidate.fallbacks) <= set(allowed):
            return False
        if Fallback.DEFAULT_LOADER not in candidate.fallbacks:
            return True
        loaders = general.loaders if mount.default_loaders is None else mount.default_loaders
        parts = paths.split_name(candidate.name)
        return any(parts[-len(loader) :] == loader for loader in loaders)

    def normalize_prefix(self, filename: bytes) -> bytes:
        """Return `filename` with the configured spelling of a prefix that differs only in case."""
        components = paths.split_name(filename)
        folded = tuple(map(fold, components))
        for length in range(min(len(components), self._deepest), 0, -1):
            for prefix in self._by_prefix:
                if len(prefix) == length and tuple(map(fold, prefix)) == folded[:length]:
                    return b"/".join((*prefix, *components[length:]))
        return filename

    def replace_tail(self, filename: bytes, rest: paths.Name, client: ClientIdentity) -> bytes:
        """Return `filename` with its last components replaced by `rest`."""
        mount, beneath = self.locate(filename, client)
        return b"/".join((*mount.prefix, *beneath[: len(beneath) - len(rest)], *rest))

    def _encodings_for(self, name: paths.Name) -> Sequence[str]:
        """Return the encodings in which the components may be spelled.

        There are none if a spelling is also the prefix of a directory, whose policy applies.
        """
        encodings = self.name_rules.encodings
        if not encodings or all(map(bytes.isascii, name)):
            return ()
        others = {other for part in name for other in paths.find_spellings(part, encodings)[1:]}
        return encodings if others.isdisjoint(chain(*self._by_prefix)) else ()

    def _find(self, name: list[bytes], client: ClientIdentity) -> Mount | None:
        for length in range(min(len(name), self._deepest), -1, -1):
            for mount in self._by_prefix.get(tuple(name[:length]), ()):
                if admits(mount.clients, client.address):
                    return mount
        return None


def _refuse_template(mount: Mount, name: paths.Name) -> None:
    if mount.read and mount.read.templates and name and paths.is_template(name[-1]):
        reason = "templates cannot be written by clients"
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, reason)


def _grants(
    mount: Mount,
    name: paths.Name,
    policy: Policy | None,
    client: ClientIdentity,
    encodings: Sequence[str],
) -> Sequence[Grant[Policy]]:
    if policy is None:
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the directory has no policy for this")
    if not admits(policy.clients, client.address):
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the policy does not admit this client")
    paths.refuse_reserved(name)
    grants = [
        Grant(path, own + rest, policy, mount.symlinks, len(own), encodings)
        for path, own, rest in mount.roots_for(name, client, isinstance(policy, WritePolicy))
    ]
    if not grants:
        roots = ", ".join(map(str, mount.roots))
        raise RequestRefused(ErrorCode.FILE_NOT_FOUND, f"the client has no directory in {roots}")
    return grants
