"""Objects at an origin that a test fills by hand, as the resolver and the listener see them."""

from twisted.internet.defer import Deferred

from tftpd.protocol.errors import ErrorCode, ErrorText, HostFault, RequestRefused
from tftpd.storage.origin_files import AnswerNeeded
from tftpd.storage.source import FileLike


class GrowingObject(FileLike):
    """An object whose content arrives when a test says so.

    Attributes:
        waiting: Functions to call when there is more.
        is_closed: True after `close()`.
    """

    def __init__(self, size):
        self.size = size
        self.content = b""
        self.failure = None
        self.waiting = []
        self.is_closed = False

    def arrive(self, content):
        """Append content, and wake the sessions that wait."""
        self.content += content
        self._wake()

    def fail(self):
        """Let the rest never come."""
        self.failure = HostFault(ErrorCode.NOT_DEFINED, "reset by peer", ErrorText.ORIGIN_FAILED)
        self._wake()

    def _wake(self):
        waiting, self.waiting = self.waiting, []
        for wake in waiting:
            wake()

    def close(self):
        self.is_closed = True
        self.waiting.clear()

    def read(self, buffers, offset, blocking):
        if offset >= len(self.content):
            if self.failure is not None:
                raise self.failure
            raise BlockingIOError
        copied = 0
        for buffer in buffers:
            part = self.content[offset + copied : offset + copied + len(buffer)]
            buffer[: len(part)] = part
            copied += len(part)
        return copied

    def when_readable(self, offset, wake):
        self.waiting.append(wake)
        return True


class FakeOrigins:
    """Origins with answers that a test gives by hand.

    Attributes:
        objects: What is known, by key: a file, an exception to raise, or None for no object.
        asked: Keys of the questions, in order.
        threads: Calls of `open` in which a thread may wait.
    """

    def __init__(self):
        self.objects = {}
        self.asked = []
        self._waiting = []

    def open(self, root, key, whole=False):
        if key not in self.objects:
            raise AnswerNeeded(root, key, whole)
        found = self.objects[key]
        if found is None:
            raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "the origin has no such object")
        if isinstance(found, Exception):
            raise found
        if whole and len(found.content) < found.size:
            raise AnswerNeeded(root, key, whole)
        return found

    def open_upload(self, root, key, grant, size, netascii):
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "no uploads")

    def ask(self, needed):
        self.asked.append(needed.key)
        done = Deferred()
        self._waiting.append(done)
        return done

    def answer(self, **objects):
        """Learn objects, and answer all questions."""
        self.objects |= objects
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)

    def refuse(self, error):
        """Fail all questions."""
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.errback(error)
