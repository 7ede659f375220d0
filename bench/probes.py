"""Times the parts of a running program, each without the parts it calls.

A probe costs time itself, some 0.3 us. How much is measured on a function
that does nothing, and subtracted from the part and from its caller's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

_CALIBRATIONS = 20_000


@dataclass(slots=True)
class Part:
    """What was seen of one part: its own seconds, its calls, and the probed calls it made."""

    seconds: float = 0.0
    calls: int = 0
    inner: int = 0


class Probes:
    """Wraps functions and adds up their times. For one thread."""

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}
        self._callers: list[Part] = [Part()]
        self._within: list[float] = [0.0]  # seconds in probed calls, for each caller
        self._inside, self._outside = self._calibrate()

    def wrap(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """`function`, timed as a part of this name."""
        part = self._parts.setdefault(name, Part())
        callers, within, clock = self._callers, self._within, perf_counter

        def probed(*args: Any, **kwargs: Any) -> Any:
            callers[-1].inner += 1
            callers.append(part)
            within.append(0.0)
            began = clock()
            try:
                return function(*args, **kwargs)
            finally:
                whole = clock() - began
                part.seconds += whole - within.pop()
                part.calls += 1
                callers.pop()
                within[-1] += whole

        return probed

    @contextmanager
    def installed(self, places: list[tuple[type, str, str]]) -> Iterator[None]:
        """Wrap methods for a while: of each class the attribute, as a part of this name."""
        known = [(owner, attribute, vars(owner)[attribute]) for owner, attribute, _ in places]
        for owner, attribute, name in places:
            setattr(owner, attribute, self.wrap(vars(owner)[attribute], name))
        try:
            yield
        finally:
            for owner, attribute, function in known:
                setattr(owner, attribute, function)

    def seconds(self) -> dict[str, float]:
        """Each part's own time, without what the probes cost."""
        return {
            name: max(0.0, part.seconds - part.calls * self._inside - part.inner * self._outside)
            for name, part in self._parts.items()
        }

    def _calibrate(self) -> tuple[float, float]:
        """Seconds that a probe adds to its own part, and to its caller's."""
        probed = self.wrap(_nothing, "")
        began = perf_counter()
        for _ in range(_CALIBRATIONS):
            probed()
        whole = perf_counter() - began
        began = perf_counter()
        for _ in range(_CALIBRATIONS):
            _nothing()
        plain = perf_counter() - began
        inside = self._parts.pop("").seconds / _CALIBRATIONS
        return inside, max(0.0, (whole - plain) / _CALIBRATIONS - inside)


def _nothing() -> None:
    return
