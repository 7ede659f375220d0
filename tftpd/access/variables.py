"""Values that templates can use: from the configuration, and from `tftpd ctl set`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tftpd.access.client import ClientIdentity
from tftpd.access.policy import Networks

_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class VariableRule:
    """Values for some clients. A condition that is None matches every client.

    Attributes:
        values: Values by name.
        clients: Networks of the clients.
        macs: MAC addresses or their first bytes. If both conditions are set, both must hold.
    """

    values: Mapping[str, Any]
    clients: Networks | None = None
    macs: Sequence[bytes] | None = None


@dataclass(frozen=True, slots=True)
class VariableTable:
    """Ordered variable rules; a later rule overrides values of earlier ones."""

    rules: Sequence[VariableRule] = ()

    @property
    def needs_mac(self) -> bool:
        """True if a rule matches MAC addresses."""
        return any(rule.macs for rule in self.rules)

    def values_for(self, client: ClientIdentity) -> Mapping[str, Any]:
        """Return all values for `client` by name.

        The MAC address is looked up only if the other condition of a rule holds.
        """
        values: dict[str, Any] = {}
        for rule in self.rules:
            if client.matches(rule.clients, rule.macs):
                values.update(rule.values)
        return values


@dataclass(frozen=True, slots=True)
class ClientValue:
    """A value that an administrator has set for one client while the daemon runs.

    Attributes:
        value: The value, as in JSON.
        expires: Time at which it ends, in seconds since the epoch; None: it has no end.
        once: True if it ends soon after the next template of the client.
    """

    value: Any
    expires: float | None = None
    once: bool = False

    def is_valid(self, now: float) -> bool:
        """Return True if it has not expired at the time `now`."""
        return self.expires is None or now < self.expires


def is_mac_key(client: str) -> bool:
    """Return True if a client of `ClientVariables` is named by its MAC address."""
    return _MAC.fullmatch(client) is not None


class ClientVariables:
    """Values of single clients by name; they override those of the configuration.

    Attributes:
        clients: Values by client and name. A client is its MAC address, such as
            `52:54:00:12:34:56`, or its IP address.
    """

    def __init__(self) -> None:
        self.clients: dict[str, Mapping[str, ClientValue]] = {}

    def update(self, clients: Mapping[str, Mapping[str, ClientValue]]) -> None:
        """Replace all values of some clients; a client without values is removed."""
        for client, values in clients.items():
            if values:
                self.clients[client] = values
            else:
                self.clients.pop(client, None)

    def values_for(self, client: ClientIdentity, now: float) -> dict[str, Any]:
        """Return the values by name at the time `now`.

        Values of the MAC address override those of the IP address.
        """
        return {
            name: each.value
            for key in self._find_keys(client)
            for name, each in self.clients[key].items()
            if each.is_valid(now)
        }

    def find_single_use(self, client: ClientIdentity, now: float) -> list[str]:
        """Return the keys in `clients` that have values for one boot at the time `now`."""
        return [
            key
            for key in self._find_keys(client)
            if any(each.once and each.is_valid(now) for each in self.clients[key].values())
        ]

    def _find_keys(self, client: ClientIdentity) -> list[str]:
        if not self.clients:
            return []
        keys = [str(client.address), client.mac.hex(":") if client.mac else ""]
        return [key for key in keys if key in self.clients]
