"""The keys that say how much, how fast and how long.

The keys of what an administrator watches: log, status page and packet trace.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from tftpd.access.policy import RenderLimits
from tftpd.config.types import (
    Address,
    ConfigModel,
    FilePath,
    HostName,
    InvalidCombination,
    Network,
    Size,
    SocketPath,
    at_least,
    at_most,
    choice,
    number,
    seconds,
)
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.options import BLKSIZE_RANGE, DEFAULT_BLKSIZE, WINDOWSIZE_RANGE
from tftpd.protocol.retransmission import DEFAULT_MAX_UNANSWERED_SENDS, RetransmitPolicy

MOST_SECONDS = 3600.0

_GRANTED = OptionLimits()
_TIMING = RetransmitPolicy()
_RENDERED = RenderLimits()

_LEAST_WINDOW = 64 << 10  # octets: one block of the largest size
_LEAST_RATE = 1 << 10  # octets per second: a block of 512 in half a second
_LEAST_FILE, _MOST_FILE = 1 << 10, 16 << 20  # octets; they are held in memory
_LEAST_TIME, _MOST_TIME = 0.1, 10.0  # seconds; clients ask again meanwhile
_WINDOW_TAKES = 0.25  # seconds; the first timers of clients are those of a second

Seconds = Annotated[float, seconds(MOST_SECONDS)]


class LimitsSection(ConfigModel):
    """What clients get at most."""

    blksize: Annotated[int, number(*BLKSIZE_RANGE)] = Field(
        default=_GRANTED.blksize, description="Octets of a block."
    )
    windowsize: Annotated[int, number(*WINDOWSIZE_RANGE)] = Field(
        default=_GRANTED.windowsize, description="Blocks of a window."
    )
    window_bytes: Annotated[Size, at_least(_LEAST_WINDOW, "64KiB")] = Field(
        default=_GRANTED.window_bytes, description="Octets of a window, at least 64KiB."
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

    template_size: Annotated[Size, at_least(_LEAST_FILE, "1KiB"), at_most(_MOST_FILE, "16MiB")] = (
        Field(
            default=_RENDERED.size,
            description="Octets of a file that is made of a template, from 1KiB to 16MiB.",
        )
    )
    template_time: Annotated[float, seconds(_MOST_TIME, least=_LEAST_TIME)] = Field(
        default=_RENDERED.seconds, description="Seconds that a template may take."
    )

    def rendering(self) -> RenderLimits:
        """What the access floor takes."""
        return RenderLimits(self.template_size, self.template_time)

    def granted(self) -> OptionLimits:
        """What the transfer floor takes.

        Where transfers are slow by rule, a window takes no longer than
        clients wait for an answer.
        """
        rates = [rate for rate in (self.bandwidth, self.session_bandwidth) if rate is not None]
        if not rates:
            return OptionLimits(self.blksize, self.windowsize, self.window_bytes)
        most = max(DEFAULT_BLKSIZE, int(min(rates) * _WINDOW_TAKES))
        return OptionLimits(min(self.blksize, most), self.windowsize, min(self.window_bytes, most))


class RetransmitSection(ConfigModel):
    """When packets are sent again, in seconds."""

    min_interval: Seconds = Field(
        default=_TIMING.min_interval, description="The shortest interval."
    )
    max_interval: Seconds = Field(default=_TIMING.max_interval, description="The longest interval.")
    initial_interval: Seconds = Field(
        default=_TIMING.initial_interval, description="The first interval."
    )
    idle_timeout: Seconds = Field(
        default=_TIMING.idle_timeout, description="How long a client may be silent."
    )
    dally: Seconds = Field(default=_TIMING.dally, description="How long the last ACK is repeated.")
    max_unanswered_sends: Annotated[int, number(1, 100)] = Field(
        default=DEFAULT_MAX_UNANSWERED_SENDS,
        description="How often a client that never answers is sent the first packet.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.min_interval <= min(self.max_interval, self.idle_timeout):
            raise InvalidCombination(
                f"expected min_interval below max_interval and idle_timeout, got {self.min_interval:g}, "
                f"{self.max_interval:g} and {self.idle_timeout:g}"
            )
        return self

    def timing(self) -> RetransmitPolicy:
        """What the transfer floor takes."""
        return RetransmitPolicy(**self.model_dump())


_LEAST_TRACE = 64 << 10  # octets: one packet of the largest size, about


class LogSection(ConfigModel):
    """What is logged, and how."""

    level: Annotated[str, choice("debug", "info", "warn", "error", "critical")] = Field(
        default="info", description="The least level that is written."
    )
    format: Annotated[str, choice("text", "json")] = Field(
        default="text", description="Lines for people, or one JSON object a line."
    )


class StatusSection(ConfigModel):
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
            raise InvalidCombination("names both a socket and an address or port")
        return self


class TraceSection(ConfigModel):
    """Whose packets are written to a file."""

    client: Network = Field(description="An address, or a network.")
    file: FilePath = Field(description="The pcap file, relative to this one.")
    max_size: Annotated[Size, at_least(_LEAST_TRACE, "64KiB")] = Field(
        default=16 << 20, description="Where the trace ends, at least 64KiB."
    )
