"""What is done to the names that clients ask for."""

from dataclasses import dataclass

from tftpd.access.rewriting import Rule


@dataclass(frozen=True, slots=True)
class Naming:
    """How a name is understood: the rules that rewrite it, for reads and writes."""

    rules: tuple[Rule, ...] = ()


AS_ASKED = Naming()
"""Names are what clients ask for."""
