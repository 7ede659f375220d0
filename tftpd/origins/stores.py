"""Interface of the stores behind origins, and their errors.

All methods block. They are called in plain threads, from several threads at once.
"""

import re
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

# Some stores take a backslash for a slash. Surrogates stand for bytes that are not UTF-8.
_COMPONENT = re.compile(r"[^\\\x00-\x1f\x7f-\x9f\ud800-\udfff]+")

T = TypeVar("T")

MAX_REASON_LENGTH = 300
"""Limit for the part of a reason that comes from an origin or a library, in characters."""

MIN_UPLOAD_TIMEOUT_SECONDS = 60.0
"""An origin answers when it has stored a whole upload or part, which takes long on a slow link."""


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


class OriginUnavailable(OriginError):
    """The connection failed, or the origin is overloaded: a later request may succeed."""


class ConditionsIgnored(OriginError):
    """The origin ignores conditional writes: it replaces an object that must not exist."""


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

    def exists(self, key: str) -> bool:
        """Return True if there is an object with this key.

        Raises:
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


def ask_twice(ask: Callable[[], T]) -> T:
    """Return the answer of an origin. Ask once more: a kept connection may have been closed."""
    try:
        return ask()
    except OriginUnavailable:
        return ask()


def record_failure(chunks: Iterable[bytes], failures: list[Exception]) -> Iterator[bytes]:
    """Pass on the chunks of an upload that are not empty, since an empty one would end a body.

    Args:
        chunks: The content.
        failures: Gets the exception of the source, which a library may replace by its own.
    """
    try:
        yield from filter(None, chunks)
    except Exception as error:
        failures.append(error)
        raise


def split_key(key: str) -> list[str]:
    """Return the components of a key.

    Keys come from checked names. This is the last check before a request leaves the host: no
    component may lead out of the prefix, whatever the origin makes of it.

    Raises:
        OriginError: A component is empty, "." or "..", or has a backslash or a control character.
    """
    components = key.split("/")
    for component in components:
        if component in {"", ".", ".."} or not _COMPONENT.fullmatch(component):
            raise OriginError(f"{key!r} is not a key")
    return components


def trust_ca_file(context: ssl.SSLContext, path: str) -> None:
    """Trust the authorities of a file, besides those that are trusted already.

    Args:
        context: Settings for TLS.
        path: File with certificates in PEM.

    Raises:
        OriginError: The file cannot be read, or has no certificates.
    """
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise OriginError(f"ca_file {path}: no certificates in PEM") from None
    except OSError as error:
        raise OriginError(f"ca_file {path}: {error.strerror}") from None


def untrusted_certificate(reason: str) -> OriginError:
    """Return the error for an origin whose certificate is not accepted.

    Args:
        reason: Reason as the library for TLS names it.
    """
    return OriginError(f"certificate not accepted: {reason}; ca_file names a private authority")


PROBE_KEY = "tftpd-probe"
"""Key of a small object that stays at an origin whose conditional creates have been checked."""


def check_conditional_create(create: Callable[[], object]) -> None:
    """Check that an origin refuses to create an object that exists.

    Args:
        create: Creates one object, only if it does not exist.

    Raises:
        ConditionsIgnored: The origin replaces it instead.
        OriginError: The origin does not answer, or refuses.
    """
    for _ in range(2):
        try:
            create()
        except ObjectExists:
            return
    raise ConditionsIgnored(
        "the origin ignores conditional writes (If-None-Match: *), so that overwrite: false"
        " cannot be kept"
    )
