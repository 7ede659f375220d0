"""Values from the configuration that templates can use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tftpd.access.client import ClientIdentity
from tftpd.access.policy import Networks


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
