"""A store in memory whose chunks arrive when a test says so, and threads that a test awaits."""

import queue
import threading
import time

from twisted.internet.task import Clock

from tftpd.config.origins import OriginSection
from tftpd.origins.cache import DiskCache
from tftpd.origins.fetcher import Fetcher
from tftpd.origins.stores import NotModified, ObjectExists, ObjectInfo, ObjectNotFound

WAIT_SECONDS = 10.0

INVALID_KEYS = [
    *("", "..", ".", "a/../b", "a//b", "/a", "a/", "a\\..\\b"),
    *("a\0b", "a\nb", "a\x7f", "\x85", "\udcff"),
]
"""Keys that a store must not send: they could leave the prefix."""


def read(store, key, etag=""):
    """Return the facts and the content of an object."""
    download = store.get(key, etag)
    try:
        return download.info, b"".join(download.chunks())
    finally:
        download.close()


class MemoryDownload:
    """Content that a test feeds with `send`; None ends it, and an exception breaks it."""

    def __init__(self, size, etag):
        self.info = ObjectInfo(size, etag)
        self.is_closed = False
        self._chunks = queue.Queue()

    def send(self, *chunks):
        for chunk in chunks:
            self._chunks.put(chunk)

    def chunks(self):
        while True:
            chunk = self._chunks.get(timeout=WAIT_SECONDS)
            if chunk is None:
                return
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    def close(self):
        self.is_closed = True


class MemoryStore:
    """Store with objects by key.

    Attributes:
        objects: Content and ETag, a `MemoryDownload`, or an exception; by key.
        questions: Keys and ETags of the questions.
        heads: Keys of the questions if an object exists.
        gate: Cleared: questions wait.
        puts: Content and condition of the uploads, by key; None as long as they run.
        arrived: Chunks of all uploads.
        put_gate: Cleared: uploads wait.
        failure: Exception of the next uploads, and of the questions before them.
        probes: Number of probes.
        probe_failure: Exception of the next probes.
    """

    def __init__(self):
        self.objects = {}
        self.questions = []
        self.heads = []
        self.gate = threading.Event()
        self.gate.set()
        self.n_waiting = 0
        self.is_closed = False
        self.puts = {}
        self.arrived = []
        self.put_gate = threading.Event()
        self.put_gate.set()
        self.failure = None
        self.probes = 0
        self.probe_failure = None

    def get(self, key, etag=""):
        self.questions.append((key, etag))
        self.n_waiting += 1
        assert self.gate.wait(WAIT_SECONDS)
        self.n_waiting -= 1
        found = self.objects.get(key)
        if found is None:
            raise ObjectNotFound
        if isinstance(found, Exception):
            raise found
        if isinstance(found, MemoryDownload):
            return found
        content, current = found
        if etag and etag == current:
            raise NotModified
        download = MemoryDownload(len(content), current)
        download.send(content, None)
        return download

    def exists(self, key):
        self.heads.append(key)
        assert self.gate.wait(WAIT_SECONDS)
        if self.failure is not None:
            raise self.failure
        return key in self.objects

    def put(self, key, chunks, create):
        if self.failure is not None:
            raise self.failure
        self.puts[key] = None, create
        assert self.put_gate.wait(WAIT_SECONDS)
        content = b""
        for chunk in chunks:
            self.arrived.append(chunk)
            content += chunk
        if create and key in self.objects:
            raise ObjectExists
        self.objects[key] = content, f'"{len(self.arrived)}"'
        self.puts[key] = content, create
        return ""

    def probe(self, writes):
        self.probes += 1
        if self.probe_failure is not None:
            raise self.probe_failure

    def close(self):
        self.is_closed = True


class FetcherBench:
    """A fetcher with a store in memory, a clock, and real threads whose calls a test runs.

    Attributes:
        now: Seconds since the epoch, as the fetcher sees them.
    """

    def __init__(self, path, **section):
        self.clock = Clock()
        self.store = MemoryStore()
        self.cache = DiskCache(path, 1 << 30, 0)
        self.now = time.time()
        self._calls = queue.Queue()
        self._threads = []
        self.fetcher = Fetcher(
            self.clock, self.cache, self._in_thread, self._in_reactor, lambda: self.now
        )
        self.configure(**section)

    def configure(self, create_only=(), **section):
        web = OriginSection(url="http://127.0.0.1", **{"max_age": 10, "negative": 2, **section})
        self.fetcher.configure({"web": web}, lambda _: self.store, create_only)

    def open(self, key):
        """Ask for a key; return the list that gets the answer."""
        answers = []
        self.fetcher.open("web", key).addCallback(answers.append)
        return answers

    def answer(self, key):
        """Ask for a key, and return the answer."""
        answers = self.open(key)
        self.run_until(lambda: answers)
        return answers[0]

    def fetch(self, key, content=b"content", etag='"1"'):
        """Bring an object into the cache."""
        self.store.objects[key] = content, etag
        self.answer(key)
        self.settle()

    def wait_for_end(self, basename):
        """Return the list that gets the answer at the end of a fetch."""
        answers = []
        self.fetcher.wait_for_end(basename).addCallback(answers.append)
        return answers

    def run_until(self, condition):
        """Run what the threads want to have called in the reactor until a condition is true."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "the condition is not true in time"
            try:
                function, arguments = self._calls.get(timeout=0.02)
            except queue.Empty:
                continue
            function(*arguments)

    def settle(self):
        """Wait for the end of all threads, and run their calls."""
        self.run_until(lambda: not any(map(threading.Thread.is_alive, self._threads)))
        while not self._calls.empty():
            function, arguments = self._calls.get()
            function(*arguments)

    def close(self):
        self.store.gate.set()
        self.settle()
        self.cache.close()

    def read(self, answer):
        return (self.cache.data / answer["basename"]).read_bytes()

    def _in_thread(self, work):
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def _in_reactor(self, function, *arguments):
        self._calls.put((function, arguments))
