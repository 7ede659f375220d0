"""Profiles: what one kind of client needs that others do not.

    request, client > Profiles.choose > Profile

A client is known by what it asks for (each firmware has its own options, in
its own order), by its address or by that of its network card. A profile is
a pure value: what it changes is done where terms and timers are made.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from tftpd.access.client import Client
from tftpd.access.paths import MAX_NAME_BYTES
from tftpd.access.policy import Networks, admits
from tftpd.protocol.options import Options
from tftpd.protocol.packets import Request

_REMEMBERED = 64  # lists of options; one may be as long as a datagram


@dataclass(frozen=True, slots=True)
class ProfileMatch:
    """Which requests a profile is for; what is None matches all of them.

    `request` is `Rrq` or `Wrq`; `mode` is in small letters. `macs` are
    addresses or the octets that they begin with.
    """

    options: "Fingerprint | None" = None
    request: type[Request] | None = None
    mode: bytes | None = None
    files: "Globs | None" = None
    clients: Networks | None = None
    macs: Sequence[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """A name, and what changes for the requests that match.

    `refuse` are options that are left out of the OACK, in small letters;
    `blksize` and `windowsize` bound what is granted. Without `empty_tsize`
    nobody is told that a file has no octets, and `rollover` is the number
    after block 65535 where the client asks for none.

    `patience` and `floor` are those of the timing, `gap` the time between
    two packets, all in seconds; each packet is followed by `duplicates` of
    itself. `broadcast` says whether requests to everyone are answered. What
    is None is as the daemon has it.
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


DEFAULT_PROFILE = Profile("")
"""That of clients that no profile is for: nothing changes."""


class Profiles:
    """Profiles in their order; the first that matches is a request's."""

    def __init__(self, profiles: Iterable[Profile] = ()) -> None:
        self._profiles = tuple(profiles)
        self.answers_broadcasts = any(profile.broadcast for profile in self._profiles)
        """Whether there are clients whose requests to everyone are answered."""
        self.needs_mac = any(profile.match.macs for profile in self._profiles)
        """Whether MAC addresses matter at all."""
        # Clients of one kind ask for the same: 2 us each instead of 10.
        self._asking = lru_cache(maxsize=_REMEMBERED)(self._find_asking)

    def __iter__(self) -> Iterator[Profile]:
        return iter(self._profiles)

    def choose(self, request: Request, client: Client) -> Profile:
        """The profile of `request`, which came from `client`; `PLAIN` if there is none.

        The client's MAC address matters only where nothing else is left to decide.
        """
        for profile in self._asking(spelled(request.options)):
            match = profile.match
            if not _matches(match, request, client):
                continue
            if match.macs is None:
                return profile
            mac = client.mac
            if mac is not None and any(map(mac.startswith, match.macs)):
                return profile
        return DEFAULT_PROFILE

    def _find_asking(self, asked: bytes) -> Sequence[Profile]:
        """Those whose options are the ones that were `spelled()`."""
        profiles = self._profiles
        return [
            one for one in profiles if one.match.options is None or one.match.options.fits(asked)
        ]


def _matches(match: ProfileMatch, request: Request, client: Client) -> bool:
    """Whether all fits but options and MAC address."""
    return (
        (match.request is None or isinstance(request, match.request))
        and (match.mode is None or match.mode == request.mode.lower())
        and (match.files is None or match.files.fit(request.filename))
        and (match.clients is None or admits(match.clients, client.address))
    )


def spelled(options: Options) -> bytes:
    """`options` as a `Fingerprint` reads them: no NUL is in a name or a value."""
    return b"".join([b"%b\0%b\0" % (name.lower(), value) for name, value in options])


_OPTION = re.compile(r"([a-z0-9._-]+)(?:=([^\s|?=]*(?:\|[^\s|?=]*)*))?(\?)?")


class Fingerprint:
    """The options that a client asks for: all of them, in this order.

    Each is a name, which any value goes with, or `name=value`, or
    `name=value|value`; one that ends with `?` may be missing. Raises
    `ValueError` for what is not written so.
    """

    def __init__(self, options: Iterable[str]) -> None:
        self.options = tuple(options)
        self._pattern = re.compile(b"".join(map(_option, self.options)))

    def fits(self, asked: bytes) -> bool:
        """Whether the options that were `spelled()` are these."""
        return self._pattern.fullmatch(asked) is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and self.options == other.options

    def __hash__(self) -> int:
        return hash(self.options)


def _option(text: str) -> bytes:
    """The regular expression for one option, which takes time in proportion to what it reads."""
    match = _OPTION.fullmatch(text)
    if match is None:
        raise ValueError("expected an option such as blksize, tsize=0 or windowsize=4|8?")
    name, values, optional = match[1], match[2], match[3]
    value = "[^\0]*" if values is None else "|".join(map(re.escape, values.split("|")))
    missing = "?+" if optional else ""  # possessive: what was read is never read otherwise
    return f"(?:{re.escape(name)}\0(?:{value})\0){missing}".encode()


class Globs:
    """File names: `*` is any text, slashes too, `?` a character and `[ab]` one of two.

    Letter case does not matter, and a backslash is a slash.
    """

    def __init__(self, globs: Iterable[str]) -> None:
        self.globs = tuple(globs)
        self._pattern = re.compile("|".join(map(translate, self.globs)), re.IGNORECASE)

    def fit(self, filename: bytes) -> bool:
        """Whether one of them fits the name; none does that no file system could hold."""
        name = filename.decode("utf-8", "surrogateescape").replace("\\", "/")
        return len(filename) <= MAX_NAME_BYTES and self._pattern.match(name) is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Globs) and self.globs == other.globs

    def __hash__(self) -> int:
        return hash(self.globs)
