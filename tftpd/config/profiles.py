"""The keys of profiles: what a kind of client is known by, and what changes for it."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from tftpd.access.profiles import Fingerprint, Globs, Profile, ProfileMatch
from tftpd.config.sections import Seconds
from tftpd.config.types import (
    Boolean,
    Check,
    ConfigModel,
    InvalidCombination,
    Network,
    choice,
    number,
    seconds,
)
from tftpd.config.yaml_document import read
from tftpd.protocol.options import BLKSIZE_RANGE, NAMES, ROLLOVER_RANGE, WINDOWSIZE_RANGE
from tftpd.protocol.packets import Rrq, Wrq

NONE = "none"
"""What metrics call a request without a profile; no profile has that name."""

SHIPPED = Path(__file__).parent / "profiles.yaml"
"""The profiles of known clients."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){0,5}", re.IGNORECASE)
_MOST_DUPLICATES = 3
_LONGEST_GAP = 1.0  # seconds; a file of a thousand blocks then takes a quarter of an hour


def _name(value: Any) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value) and value != NONE:
        return value
    raise ValueError("expected a name of small letters, digits, dots and dashes")


def _mac(value: Any) -> str:
    text = value.replace("-", ":") if isinstance(value, str) else ""
    if _MAC.fullmatch(text):
        return text.lower()
    raise ValueError('expected a MAC address, or how it begins, such as "52:54:00"')


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
ProfileName = Annotated[str, Check(_name, said={"pattern": f"^{_NAME.pattern}$"})]


class ProfileMatchSection(ConfigModel):
    """What a client is known by; all that is said must fit."""

    clients: list[Network] | None = Field(
        default=None, min_length=1, description="Networks or addresses that it may have."
    )
    macs: list[MacPrefix] | None = Field(
        default=None,
        min_length=1,
        description="MAC addresses that it may have, or how they begin; only of clients on "
        "networks of this host.",
    )
    options: list[Option] | None = Field(
        default=None,
        description="All options that it asks for, in their order: blksize, tsize=0, "
        "blksize=1468|1228; with a ? at its end an option may be missing.",
    )
    direction: Annotated[Literal["read", "write"], choice("read", "write")] | None = Field(
        default=None, description="What it asks to do."
    )
    mode: Annotated[Literal["octet", "netascii"], choice("octet", "netascii")] | None = Field(
        default=None, description="The mode that it asks for."
    )
    files: list[Pattern] | None = Field(
        default=None,
        min_length=1,
        description="Patterns of names that it may ask for, such as *.efi; letter case does not "
        "matter, * is any text, slashes too.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise InvalidCombination("expected clients, macs, options, direction, mode or files")
        return self

    def match(self) -> ProfileMatch:
        """What the access floor takes."""
        requests = {"read": Rrq, "write": Wrq, None: None}
        return ProfileMatch(
            options=None if self.options is None else Fingerprint(self.options),
            request=requests[self.direction],
            mode=None if self.mode is None else self.mode.encode(),
            files=None if self.files is None else Globs(self.files),
            clients=None if self.clients is None else tuple(self.clients),
            macs=None if self.macs is None else tuple(map(mac_octets, self.macs)),
        )


class ProfileSection(ConfigModel):
    """What one kind of client needs."""

    name: ProfileName = Field(description="What log, status page and metrics call it.")
    match: ProfileMatchSection = Field(description="What a client is known by.")
    refuse_options: list[Annotated[str, choice(*map(bytes.decode, NAMES))]] = Field(
        default=[], description="Options that are left out of the OACK."
    )
    blksize: Annotated[int, number(*BLKSIZE_RANGE)] | None = Field(
        default=None, description="Octets of a block at most."
    )
    windowsize: Annotated[int, number(*WINDOWSIZE_RANGE)] | None = Field(
        default=None, description="Blocks of a window at most."
    )
    empty_tsize: Boolean = Field(
        default=True, description="Whether it is told the size of an empty file, 0."
    )
    rollover: Annotated[int, number(*ROLLOVER_RANGE)] = Field(
        default=0, description="The number after block 65535 where it does not ask for one."
    )
    idle_timeout: Seconds | None = Field(default=None, description="As in retransmit.")
    min_interval: Seconds | None = Field(default=None, description="As in retransmit.")
    packet_interval: Annotated[float, seconds(_LONGEST_GAP, none=True)] = Field(
        default=0.0, description="Seconds from one block to the next, at least."
    )
    duplicates: Annotated[int, number(0, _MOST_DUPLICATES)] = Field(
        default=0, description="How many copies follow each packet at once."
    )
    broadcast: Annotated[Literal["ignore", "answer"], choice("ignore", "answer")] | None = Field(
        default=None, description="As in listen, which holds if left out."
    )
    source: str | None = Field(default=None, description="Where this is known from; for people.")

    def profile(self) -> Profile:
        """What the access floor takes."""
        return Profile(
            name=self.name,
            match=self.match.match(),
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


class _Shipped(ConfigModel):
    profiles: list[ProfileSection]


@cache
def shipped() -> tuple[ProfileSection, ...]:
    """The profiles of `SHIPPED`, in the order in which they are tried."""
    return tuple(_Shipped.model_validate(read(SHIPPED.read_text("utf-8")).value).profiles)


def mac_octets(mac: str) -> bytes:
    """The octets of a `MacPrefix`."""
    return bytes.fromhex(mac.replace(":", ""))
