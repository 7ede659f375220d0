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


class CacheState(StrEnum):
    """State of an object when it was opened, for the access log."""

    HIT = "hit"  # in the cache, and sent or confirmed by the origin within `max_age`
    STALE = "stale"  # in the cache and older, because the origin has not confirmed it yet
    FETCHED = "fetched"  # not in the cache, or changed: fetched for this request or a moment before


class Open(amp.Command):
    """Ask for an object. The answer waits for the origin if that is necessary.

    Answer:
        state: An `AnswerState`.
        basename: Name of the file below `data` in the directory of the cache.
        size: Size of the object in bytes.
        complete: True if the whole object is in the file. Otherwise the file grows, and its name
            ends with `PART_SUFFIX`.
        fresh_seconds: For so long the answer may be used without a new question.
        age_seconds: Time since the origin has sent or confirmed the object.
        cache_state: A `CacheState`.
        reason: Reason of a failure, for the log.
    """

    arguments = [(b"origin", amp.Unicode()), (b"key", amp.Unicode())]  # noqa: RUF012
    response = [  # noqa: RUF012
        (b"state", amp.Unicode()),
        (b"basename", amp.Unicode()),
        (b"size", amp.Integer()),
        (b"complete", amp.Boolean()),
        (b"fresh_seconds", amp.Float()),
        (b"age_seconds", amp.Float()),
        (b"cache_state", amp.Unicode()),
        (b"reason", amp.Unicode()),
    ]


class WaitForEnd(amp.Command):
    """Wait for the end of a fetch. The length of the file tells how far it has come until then.

    Answer:
        reason: Reason why the rest will not come; empty if the whole object is in the file.
    """

    arguments = [(b"basename", amp.Unicode())]  # noqa: RUF012
    response = [(b"reason", amp.Unicode())]  # noqa: RUF012


class UploadState(StrEnum):
    """Result of an upload, or of the question whether one may begin."""

    STORED = "stored"  # the origin has confirmed the object
    ALLOWED = "allowed"
    EXISTS = "exists"  # there is an object with the key
    REFUSED = "refused"  # the origin ignores the condition of `overwrite: false`
    FULL = "full"  # unfinished uploads use too much space
    FAILED = "failed"  # the origin does not answer, or refuses


class CheckCreate(amp.Command):
    """Ask whether an object can be created, before its upload.

    The answer waits until the origin has shown whether it refuses to create an object that exists,
    and then for a second at most for the answer about this key. `StoreUpload` decides.

    Answer:
        state: `ALLOWED`, `EXISTS`, `REFUSED` or `FAILED` of `UploadState`.
        reason: Reason for the log of `REFUSED` and `FAILED`.
    """

    arguments = [(b"origin", amp.Unicode()), (b"key", amp.Unicode())]  # noqa: RUF012
    response = [(b"state", amp.Unicode()), (b"reason", amp.Unicode())]  # noqa: RUF012


class StoreUpload(amp.Command):
    """Store a file of the spool, which may still grow. The answer comes at the end.

    If the connection closes before, the origin gets no object unless the file was whole.

    Arguments:
        basename: Name of the file in the spool.
        create: True: only if there is no object with this key.
        size: Number of bytes that are in the file now.
        is_whole: True if that is the whole file.

    Answer:
        state: An `UploadState`; the object is at the origin if it is `STORED`.
        reason: Reason for the log.
    """

    arguments = [  # noqa: RUF012
        (b"origin", amp.Unicode()),
        (b"key", amp.Unicode()),
        (b"basename", amp.Unicode()),
        (b"create", amp.Boolean()),
        (b"size", amp.Integer()),
        (b"is_whole", amp.Boolean()),
    ]
    response = [(b"state", amp.Unicode()), (b"reason", amp.Unicode())]  # noqa: RUF012


class GrowUpload(amp.Command):
    """Report the size of a file that `StoreUpload` has named. There is no answer."""

    arguments = [  # noqa: RUF012
        (b"basename", amp.Unicode()),
        (b"size", amp.Integer()),
        (b"is_whole", amp.Boolean()),
    ]
    requiresAnswer = False


class AbortUpload(amp.Command):
    """Store no object for a file that `StoreUpload` has named. There is no answer."""

    arguments = [(b"basename", amp.Unicode())]  # noqa: RUF012
    requiresAnswer = False
