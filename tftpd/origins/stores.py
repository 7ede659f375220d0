"""Interface of the stores behind origins, and their errors.

All methods block. They are called in plain threads, from several threads at once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol


class OriginError(Exception):
    """The origin does not answer, or refuses what was asked for other reasons than the name.

    Args:
        reason: Text for the log, without credentials.
        blocked: True if this host does not let the daemon connect (EPERM or EACCES), as
            `IPAddressDeny=` of the systemd unit does.
    """

    def __init__(self, reason: str, blocked: bool = False) -> None:
        self.reason = reason
        self.blocked = blocked
        super().__init__(reason)


class ObjectNotFound(Exception):
    """The origin has no object with this key."""


class ObjectExists(Exception):
    """A conditional create found an object with this key."""


class NotModified(Exception):
    """The object still has the ETag that was passed."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Facts about one version of an object.

    Attributes:
        size: Length in bytes; None if the origin does not announce it.
        etag: ETag as the origin sent it, with its quotes; "" if there is none.
        modified: Time of the last change as text, for people; "" if unknown.
    """

    size: int | None
    etag: str
    modified: str = ""


class Download(Protocol):
    """One version of an object that is being read.

    Attributes:
        info: Facts from the head of the answer.
    """

    info: ObjectInfo

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in order. Called once.

        A broken connection is resumed by a request for the rest of the same version.

        Raises:
            OriginError: The rest cannot be read, the object has changed meanwhile, or the content
                is shorter or longer than `info.size`.
        """

    def close(self) -> None:
        """Release the connection; idempotent."""


class Store(Protocol):
    """A bucket with a prefix, or a web server with a path.

    Keys are relative to the prefix. They consist of components separated by "/"; no component is
    empty, "." or "..".
    """

    def get(self, key: str, etag: str = "") -> Download:
        """Ask for an object.

        Args:
            key: Key of the object.
            etag: ETag of the version that is known; "" to get the object in any case.

        Raises:
            NotModified: The object still has this ETag.
            ObjectNotFound: There is no such object.
            OriginError: The origin does not answer, or refuses.
        """

    def put(self, key: str, chunks: Iterable[bytes], create: bool) -> str:
        """Store an object; return its ETag, or "" if the origin sends none.

        The object is durable at the origin when this method returns. If `chunks` raises, the
        origin keeps no part of the object, and the exception is passed on.

        Args:
            key: Key of the object.
            chunks: Content, in order.
            create: True: only if there is no object with this key.

        Raises:
            ObjectExists: `create` is True, and there is such an object.
            OriginError: The origin does not answer, or refuses.
        """

    def probe(self, writes: bool) -> None:
        """Ask the origin once, to find wrong addresses, names and credentials.

        Args:
            writes: Also check that the origin refuses a second conditional create of one key.

        Raises:
            OriginError: The reason why the origin cannot be used.
        """

    def close(self) -> None:
        """Release all connections; idempotent."""
