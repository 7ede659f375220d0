"""What became of datagrams to the well-known port that got neither session nor report."""

from enum import Enum


class Discard(Enum):
    """Why a datagram was let go. The value is the word for metrics."""

    MALFORMED = "malformed"  # no packet; a malformed request is told so
    NO_REQUEST = "no_request"  # a packet, but no request
    BROADCAST = "broadcast"  # a request to everyone, which is not taken
    NO_TURN = "no_turn"  # its host, or all, had said more than can wait
    NO_PLACE = "no_place"  # the last one went to another process meanwhile
    NO_PORT = "no_port"  # no port or no descriptor was left
    REPEATED = "repeated"  # a request whose session runs, which answers it


class Discards:
    """Counts them. Plain numbers: one addition for each."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(Discard, 0)

    def add(self, why: Discard) -> None:
        """One more."""
        self._counts[why] += 1

    def take(self) -> dict[Discard, int]:
        """What was counted since the last call."""
        taken, self._counts = self._counts, dict.fromkeys(Discard, 0)
        return taken
