"""What is asked for in storms, and done now and then."""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

_REST = 4.0  # times as long as the action took, before the next


class Seldom:
    """Does its action soon after it was called: once for all calls that came meanwhile.

    The action gets a fifth of the time at most, and what else the reactor has
    to do gets the rest.
    """

    def __init__(self, reactor: Any, action: Callable[[], object]) -> None:
        self._reactor = reactor
        self._action = action
        self._pending: IDelayedCall | None = None
        self._not_before = 0.0

    def __call__(self) -> None:
        if self._pending is None:
            wait = max(0.0, self._not_before - self._reactor.seconds())
            self._pending = self._reactor.callLater(wait, self._act)

    def stop(self) -> None:
        """Forget what is pending."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _act(self) -> None:
        self._pending = None
        began = self._reactor.seconds()
        try:
            self._action()
        finally:
            ended = self._reactor.seconds()
            self._not_before = ended + _REST * (ended - began)
