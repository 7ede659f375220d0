"""The `profiles` section: how a kind of client is recognised and what changes for it."""

from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tftpd.access.profiles import Profile, ProfileMatch, compile_globs, fingerprint
from tftpd.config import types
from tftpd.config.sections import Seconds
from tftpd.config.types import Boolean, ConfigModel, InvalidCombination
from tftpd.config.yaml_document import parse_document
from tftpd.protocol.options import BLKSIZE, RANGES, ROLLOVER, WINDOWSIZE
from tftpd.protocol.packets import Rrq, Wrq

NO_PROFILE = "none"
"""Label of requests without a profile in metrics. No profile may have this name."""

SHIPPED_PROFILES_PATH = Path(__file__).parent / "profiles.yaml"
"""File with the built-in profiles."""

_NAME = "[a-z0-9][a-z0-9._-]{0,62}"
_MAC = "(?i)[0-9a-f]{2}([:-][0-9a-f]{2}){0,5}"
_MAX_DUPLICATES = 3
_MAX_PACKET_INTERVAL_SECONDS = 1.0  # at this interval 1000 blocks take a quarter of an hour


def _option(text: str) -> str:
    fingerprint([text])
    return text


MacPrefix = Annotated[
    str,
    types.matching(_MAC, 'a MAC address or its first bytes, such as "52:54:00"'),
    AfterValidator(lambda mac: mac.lower().replace("-", ":")),
]
Option = Annotated[
    str,
    types.matching(".+", "an option such as blksize, tsize=0 or windowsize=4|8?"),
    AfterValidator(_option),
]
OptionName = Literal[
    "blksize", "blksize2", "timeout", "utimeout", "tsize", "windowsize", "rollover"
]
Glob = Annotated[str, types.matching("(?s).+", "a pattern such as *.efi")]
ProfileName = Annotated[
    str,
    types.matching(
        f"(?!{NO_PROFILE}$){_NAME}", "a name of lower-case letters, digits, dots and dashes"
    ),
    Field(json_schema_extra={"pattern": f"^{_NAME}$"}),
]


class ClientConditions(ConfigModel):
    """Conditions that a client must meet."""

    clients: tuple[types.Network, ...] | None = Field(default=None, min_length=1)
    """Networks or addresses of the clients (default: all)."""

    macs: tuple[MacPrefix, ...] | None = Field(default=None, min_length=1)
    """MAC addresses or prefixes; known only for clients on networks of this host."""

    @property
    def mac_prefixes(self) -> tuple[bytes, ...] | None:
        """The bytes of `macs`."""
        if self.macs is None:
            return None
        return tuple(bytes.fromhex(mac.replace(":", "")) for mac in self.macs)


class ProfileMatchSection(ClientConditions):
    """Conditions that identify a client. All given conditions must hold."""

    options: tuple[Option, ...] | None = None
    """All requested options in their order: blksize, tsize=0, blksize=1468|1228.

    A final ? marks an option that may be missing.
    """

    direction: Literal["read", "write"] | None = None
    """Direction of the request."""

    mode: Literal["octet", "netascii"] | None = None
    """Transfer mode of the request."""

    files: tuple[Glob, ...] | None = Field(default=None, min_length=1)
    """Patterns of requested names, such as *.efi. Case is ignored; * also matches slashes."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise InvalidCombination("expected clients, macs, options, direction, mode or files")
        return self

    def build_match(self) -> ProfileMatch:
        """Build the access.ProfileMatch that this section describes."""
        requests = {"read": Rrq, "write": Wrq, None: None}
        return ProfileMatch(
            options=None if self.options is None else fingerprint(self.options),
            request=requests[self.direction],
            mode=None if self.mode is None else self.mode.encode(),
            files=None if self.files is None else compile_globs(self.files),
            clients=self.clients,
            macs=self.mac_prefixes,
        )


class ProfileSection(ConfigModel):
    """Adaptations for one kind of client."""

    name: ProfileName
    """Name in the log, on the status page and in metrics."""

    match: ProfileMatchSection
    """Conditions that identify the client."""

    refuse_options: tuple[OptionName, ...] = ()
    """Options that are never accepted."""

    blksize: Annotated[int, types.int_between(*RANGES[BLKSIZE])] | None = None
    """Largest block size in bytes."""

    windowsize: Annotated[int, types.int_between(*RANGES[WINDOWSIZE])] | None = None
    """Largest window size in blocks."""

    empty_tsize: Boolean = True
    """Report tsize=0 for an empty file."""

    rollover: Annotated[int, types.int_between(*RANGES[ROLLOVER])] = 0
    """Block number after 65535 if the client does not request the rollover option."""

    idle_timeout: Seconds | None = None
    """Overrides the value in retransmit."""

    min_interval: Seconds | None = None
    """Overrides the value in retransmit."""

    packet_interval: Annotated[float, types.seconds_between(0, _MAX_PACKET_INTERVAL_SECONDS)] = 0.0
    """Minimum time between two blocks, in seconds."""

    duplicates: Annotated[int, types.int_between(0, _MAX_DUPLICATES)] = 0
    """Number of extra copies of each packet."""

    broadcast: Literal["ignore", "answer"] | None = None
    """Overrides the value in listen."""

    server_port: Boolean = False
    """Answer requests that come from the port number of the server itself."""

    source: str | None = None
    """Reference for this profile, for readers."""

    def build_profile(self) -> Profile:
        """Build the access.Profile that this section describes."""
        converted = {"match", "refuse_options", "broadcast", "source"}
        return Profile(
            match=self.match.build_match(),
            refuse=frozenset(map(str.encode, self.refuse_options)),
            broadcast=None if self.broadcast is None else self.broadcast == "answer",
            **self.model_dump(exclude=converted),
        )


class _ShippedProfiles(ConfigModel):
    profiles: tuple[ProfileSection, ...]


@cache
def load_shipped_profiles() -> tuple[ProfileSection, ...]:
    """Return the built-in profiles in the order in which they are tried."""
    document = parse_document(SHIPPED_PROFILES_PATH.read_text("utf-8"))
    return _ShippedProfiles.model_validate(document.value).profiles
