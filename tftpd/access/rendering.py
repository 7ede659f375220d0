"""What it may cost to make a file of a template."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """The octets that come out at most, and the seconds that it may take."""

    size: int = 1 << 20
    seconds: float = 2.0
