"""Queue and thread pool for file lookups that may block.

A lookup may wait for a disk, render a template, or wait for an answer of an origin. A repeated
request waits for the lookup that is queued already. Lookups for files of one root directory share a
queue, and so do those that render its templates: a file server that is down, or a slow
template, delays no others. Within such a queue clients are served round-robin. A lookup that
waits for an origin uses no thread, so that any number of them runs.

Most metadata is in memory. A lookup that finds it there takes 0.1 ms; in a thread beside
active transfers it takes ten times as long, because the two threads exchange the
interpreter lock at each system call. So the reactor blocks for the result, but only for
a short time.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from math import inf
from threading import Lock, Thread
from time import monotonic, thread_time
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from tftpd.net.types import TID
from tftpd.protocol.packets import Request
from tftpd.server.admission import RequestDropped, client_key
from tftpd.server.fair_queue import FairQueue

MAX_RUNNING_PER_ROOT = 4
"""Lookups of one root that run at the same time, and as many that render its templates."""

# How long the reactor may block on a lookup that is expected to be quick: ten times what
# a negative result takes. After one that took longer, do not block again for 40 ms, so
# that a slow disk costs at most 5 % of the time.
_MAX_BLOCK_SECONDS = 0.002
_NO_BLOCK_SECONDS = 20 * _MAX_BLOCK_SECONDS
_MAX_BLOCKS_PER_TURN = 4

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Lookup(Generic[T]):
    """One file lookup for a request.

    Attributes:
        tid: TID of the client.
        request: The request; a repeated one does not start a second lookup.
        work: Runs in a thread, or asks an origin in the reactor thread and returns a Deferred.
        then: Called in the reactor thread with the result or the exception of `work`.
        discard: Called in place of `then` with a result that is no longer wanted.
        renders: Whether `work` renders a template. Otherwise the reactor may block for the
            result for a short time.
        asks_origin: Whether `work` asks an origin.
        wanted: False after the lookup was cancelled.
    """

    tid: TID
    request: Request
    work: Callable[[], Any]
    then: Callable[[T | Exception], None]
    discard: Callable[[T], None] = lambda result: None
    renders: bool = False
    asks_origin: bool = False
    wanted: bool = True


class _RootQueue:
    """Pending lookups for one root, queued per client. Running lookups are only counted.

    Attributes:
        clients: TIDs of the pending and running lookups of each client, in order.
    """

    def __init__(self, key: Hashable, max_running: float) -> None:
        self.key = key
        self.max_running = max_running
        self.n_running = 0
        self.starting = False
        self.pending: FairQueue[Lookup[Any]] = FairQueue(0)
        self.clients: dict[str, dict[TID, None]] = {}


class _TimedCall(Generic[T]):
    """Callable that returns the result or the exception of its work and measures CPU time.

    Waiting does not count. The exception is returned as a value: Twisted's `Failure`
    inspects all frames, which took longer than a lookup with a negative result.
    """

    def __init__(self, work: "Callable[[], T | Deferred[T]]") -> None:
        self._work = work
        self.cpu_seconds = 0.0

    def __call__(self) -> "T | Deferred[T] | Exception":
        start = thread_time()
        try:
            return self._work()
        except Exception as error:
            return error
        finally:
            self.cpu_seconds = thread_time() - start


class LookupQueue:
    """Pending and running lookups.

    Attributes:
        by_tid: The lookups and their queues, by the TIDs of the clients.
    """

    def __init__(
        self,
        in_thread: Callable[[Callable[[], Any], float, bool], "Deferred[Any]"],
        charge: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Initialize the queue.

        Args:
            in_thread: Runs the work of a lookup, as `SessionRuntime.run_lookup()` does.
            charge: Called with the CPU seconds of each failed lookup, except those that
                finish inside `submit()`; the caller accounts for these itself.
        """
        self._in_thread = in_thread
        self._charge = charge
        self.by_tid: dict[TID, tuple[Lookup[Any], _RootQueue]] = {}
        self._root_queues: dict[Hashable, _RootQueue] = {}
        self._may_block_at = 0.0  # monotonic time in seconds

    def __len__(self) -> int:
        return len(self.by_tid)

    def handle_repeated(self, tid: TID, request: Request) -> bool:
        """Return True if a lookup for the same request is queued; cancel that of another one."""
        entry = self.by_tid.get(tid)
        if entry is None:
            return False
        if entry[0].request == request:
            return True
        self.cancel(tid)
        return False

    def submit(self, lookup: Lookup[T], key: Hashable, limit: int) -> None:
        """Queue a lookup and start it if fewer than four run for the same key.

        Lookups that ask an origin start at once. Their key must differ from those of the others.

        If the queue of the key is full, the last lookup of the client with most of them is
        cancelled and gets `RequestDropped`. Each key has a queue, so that a file server that
        is down takes no space from other roots.

        Args:
            lookup: The lookup. No other one has its TID.
            key: Root that the lookup may wait for, and whether it renders a template.
            limit: Number of lookups of this key.

        Raises:
            RequestDropped: The queue is full, and this client has most of the lookups.
        """
        client = client_key(lookup.tid[0][0])
        max_running = inf if lookup.asks_origin else MAX_RUNNING_PER_ROOT
        root_queue = self._root_queues.setdefault(key, _RootQueue(key, max_running))
        if sum(map(len, root_queue.clients.values())) >= limit:
            self._make_space(root_queue.clients, client, limit)
        self.by_tid[lookup.tid] = lookup, root_queue
        root_queue.clients.setdefault(client, {})[lookup.tid] = None
        root_queue.pending.push(client, lookup, size=0)  # `limit` bounds the queue
        self._run(root_queue)

    def cancel(self, tid: TID) -> None:
        """Cancel the lookup of this TID, if any."""
        entry = self._pop(tid)
        if entry is not None:
            lookup, root_queue = entry
            lookup.wanted = False
            root_queue.pending.remove(client_key(tid[0][0]), lookup)

    def clear(self) -> None:
        """Cancel all lookups."""
        for tid in list(self.by_tid):
            self.cancel(tid)

    def _make_space(self, clients: dict[str, dict[TID, None]], client: str, limit: int) -> None:
        dropped = RequestDropped(f"lookup queue is full ({limit} requests)")
        most = max(clients.values(), key=len)
        if len(most) <= len(clients.get(client, ())) + 1:
            raise dropped
        tid = next(reversed(most))
        lookup, _ = self.by_tid[tid]
        self.cancel(tid)
        lookup.then(dropped)

    def _pop(self, tid: TID) -> tuple[Lookup[Any], _RootQueue] | None:
        entry = self.by_tid.pop(tid, None)
        if entry is not None:
            client, clients = client_key(tid[0][0]), entry[1].clients
            del clients[client][tid]
            if not clients[client]:
                del clients[client]
        return entry

    def _run(self, root_queue: _RootQueue) -> None:
        if root_queue.starting:
            return  # a lookup finished at once; the loop below starts the next one
        root_queue.starting = True
        try:
            self._start(root_queue)
        finally:
            root_queue.starting = False
        if not root_queue.n_running:
            self._root_queues.pop(root_queue.key, None)

    def _start(self, root_queue: _RootQueue) -> None:
        blocks_left = _MAX_BLOCKS_PER_TURN
        while root_queue.pending and root_queue.n_running < root_queue.max_running:
            lookup = root_queue.pending.pop()
            call = _TimedCall(lookup.work)
            if lookup.asks_origin:
                root_queue.n_running += 1
                maybeDeferred(call).addBoth(self._on_done, lookup, root_queue, call)
                continue
            block = not lookup.renders and blocks_left > 0 and monotonic() >= self._may_block_at
            done = self._in_thread(call, _MAX_BLOCK_SECONDS if block else 0.0, lookup.renders)
            root_queue.n_running += 1
            blocks_left -= 1
            if block and not done.called:
                self._may_block_at = monotonic() + _NO_BLOCK_SECONDS
            done.addBoth(self._on_done, lookup, root_queue, call)

    def _on_done(
        self,
        result: Any,
        lookup: Lookup[Any],
        root_queue: _RootQueue,
        call: _TimedCall[Any],
    ) -> None:
        start = monotonic()
        root_queue.n_running -= 1
        if isinstance(result, Failure):  # no thread could be started
            result = result.value
        if lookup.wanted:
            self._pop(lookup.tid)
            lookup.then(result)
        elif not isinstance(result, Exception):
            lookup.discard(result)
        if isinstance(result, Exception) and not root_queue.starting:
            self._charge(call.cpu_seconds + monotonic() - start)
        self._run(root_queue)


class LookupPool:
    """Thread pool for file lookups.

    The reactor blocks up to `max_wait` seconds for a result before it continues without
    it.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, is_embedded: bool = False) -> None:
        """Initialize the pool.

        Args:
            reactor: The reactor.
            name: Name of the pool, for the names of its threads.
            is_embedded: True if neither `stop()` nor the end of the program shall wait for running
                lookups: they run code of the program that embeds the server.
        """
        self._reactor = reactor
        self._is_embedded = is_embedded
        self._pool = ThreadPool(0, MAX_RUNNING_PER_ROOT, name)
        if is_embedded:
            use_daemon_threads(self._pool)
        self._pool.start()

    def resize(self, n_roots: int) -> None:
        """Resize the pool: each of `n_roots` roots has threads, even if all others hang."""
        self._pool.adjustPoolsize(0, max(1, n_roots) * MAX_RUNNING_PER_ROOT)

    def __call__(self, work: Callable[[], T], max_wait: float) -> "Deferred[T]":
        """Run `work` in a thread.

        Returns:
            A Deferred that has already fired if the result arrived within `max_wait`
            seconds. It fails with `MemoryError` if no thread can be started.
        """
        try:
            handover = _Handover(self._reactor)
            self._pool.callInThreadWithCallback(handover.put, work)
        except (RuntimeError, MemoryError) as error:
            forget_unstarted_threads(self._pool)
            return fail(MemoryError(str(error)))
        handover.wait(max_wait)
        return handover.done

    def stop(self) -> None:
        """End the threads; wait for running lookups unless the server is embedded."""
        if self._is_embedded:
            self._pool.threads.clear()  # those that `stop()` waits for
        self._pool.stop()


def use_daemon_threads(pool: ThreadPool) -> None:
    """Let the program end although threads of this pool are running."""
    pool.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]


def forget_unstarted_threads(pool: ThreadPool) -> None:
    """Forget threads that could not be started: `ThreadPool.stop()` fails if there is one."""
    pool.threads[:] = [thread for thread in pool.threads if thread.ident is not None]


class _Handover:
    """Passes a result from its thread to the reactor thread.

    Hands a result to the waiting reactor thread, or, once it has stopped waiting, through
    `callFromThread`.
    """

    __slots__ = ("_arrived", "_has_result", "_lock", "_reactor", "_result", "_waiting", "done")

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self.done: Deferred[Any] = Deferred()
        self._reactor = reactor
        self._lock = Lock()
        self._arrived = Lock()
        self._arrived.acquire()
        self._result: Any = None
        self._has_result = False
        self._waiting = True

    def put(self, succeeded: bool, result: Any) -> None:
        """Store the result, or a `Failure`; called in the thread."""
        with self._lock:
            self._result = result
            self._has_result = True
            waiting = self._waiting
        if waiting:
            self._arrived.release()
        else:
            self._reactor.callFromThread(self._fire)

    def wait(self, max_wait: float) -> None:
        """Block until the result arrives, for `max_wait` seconds at most, then fire `done`.

        Later results fire `done` through the reactor.
        """
        if max_wait > 0:
            self._arrived.acquire(timeout=max_wait)
        with self._lock:
            self._waiting = False
            has_result = self._has_result
        if has_result:
            self._fire()

    def _fire(self) -> None:
        self.done.callback(self._result)
