"""The keys of what an administrator watches: log, status page and packet trace."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from tftpd.config.fields import (
    Address,
    Contradiction,
    FilePath,
    HostName,
    Network,
    Size,
    SocketPath,
    at_least,
    choice,
    number,
)
from tftpd.config.keys import Keys

_LEAST_TRACE = 64 << 10  # octets: one packet of the largest size, about


class Log(Keys):
    """What is logged, and how."""

    level: Annotated[str, choice("debug", "info", "warn", "error", "critical")] = Field(
        default="info", description="The least level that is written."
    )
    format: Annotated[str, choice("text", "json")] = Field(
        default="text", description="Lines for people, or one JSON object a line."
    )


class Status(Keys):
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


class Trace(Keys):
    """Whose packets are written to a file."""

    client: Network = Field(description="An address, or a network.")
    file: FilePath = Field(description="The pcap file, relative to this one.")
    max_size: Annotated[Size, at_least(_LEAST_TRACE, "64KiB")] = Field(
        default=16 << 20, description="Where the trace ends, at least 64KiB."
    )
