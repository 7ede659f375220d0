"""Messages between the process that fetches and those that serve, over a Unix socket.

The protocol is Twisted's AMP: named commands with typed arguments. Only processes of the daemon's
user reach the socket, because its directory belongs to that user alone.
"""

from enum import StrEnum

from twisted.protocols import amp

MAX_REASON_CHARS = 1000


class AnswerState(StrEnum):
    """Kind of an answer to `Open`."""

    FILE = "file"  # in the cache, or on its way into it
    MISSING = "missing"  # the origin has no such object
    FAILED = "failed"  # the origin does not answer, and nothing in the cache may be served


class Open(amp.Command):
    """Ask for an object. The answer waits for the origin if that is necessary.

    Answer:
        state: An `AnswerState`.
        basename: Name of the file below `data` in the directory of the cache.
        size: Size of the object in bytes.
        have: Number of bytes that are in the file now.
        complete: True if that is the whole object. Otherwise the name ends with `PART_SUFFIX`.
        fresh_seconds: For so long the answer may be used without a new question.
        age_seconds: Time since the origin has sent or confirmed the object.
        is_stale: True if the object is older than `max_age`.
        reason: Reason of a failure, for the log.
    """

    arguments = [(b"origin", amp.Unicode()), (b"key", amp.Unicode())]  # noqa: RUF012
    response = [  # noqa: RUF012
        (b"state", amp.Unicode()),
        (b"basename", amp.Unicode()),
        (b"size", amp.Integer()),
        (b"have", amp.Integer()),
        (b"complete", amp.Boolean()),
        (b"fresh_seconds", amp.Float()),
        (b"age_seconds", amp.Float()),
        (b"is_stale", amp.Boolean()),
        (b"reason", amp.Unicode()),
    ]


class WaitFor(amp.Command):
    """Wait until a file that is being fetched has more than `offset` bytes, or has ended.

    Answer:
        have: Number of bytes in the file.
        complete: True if that is the whole object.
        reason: Reason why the rest will not come; empty if it may.
    """

    arguments = [(b"basename", amp.Unicode()), (b"offset", amp.Integer())]  # noqa: RUF012
    response = [  # noqa: RUF012
        (b"have", amp.Integer()),
        (b"complete", amp.Boolean()),
        (b"reason", amp.Unicode()),
    ]
