"""A question to a worker, and its answer, if it comes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from tftpd.server.admission import Discard
from tftpd.server.snapshot import Snapshot

QUESTION = b"snapshot"
"""What the daemon says to a worker to be told what runs there."""

_WITHIN = 1.0  # seconds; a worker that takes longer is shown as one that does not answer


class Asking:
    """Asks one worker, one question at a time.

    A worker that stands still gets one question and no more, so that its
    pipe does not fill up with them. What it says too late counts the next
    time.
    """

    def __init__(self, reactor: Any, tell: Callable[[bytes], None]) -> None:
        """`tell` sends a message to the worker."""
        self._reactor = reactor
        self._tell = tell
        self._asked = False  # and no answer yet
        self._waiting: Deferred[Snapshot | None] | None = None
        self._late: Counter[Discard] = Counter()

    def ask(self) -> "Deferred[Snapshot | None]":
        """What runs there; None where no answer comes in time. Wait for one before the next."""
        waiting: Deferred[Snapshot | None] = Deferred()
        waiting.addTimeout(_WITHIN, self._reactor, lambda *_: self._give_up())
        self._waiting = waiting
        if not self._asked:
            self._asked = True
            self._tell(QUESTION)
        return waiting

    def answered(self, snapshot: Snapshot) -> None:
        """The worker has said this."""
        self._asked = False
        self._late.update(snapshot.discards)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            discards, self._late = self._late, Counter()
            waiting.callback(replace(snapshot, discards=discards))

    def gone(self) -> None:
        """The worker will say nothing any more."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _give_up(self) -> None:
        self._waiting = None
