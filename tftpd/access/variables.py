"""Facts: what templates are told of a client that it does not say itself."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tftpd.access.client import Client
from tftpd.access.policy import Networks, admits


@dataclass(frozen=True, slots=True)
class VariableRule:
    """Values by their names, and whom they are about; what is None is everyone.

    `macs` are addresses or the octets that they begin with. Where there are
    `clients` and `macs`, both must fit.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    clients: Networks | None = None
    macs: Sequence[bytes] | None = None


class VariableTable:
    """Facts in their order: of two values of one name the later one holds."""

    def __init__(self, facts: Iterable[VariableRule] = ()) -> None:
        self._facts = tuple(facts)
        self.needs_mac = any(fact.macs for fact in self._facts)
        """Whether MAC addresses matter at all."""

    def __iter__(self) -> Iterator[VariableRule]:
        return iter(self._facts)

    def of(self, client: Client) -> Mapping[str, Any]:
        """All that is known of `client`, by its names.

        Its MAC address is asked for only where nothing else is left to decide.
        """
        values: dict[str, Any] = {}
        for fact in self._facts:
            if fact.clients is not None and not admits(fact.clients, client.address):
                continue
            if fact.macs is not None:
                mac = client.mac
                if mac is None or not any(map(mac.startswith, fact.macs)):
                    continue
            values.update(fact.values)
        return values
