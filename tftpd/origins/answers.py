"""Answers of the fetcher that a process that serves remembers for a short time."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tftpd.access.origin_roots import OriginRoot
from tftpd.protocol.errors import ErrorCode, ResourceExhausted

_MAX_ANSWERS = 4096
# To one origin at the same time. Requests are limited, but each one that is displaced by another
# client's leaves its question behind while an origin does not answer.
_MAX_QUESTIONS = 2000
_MAX_CALLS_PER_TURN = 16

T = TypeVar("T")


class CallQueue:
    """Calls functions in the reactor thread, a few in each turn.

    A thousand clients may wait for one object. To serve all of them at once would delay the others.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._queue: deque[Callable[[], None]] = deque()

    def add(self, function: Callable[[], None]) -> None:
        """Call a function in one of the next turns."""
        if not self._queue:
            self._clock.callLater(0, self._run)
        self._queue.append(function)

    def _run(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), _MAX_CALLS_PER_TURN))]
        if self._queue:
            self._clock.callLater(0, self._run)
        for function in batch:
            try:
                function()
            except Exception:
                self.log.failure("internal error after an answer", event="answer_failed")


class AnswerCache(Generic[T]):
    """Answers by root and key, each until it expires. Equal questions are asked once.

    `find` may be called in any thread, everything else in the reactor thread.
    """

    def __init__(self, clock: IReactorTime, calls: CallQueue) -> None:
        """Initialize the cache.

        Args:
            clock: Monotonic time.
            calls: Wakes the requests that wait for an answer.
        """
        self._clock = clock
        self._calls = calls
        self._answers: OrderedDict[tuple[str, str], tuple[T, float]] = OrderedDict()
        self._questions: dict[tuple[str, str], list[Deferred[None]]] = {}
        self._n_questions: Counter[str] = Counter()  # of each origin

    def find(self, root: OriginRoot, key: str) -> T | None:
        """Return the answer for a key; None if the fetcher must be asked."""
        answer, expires_at = self._answers.get((root.origin, key)) or (None, 0.0)
        return answer if self._clock.seconds() < expires_at else None

    def forget(self, root: OriginRoot, key: str) -> None:
        """Ask again for a key."""
        self._answers.pop((root.origin, key), None)

    def ask(
        self, root: OriginRoot, key: str, question: Callable[[], "Deferred[tuple[T, float]]"]
    ) -> "Deferred[None]":
        """Ask for a key, unless a question for it is under way.

        Args:
            root: The root at the origin.
            key: The key.
            question: Asks the fetcher. Its Deferred fires with the answer and the seconds for
                which it is used, and does not fail.

        Returns:
            A Deferred that fires later, in one of the next turns of the reactor: then `find`
            returns the answer, unless it was outdated at once. It fails with `ResourceExhausted`
            if too many questions to this origin wait.
        """
        index = (root.origin, key)
        done: Deferred[None] = Deferred()
        waiting = self._questions.get(index)
        if waiting is not None:
            waiting.append(done)
            return done
        if self._n_questions[root.origin] >= _MAX_QUESTIONS:
            reason = f"{_MAX_QUESTIONS} questions wait for {root}"
            return fail(ResourceExhausted(ErrorCode.NOT_DEFINED, reason))
        self._questions[index] = [done]
        self._n_questions[root.origin] += 1
        question().addCallback(self._store, index)
        return done

    def _store(self, result: tuple[T, float], index: tuple[str, str]) -> None:
        answer, seconds = result
        self._answers.pop(index, None)
        self._answers[index] = answer, self._clock.seconds() + seconds
        while len(self._answers) > _MAX_ANSWERS:
            self._answers.popitem(last=False)
        self._n_questions[index[0]] -= 1
        for done in self._questions.pop(index):
            self._calls.add(lambda done=done: done.callback(None))  # type: ignore[misc]
