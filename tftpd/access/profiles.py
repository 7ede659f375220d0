"""Profiles: adaptations for kinds of clients.

    request, client > Profiles.choose() > Profile

A client is recognised by its options (each firmware sends its own options in its own order),
its address or its MAC address. A profile is a plain value; options and timers apply it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from tftpd.access.client import ClientIdentity
from tftpd.access.paths import MAX_NAME_BYTES
from tftpd.access.policy import Networks
from tftpd.protocol.options import Options
from tftpd.protocol.packets import Request

_CACHED_REQUESTS = 256  # an entry may be as long as a datagram


@dataclass(frozen=True, slots=True)
class ProfileMatch:
    """Conditions of a profile. A condition that is None matches every request.

    Attributes:
        options: Pattern of the requested options, see `fingerprint`.
        request: `Rrq` or `Wrq`.
        mode: Transfer mode in lower case.
        files: Pattern of the requested name, see `compile_globs`.
        clients: Networks of the client.
        macs: MAC addresses or their first bytes.
    """

    options: re.Pattern[bytes] | None = None
    request: type[Request] | None = None
    mode: bytes | None = None
    files: re.Pattern[str] | None = None
    clients: Networks | None = None
    macs: Sequence[bytes] | None = None

    @property
    def has_client(self) -> bool:
        """True if there is a condition on the client."""
        return self.clients is not None or self.macs is not None


@dataclass(frozen=True, slots=True)
class Profile:
    """Adaptations for the requests that match. None means the default of the server.

    Attributes:
        name: Name of the profile.
        match: Conditions.
        refuse: Options that are never accepted, in lower case.
        blksize: Largest block size in bytes.
        windowsize: Largest window in blocks.
        empty_tsize: Answer the tsize option for empty files.
        rollover: Block number after 65535 if the client does not request the rollover option.
        idle_timeout: Seconds without progress after which a transfer ends.
        min_interval: Shortest retransmission interval in seconds.
        packet_interval: Minimum time between two packets in seconds.
        duplicates: Number of extra copies of each packet.
        broadcast: Answer requests to a broadcast address.
        server_port: Answer requests that come from the port number of the server itself.
    """

    name: str
    match: ProfileMatch = ProfileMatch()
    refuse: frozenset[bytes] = frozenset()
    blksize: int | None = None
    windowsize: int | None = None
    empty_tsize: bool = True
    rollover: int = 0
    idle_timeout: float | None = None
    min_interval: float | None = None
    packet_interval: float = 0.0
    duplicates: int = 0
    broadcast: bool | None = None
    server_port: bool = False


DEFAULT_PROFILE = Profile("")
"""Profile of requests that match no other profile; it changes nothing."""


class Profiles:
    """Ordered profiles; the first matching profile applies to a request."""

    def __init__(self, profiles: Iterable[Profile] = ()) -> None:
        self._profiles = tuple(profiles)
        self.answers_broadcasts = any(profile.broadcast for profile in self._profiles)
        """True if a profile answers requests to broadcast addresses."""
        self.needs_mac = any(profile.match.macs for profile in self._profiles)
        """True if a profile matches MAC addresses."""
        # Clients of one kind send equal requests: 1 us per request instead of 10.
        self._candidates = lru_cache(maxsize=_CACHED_REQUESTS)(self._match_request)

    def __iter__(self) -> Iterator[Profile]:
        return iter(self._profiles)

    def choose(self, request: Request, client: ClientIdentity) -> Profile:
        """Return the first profile that matches, or DEFAULT_PROFILE.

        The MAC address is looked up only if all other conditions of a profile hold.
        """
        for profile in self._candidates(request):
            match = profile.match
            if not match.has_client or client.matches(match.clients, match.macs):
                return profile
        return DEFAULT_PROFILE

    def _match_request(self, request: Request) -> Sequence[Profile]:
        """Return the profiles that match the request, if they match the client too."""
        encoded = encode_options(request.options)
        return [
            profile
            for profile in self._profiles
            if (profile.match.options is None or profile.match.options.fullmatch(encoded))
            and _matches(profile.match, request)
        ]


def _matches(match: ProfileMatch, request: Request) -> bool:
    """Check the request without its options."""
    return (
        (match.request is None or isinstance(request, match.request))
        and (match.mode is None or match.mode == request.mode.lower())
        and (match.files is None or matches_globs(request.filename, match.files))
    )


def encode_options(options: Options) -> bytes:
    """Return `options` as bytes for `fingerprint`: names and values, each followed by NUL."""
    return b"".join([b"%b\0%b\0" % (name.lower(), value) for name, value in options])


_OPTION = re.compile(r"([a-z0-9._-]+)(?:=([^\s|?=]*(?:\|[^\s|?=]*)*))?(\?)?")


def fingerprint(options: Iterable[str]) -> re.Pattern[bytes]:
    """Compile a pattern for the complete list of requested options, in their order.

    It is for the result of `encode_options`.

    Args:
        options: Each entry is `name` (any value), `name=value` or `name=value|value`. A final
            `?` marks an option that may be missing.

    Raises:
        ValueError: An entry has another form.
    """
    return re.compile(b"".join(map(_option, options)))


def _option(text: str) -> bytes:
    """Return a regular expression for one option; its matching time is linear."""
    match = _OPTION.fullmatch(text)
    if match is None:
        raise ValueError("expected an option such as blksize, tsize=0 or windowsize=4|8?")
    name, values, optional = match[1], match[2], match[3]
    value = "[^\0]*" if values is None else "|".join(map(re.escape, values.split("|")))
    missing = "?+" if optional else ""  # possessive: no backtracking
    return f"(?:{re.escape(name)}\0(?:{value})\0){missing}".encode()


def compile_globs(globs: Iterable[str]) -> re.Pattern[str]:
    """Compile patterns for file names into one, for `matches_globs`.

    `*` matches any text with slashes, `?` a character, `[ab]` a or b. Case is ignored.
    """
    return re.compile("|".join(map(translate, globs)), re.IGNORECASE)


def matches_globs(filename: bytes, globs: re.Pattern[str]) -> bool:
    """Return True if a pattern matches. Names over MAX_NAME_BYTES never match.

    A backslash is equal to a slash.
    """
    name = filename.decode("utf-8", "surrogateescape").replace("\\", "/")
    return len(filename) <= MAX_NAME_BYTES and globs.match(name) is not None
