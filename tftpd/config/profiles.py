"""The `profiles` section: how a kind of client is recognised and what changes for it."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from tftpd.access.profiles import Fingerprint, Globs, Profile, ProfileMatch
from tftpd.config.sections import Seconds
from tftpd.config.types import (
    Boolean,
    ConfigModel,
    InvalidCombination,
    Network,
    SchemaValidator,
    int_between,
    one_of,
    seconds_between,
)
from tftpd.config.yaml_document import parse_document
from tftpd.protocol.options import BLKSIZE_RANGE, NAMES, ROLLOVER_RANGE, WINDOWSIZE_RANGE
from tftpd.protocol.packets import Rrq, Wrq

NO_PROFILE = "none"
"""Label of requests without a profile in metrics. No profile may have this name."""

SHIPPED_PROFILES_PATH = Path(__file__).parent / "profiles.yaml"
"""File with the built-in profiles."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){0,5}", re.IGNORECASE)
_MAX_DUPLICATES = 3
_MAX_PACKET_INTERVAL_SECONDS = 1.0  # at this interval 1000 blocks take a quarter of an hour


def _name(value: Any) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value) and value != NO_PROFILE:
        return value
    raise ValueError("expected a name of lower-case letters, digits, dots and dashes")


def _mac(value: Any) -> str:
    text = value.replace("-", ":") if isinstance(value, str) else ""
    if _MAC.fullmatch(text):
        return text.lower()
    raise ValueError('expected a MAC address or its first bytes, such as "52:54:00"')


def _option(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected an option such as blksize, tsize=0 or windowsize=4|8?")
    Fingerprint([value])
    return value


def _glob(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError("expected a pattern such as *.efi")


MacPrefix = Annotated[str, BeforeValidator(_mac), WithJsonSchema({"type": "string"})]
Option = Annotated[str, BeforeValidator(_option), WithJsonSchema({"type": "string"})]
Pattern = Annotated[str, BeforeValidator(_glob), WithJsonSchema({"type": "string"})]
ProfileName = Annotated[str, SchemaValidator(_name, schema={"pattern": f"^{_NAME.pattern}$"})]


class ProfileMatchSection(ConfigModel):
    """Conditions that identify a client. All given conditions must hold."""

    clients: list[Network] | None = Field(default=None, min_length=1)
    """Networks or addresses of the client."""

    macs: list[MacPrefix] | None = Field(default=None, min_length=1)
    """MAC addresses or prefixes; known only for clients on networks of this host."""

    options: list[Option] | None = None
    """All requested options in their order: blksize, tsize=0, blksize=1468|1228. A final ? marks
    an option that may be missing.
    """

    direction: Annotated[Literal["read", "write"], one_of("read", "write")] | None = None
    """Direction of the request."""

    mode: Annotated[Literal["octet", "netascii"], one_of("octet", "netascii")] | None = None
    """Transfer mode of the request."""

    files: list[Pattern] | None = Field(default=None, min_length=1)
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
            options=None if self.options is None else Fingerprint(self.options),
            request=requests[self.direction],
            mode=None if self.mode is None else self.mode.encode(),
            files=None if self.files is None else Globs(self.files),
            clients=None if self.clients is None else tuple(self.clients),
            macs=None if self.macs is None else tuple(map(mac_bytes, self.macs)),
        )


class ProfileSection(ConfigModel):
    """Adaptations for one kind of client."""

    name: ProfileName
    """Name in the log, on the status page and in metrics."""

    match: ProfileMatchSection
    """Conditions that identify the client."""

    refuse_options: list[Annotated[str, one_of(*map(bytes.decode, NAMES))]] = Field(default=[])
    """Options that are never accepted."""

    blksize: Annotated[int, int_between(*BLKSIZE_RANGE)] | None = None
    """Largest block size in bytes."""

    windowsize: Annotated[int, int_between(*WINDOWSIZE_RANGE)] | None = None
    """Largest window size in blocks."""

    empty_tsize: Boolean = True
    """Report tsize=0 for an empty file."""

    rollover: Annotated[int, int_between(*ROLLOVER_RANGE)] = 0
    """Block number after 65535 if the client does not request the rollover option."""

    idle_timeout: Seconds | None = None
    """Overrides the value in retransmit."""

    min_interval: Seconds | None = None
    """Overrides the value in retransmit."""

    packet_interval: Annotated[float, seconds_between(_MAX_PACKET_INTERVAL_SECONDS, zero=True)] = (
        0.0
    )
    """Minimum time between two blocks, in seconds."""

    duplicates: Annotated[int, int_between(0, _MAX_DUPLICATES)] = 0
    """Number of extra copies of each packet."""

    broadcast: Annotated[Literal["ignore", "answer"], one_of("ignore", "answer")] | None = None
    """Overrides the value in listen."""

    source: str | None = None
    """Reference for this profile, for readers."""

    def build_profile(self) -> Profile:
        """Build the access.Profile that this section describes."""
        return Profile(
            name=self.name,
            match=self.match.build_match(),
            refuse=frozenset(map(str.encode, self.refuse_options)),
            blksize=self.blksize,
            windowsize=self.windowsize,
            empty_tsize=self.empty_tsize,
            rollover=self.rollover,
            idle_timeout=self.idle_timeout,
            min_interval=self.min_interval,
            packet_interval=self.packet_interval,
            duplicates=self.duplicates,
            broadcast=None if self.broadcast is None else self.broadcast == "answer",
        )


class _ShippedProfiles(ConfigModel):
    profiles: list[ProfileSection]


@cache
def load_shipped_profiles() -> tuple[ProfileSection, ...]:
    """Return the built-in profiles in the order in which they are tried."""
    return tuple(
        _ShippedProfiles.model_validate(
            parse_document(SHIPPED_PROFILES_PATH.read_text("utf-8")).value
        ).profiles
    )


def mac_bytes(mac: str) -> bytes:
    """Return the bytes of a `MacPrefix`."""
    return bytes.fromhex(mac.replace(":", ""))
