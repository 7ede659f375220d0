"""The sections `limits`, `retransmit`, `log`, `status` and `trace`."""

import os
from math import inf
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tftpd.access.policy import RenderLimits
from tftpd.config import types
from tftpd.config.types import ConfigModel, InvalidCombination
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.options import BLKSIZE, DEFAULT_BLKSIZE, RANGES, WINDOWSIZE
from tftpd.protocol.retransmission import DEFAULT_MAX_UNANSWERED_SENDS, RetransmitPolicy

MAX_SECONDS = 3600.0

_DEFAULT_OPTIONS = OptionLimits()
_DEFAULT_POLICY = RetransmitPolicy()
_DEFAULT_RENDER = RenderLimits()

_MIN_BANDWIDTH = "1KiB"  # a block of 512 bytes takes half a second
_MAX_WINDOW_SECONDS = 0.25  # clients retransmit after one second at first

Seconds = Annotated[float, types.seconds_between(None, MAX_SECONDS)]
Count = Annotated[int, types.int_between(1, 1_000_000)]


class LimitsSection(ConfigModel):
    """Limits for clients, transfers and bandwidth."""

    blksize: Annotated[int, types.int_between(*RANGES[BLKSIZE])] = _DEFAULT_OPTIONS.blksize
    """Largest block size in bytes."""

    windowsize: Annotated[int, types.int_between(*RANGES[WINDOWSIZE])] = _DEFAULT_OPTIONS.windowsize
    """Largest window size in blocks."""

    # The minimum is one block of the largest size.
    window_bytes: Annotated[types.Size, types.size_between("64KiB")] = _DEFAULT_OPTIONS.window_bytes
    """Largest window in bytes, at least 64KiB."""

    sessions: Count = 5000
    """Concurrent transfers. Further requests are dropped; clients repeat them."""

    sessions_per_client: Count | None = None
    """Concurrent transfers of one client (an IPv4 address or an IPv6 /64)."""

    sessions_per_network: Count | None = None
    """Concurrent transfers of one network, an IPv4 /24 or an IPv6 /64."""

    half_open: Count = 1000
    """Concurrent transfers whose client has not answered yet.

    Beyond this number the oldest one is evicted.
    """

    requests_per_second: Count | None = None
    """Requests per second that one client answers."""

    connections: Count = 1000
    """Concurrent HTTP connections.

    Beyond this number, a connection of the client with most of them is closed, if possible an
    idle one.
    """

    header_time: Seconds = 10.0
    """Time limit for the line and the headers of an HTTP request, in seconds."""

    keep_alive_time: Seconds = 60.0
    """Time after which an HTTP connection without a request is closed, in seconds."""

    memory: Annotated[types.Size, types.size_between("16MiB")] = 512 << 20
    """Memory of windows and rendered files in all workers together.

    The less of it is free, the smaller are the windows of new transfers.
    """

    bandwidth: Annotated[types.Size, types.size_between(_MIN_BANDWIDTH)] | None = None
    """Bytes per second of all transfers together."""

    session_bandwidth: Annotated[types.Size, types.size_between(_MIN_BANDWIDTH)] | None = None
    """Bytes per second of each transfer."""

    # The maximum is low because rendered files stay in memory.
    template_size: Annotated[types.Size, types.size_between("1KiB", "16MiB")] = _DEFAULT_RENDER.size
    """Largest rendered file, from 1KiB to 16MiB."""

    # The maximum is low because clients repeat their request in the meantime.
    template_time: Annotated[float, types.seconds_between(0.1, 10.0)] = _DEFAULT_RENDER.seconds
    """Time limit for rendering a template, in seconds."""

    def render_limits(self) -> RenderLimits:
        """Build the access.RenderLimits that this section describes."""
        return RenderLimits(self.template_size, self.template_time)

    def option_limits(self) -> OptionLimits:
        """Build the protocol.OptionLimits that this section describes.

        If the bandwidth is limited, a window takes at most 0.25 s. Otherwise clients would time
        out in the middle of a window.
        """
        bandwidth = min(self.bandwidth or inf, self.session_bandwidth or inf)
        max_bytes = max(DEFAULT_BLKSIZE, bandwidth * _MAX_WINDOW_SECONDS)
        return OptionLimits(
            int(min(self.blksize, max_bytes)),
            self.windowsize,
            int(min(self.window_bytes, max_bytes)),
        )


class RetransmitSection(ConfigModel):
    """Retransmission timers, in seconds."""

    min_interval: Seconds = _DEFAULT_POLICY.min_interval
    """Shortest retransmission interval."""

    max_interval: Seconds = _DEFAULT_POLICY.max_interval
    """Longest retransmission interval."""

    initial_interval: Seconds = _DEFAULT_POLICY.initial_interval
    """First retransmission interval."""

    idle_timeout: Seconds = _DEFAULT_POLICY.idle_timeout
    """A transfer ends when its client makes no progress for this time."""

    dally: Seconds = _DEFAULT_POLICY.dally
    """Time during which the last ACK of an upload is repeated on request."""

    max_unanswered_sends: Annotated[int, types.int_between(1, 100)] = DEFAULT_MAX_UNANSWERED_SENDS
    """Number of times that the first packet is sent to a client that never answers."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.min_interval <= min(self.max_interval, self.idle_timeout):
            raise InvalidCombination(
                "expected min_interval below max_interval and idle_timeout, got "
                f"{self.min_interval:g}, {self.max_interval:g} and {self.idle_timeout:g}"
            )
        return self

    def build_policy(self) -> RetransmitPolicy:
        """Build the protocol.RetransmitPolicy that this section describes."""
        return RetransmitPolicy(**self.model_dump())


class LogSection(ConfigModel):
    """Log level and format."""

    level: Literal["debug", "info", "warn", "error", "critical"] = "info"
    """Lowest level that is written."""

    format: Literal["text", "json"] = "text"
    """text for lines, json for one JSON object per line."""


class StatusSection(ConfigModel):
    """Address and port, or Unix socket, of the status page."""

    address: types.Address = "127.0.0.1"
    """IP address. On any address but loopback the page is public."""

    port: Annotated[int, types.int_between(1, 65535)] = 9169
    """TCP port."""

    socket: types.SocketPath | None = None
    """Unix socket, open to its owner and group, instead of an address."""

    names: list[types.HostName] = Field(default=[])
    """Host names, besides localhost, that browsers may use."""

    state: types.FilePath | None = None
    """File that keeps the last requests across restarts, relative to this file.

    By default status.json in the state directory of systemd; without systemd there is none.
    """

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if self.socket is not None and self.model_fields_set & {"address", "port"}:
            raise InvalidCombination("socket cannot be combined with address or port")
        return self


class ControlSection(ConfigModel):
    """Unix socket for `tftpd ctl`."""

    socket: types.SocketPath = "/run/tftpd/ctl.sock"
    """Unix socket, open to its owner and group."""

    variables: types.FilePath | None = None
    """File that keeps the values of `tftpd ctl set`, relative to this file.

    By default variables.json in the state directory of systemd; without systemd the values end
    with the daemon.
    """

    @property
    def variables_path(self) -> str | None:
        """Path of the file; None: the values are in memory."""
        directory = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # of systemd
        return self.variables or (f"{directory}/variables.json" if directory else None)


class TraceSection(ConfigModel):
    """Packet capture of one client or network."""

    client: types.Network
    """Address or network."""

    file: types.FilePath
    """Path of the pcap file, relative to this file."""

    # The minimum is about one packet of the largest size.
    max_size: Annotated[types.Size, types.size_between("64KiB")] = 16 << 20
    """Size at which the capture ends, at least 64KiB."""
