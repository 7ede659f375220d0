"""What is done to the names that clients ask for."""

from dataclasses import dataclass

from tftpd.access.ladder import NO_LADDER, Ladder
from tftpd.access.rewriting import Rule


@dataclass(frozen=True, slots=True)
class Naming:
    """How a name is understood.

    The rules rewrite it, for reads and writes. The ladder is for reads of
    what is not there: a write goes to the very name that it says.
    """

    rules: tuple[Rule, ...] = ()
    ladder: Ladder = NO_LADDER


AS_ASKED = Naming()
"""Names are what clients ask for."""
