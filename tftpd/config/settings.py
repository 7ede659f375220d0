"""The keys of the configuration, and the values the rest of the program gets.

settings.mounts()                access.mounts.Mount, one for each directory
settings.limits.granted()        transfer.terms.Limits
settings.retransmit.timing()     transfer.timing.Timing
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tftpd.access.mounts import Mount
from tftpd.access.policy import ANYWHERE, ReadPolicy, Symlinks, WritePolicy
from tftpd.config.fields import (
    Address,
    Boolean,
    Contradiction,
    DirectoryPath,
    FileMode,
    FilePath,
    HostName,
    Network,
    Prefix,
    Size,
    SocketPath,
    at_least,
    choice,
    number,
    seconds,
)
from tftpd.transfer.terms import Limits
from tftpd.transfer.timing import Timing
from tftpd.wire.options import BLKSIZE_RANGE, DEFAULT_BLKSIZE, WINDOWSIZE_RANGE

_GRANTED = Limits()
_TIMING = Timing()
_WRITE = WritePolicy()

_LEAST_WINDOW = 64 << 10  # octets: one block of the largest size
_LEAST_RATE = 1 << 10  # octets per second: a block of 512 in half a second
_WINDOW_TAKES = 0.25  # seconds; the first timers of clients are those of a second
_LEAST_TRACE = 64 << 10  # octets: one packet of the largest size, about
_MOST_SECONDS = 3600.0


class _Keys(BaseModel):
    """A mapping with known keys; the others are problems."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _switch(value: Any) -> Any:
    """`true` stands for a mapping of defaults, `false` for none."""
    if isinstance(value, bool):
        return {} if value else None
    if value is None or not isinstance(value, dict):
        raise ValueError("expected true, false or a mapping")
    return value


def _or_boolean(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"type": "boolean"}, schema["anyOf"][0]]
    schema["default"] = False


class Listen(_Keys):
    """An address to take requests on."""

    address: Address = Field(description="An IPv4 or IPv6 address; 0.0.0.0 and :: are all of them.")
    port: Annotated[int, number(1, 65535)] = Field(default=69, description="The UDP port.")
    broadcast: Annotated[Literal["ignore", "answer"], choice("ignore", "answer")] = Field(
        default="ignore",
        description="What becomes of requests to a broadcast address, which RFC 1123 has ignored.",
    )


class Read(_Keys):
    """Who may read, and which files."""

    world_readable: Boolean = Field(default=False, description="Only files with o+r.")
    clients: list[Network] = Field(
        default_factory=lambda: list(ANYWHERE),
        min_length=1,
        description="Networks or addresses that are admitted; all if left out.",
    )

    def policy(self) -> ReadPolicy:
        """What the access floor takes."""
        return ReadPolicy(self.world_readable, tuple(self.clients))


class Write(_Keys):
    """Who may write, and what."""

    create: Boolean = Field(default=_WRITE.create, description="Whether new files may be made.")
    overwrite: Boolean = Field(
        default=_WRITE.overwrite, description="Whether a file may be replaced."
    )
    max_size: Size | None = Field(
        default=None, description="The largest file, such as 64MiB; no limit if left out."
    )
    mode: FileMode = Field(
        default=_WRITE.mode,
        description="Permission bits of what is stored.",
        json_schema_extra={"default": f"{_WRITE.mode:04o}"},
    )
    world_writable: Boolean = Field(default=False, description="Replace only files with o+w.")
    quota: Size | None = Field(
        default=None, description="Octets that the whole directory may hold, such as 10GiB."
    )
    max_files: Annotated[int, number(1, 1_000_000_000)] | None = Field(
        default=None, description="Files that the whole directory may hold."
    )
    min_free: Size | None = Field(
        default=None, description="Octets that stay free on its file system, such as 1GiB."
    )
    clients: list[Network] = Field(
        default_factory=lambda: list(ANYWHERE),
        min_length=1,
        description="Networks or addresses that are admitted; all if left out.",
    )

    @model_validator(mode="after")
    def _allows_something(self) -> Self:
        if not self.create and not self.overwrite:
            raise Contradiction("allows nothing: create and overwrite are both false")
        return self

    def policy(self) -> WritePolicy:
        """What the access floor takes."""
        return WritePolicy(
            create=self.create,
            overwrite=self.overwrite,
            max_size=self.max_size,
            mode=self.mode,
            world_writable=self.world_writable,
            clients=tuple(self.clients),
            quota=self.quota,
            max_files=self.max_files,
            min_free=self.min_free,
        )


class Directory(_Keys):
    """A directory, the prefix that clients see of it, and its policies."""

    path: Prefix = Field(
        default=(),
        description="The prefix of the names that clients use; backslashes are slashes.",
        json_schema_extra={"default": "/"},
    )
    root: DirectoryPath = Field(description="The directory, relative to this file.")
    symlinks: Annotated[Symlinks, choice(*Symlinks)] = Field(
        default=Symlinks.INSIDE,
        description="What symbolic links may do: deny follows none, inside those that lead "
        "beneath the same root, follow all.",
    )
    read: Annotated[Read | None, BeforeValidator(_switch)] = Field(
        default=None, description="Whether files may be read.", json_schema_extra=_or_boolean
    )
    write: Annotated[Write | None, BeforeValidator(_switch)] = Field(
        default=None, description="Whether files may be written.", json_schema_extra=_or_boolean
    )

    @model_validator(mode="after")
    def _allows_something(self) -> Self:
        if self.read is None and self.write is None:
            raise Contradiction("neither read nor write is allowed")
        return self


class Limit(_Keys):
    """What clients get at most."""

    blksize: Annotated[int, number(*BLKSIZE_RANGE)] = Field(
        default=_GRANTED.blksize, description="Octets of a block."
    )
    windowsize: Annotated[int, number(*WINDOWSIZE_RANGE)] = Field(
        default=_GRANTED.windowsize, description="Blocks of a window."
    )
    window_octets: Annotated[Size, at_least(_LEAST_WINDOW, "64KiB")] = Field(
        default=_GRANTED.window_octets, description="Octets of a window, at least 64KiB."
    )
    sessions: Annotated[int, number(1, 1_000_000)] = Field(
        default=5000, description="Transfers at once; more requests wait for their repetition."
    )
    sessions_per_client: Annotated[int, number(1, 1_000_000)] | None = Field(
        default=None, description="Transfers at once of one client."
    )
    sessions_per_network: Annotated[int, number(1, 1_000_000)] | None = Field(
        default=None, description="Transfers at once of one network, an IPv4 /24 or an IPv6 /64."
    )
    half_open: Annotated[int, number(1, 1_000_000)] = Field(
        default=1000,
        description="Transfers at once whose client has not answered yet; the oldest gives way.",
    )
    requests_per_second: Annotated[int, number(1, 1_000_000)] | None = Field(
        default=None, description="Requests of one client that are taken in a second."
    )

    bandwidth: Annotated[Size, at_least(_LEAST_RATE, "1KiB")] | None = Field(
        default=None, description="Octets per second of all transfers together."
    )
    session_bandwidth: Annotated[Size, at_least(_LEAST_RATE, "1KiB")] | None = Field(
        default=None, description="Octets per second of each transfer."
    )

    def granted(self) -> Limits:
        """What the transfer floor takes.

        Where transfers are slow by rule, a window takes no longer than
        clients wait for an answer.
        """
        rates = [rate for rate in (self.bandwidth, self.session_bandwidth) if rate is not None]
        if not rates:
            return Limits(self.blksize, self.windowsize, self.window_octets)
        most = max(DEFAULT_BLKSIZE, int(min(rates) * _WINDOW_TAKES))
        return Limits(min(self.blksize, most), self.windowsize, min(self.window_octets, most))


Seconds = Annotated[float, seconds(_MOST_SECONDS)]


class Retransmit(_Keys):
    """When packets are sent again, in seconds."""

    floor: Seconds = Field(default=_TIMING.floor, description="The shortest interval.")
    ceiling: Seconds = Field(default=_TIMING.ceiling, description="The longest interval.")
    initial: Seconds = Field(default=_TIMING.initial, description="The first interval.")
    patience: Seconds = Field(
        default=_TIMING.patience, description="How long a client may be silent."
    )
    dally: Seconds = Field(default=_TIMING.dally, description="How long the last ACK is repeated.")
    copies: Annotated[int, number(1, 100)] = Field(
        default=int(_TIMING.copies),
        description="How often a client that never answers is sent the first packet.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.floor <= min(self.ceiling, self.patience):
            raise Contradiction(
                f"expected a floor below ceiling and patience, got {self.floor:g}, "
                f"{self.ceiling:g} and {self.patience:g}"
            )
        return self

    def timing(self) -> Timing:
        """What the transfer floor takes."""
        return Timing(**self.model_dump())


class Status(_Keys):
    """Where the status page is: an address and port, or a Unix socket."""

    address: Address = Field(
        default="127.0.0.1", description="An IP address; beyond loopback everyone may read it."
    )
    port: Annotated[int, number(1, 65535)] = Field(default=9169, description="The TCP port.")
    socket: SocketPath | None = Field(
        default=None, description="A Unix socket instead, for its owner and group."
    )
    names: list[HostName] = Field(
        default=[], description="Host names by which browsers may ask, besides localhost."
    )

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if self.socket is not None and self.model_fields_set & {"address", "port"}:
            raise Contradiction("names both a socket and an address or port")
        return self


class Log(_Keys):
    """What is logged, and how."""

    level: Annotated[str, choice("debug", "info", "warn", "error", "critical")] = Field(
        default="info", description="The least level that is written."
    )
    format: Annotated[str, choice("text", "json")] = Field(
        default="text", description="Lines for people, or one JSON object a line."
    )


class Trace(_Keys):
    """Whose packets are written to a file."""

    client: Network = Field(description="An address, or a network.")
    file: FilePath = Field(description="The pcap file, relative to this one.")
    max_size: Annotated[Size, at_least(_LEAST_TRACE, "64KiB")] = Field(
        default=16 << 20, description="Where the trace ends, at least 64KiB."
    )


def _section(value: Any) -> Any:
    """A section without a single key is one of defaults."""
    return {} if value is None else value


_SECTION = BeforeValidator(_section)


class Settings(_Keys):
    """A whole configuration; immutable."""

    listen: list[Listen] = Field(
        default=[Listen(address="0.0.0.0"), Listen(address="::")],
        min_length=1,
        description="Addresses to take requests on; all, port 69, if left out.",
    )
    directories: list[Directory] = Field(min_length=1, description="What is served.")
    limits: Annotated[Limit, _SECTION] = Field(
        default=Limit(), description="What clients get at most."
    )
    retransmit: Annotated[Retransmit, _SECTION] = Field(
        default=Retransmit(), description="When packets are sent again."
    )
    log: Annotated[Log, _SECTION] = Field(default=Log(), description="What is logged.")
    trace: Trace | None = Field(
        default=None, description="A trace of one client's packets, for tshark and tcpdump."
    )
    status: Annotated[Status | None, BeforeValidator(_switch)] = Field(
        default=None,
        description="A page that shows what goes on, and metrics.",
        json_schema_extra=_or_boolean,
    )
    workers: Annotated[int, number(1, 64)] = Field(
        default=1, description="Processes that serve, one for each processor to use."
    )

    drain_timeout: Annotated[float, seconds(_MOST_SECONDS, none=True)] = Field(
        default=10.0, description="Seconds that running transfers get when the daemon stops."
    )

    def mounts(self) -> list[Mount]:
        """What the access floor takes."""
        return [
            Mount(
                prefix=directory.path,
                root=Path(directory.root),
                read=directory.read.policy() if directory.read else None,
                write=directory.write.policy() if directory.write else None,
                symlinks=directory.symlinks,
            )
            for directory in self.directories
        ]
