"""The `devices` section: devices whose uploads are expected."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from tftpd.config import types
from tftpd.config.profiles import Glob
from tftpd.config.types import ConfigModel, InvalidCombination

MAX_DEVICES = 1000
"""Number of devices: each one is a label of metrics, and a row of the status page."""

_MAC = "(?i)[0-9a-f]{2}([:-][0-9a-f]{2}){5}"

DeviceMac = Annotated[str, types.matching(_MAC, 'a MAC address such as "52:54:00:12:34:56"')]


class DeviceSection(ConfigModel):
    """A device that uploads files, such as the backup of its configuration."""

    name: Annotated[
        str,
        types.matching(
            "[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "a name of letters, digits, dots and dashes"
        ),
    ]
    """Name on the status page, in metrics and in the log."""

    network: types.Network | None = None
    """Address or network of the device."""

    mac: DeviceMac | None = None
    """MAC address, known only for devices on networks of this host."""

    directory: types.Prefix | None = None
    """Prefix of the requested names (default: any)."""

    files: tuple[Glob, ...] | None = Field(default=None, min_length=1)
    """Patterns of requested names, such as *.cfg (default: all)."""

    expect_every: types.Duration = 86_400.0
    """Longest time between two uploads, such as 24h; the device is overdue after it."""

    @model_validator(mode="after")
    def _is_identified(self) -> Self:
        if (self.network is None) == (self.mac is None):
            raise InvalidCombination("expected one of network and mac")
        return self
