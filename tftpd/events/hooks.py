"""Interface of a hook, which delivers events, and the result of an attempt."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class DeliveryState(Enum):
    """Result of an event for one hook. The value is a label of the metrics."""

    DELIVERED = "delivered"
    FAILED = "failed"  # the program failed, or the time for attempts is over
    DROPPED = "dropped"  # a queue was full


@dataclass(frozen=True, slots=True)
class Attempt:
    """Result of one attempt to deliver an event.

    Attributes:
        problem: Reason of a failure; empty if the event was delivered.
        again: A later attempt may succeed.
        output: What the program wrote.
    """

    problem: str = ""
    again: bool = False
    output: str = ""


class Hook(ABC):
    """A program or a webhook."""

    @abstractmethod
    def deliver(self, event: dict[str, Any]) -> Attempt:
        """Deliver an event; blocks for a bounded time."""

    @abstractmethod
    def stop(self) -> None:
        """End the deliveries that run now, from another thread."""


@dataclass
class EventCounts:
    """Figures of the events, for the metrics.

    Attributes:
        ended: Number of events by name and state, for each hook that they matched.
        queued: Number of events in the queues of all hooks.
    """

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    queued: int = 0


def encode_event(event: dict[str, Any]) -> bytes:
    r"""Return an event as JSON in UTF-8. Bytes of a path that are not UTF-8 become \xNN."""
    values = {key: _printable(value) for key, value in event.items()}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()


def _printable(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
