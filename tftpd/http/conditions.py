"""Conditional and range requests (RFC 9110 sections 13 and 14). No I/O."""

import re
from calendar import timegm
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate, parsedate_tz
from functools import lru_cache
from http import HTTPStatus

GetHeader = Callable[[bytes], bytes | None]
"""Returns the value of a header of the request; None if it is missing."""

_RANGE = re.compile(rb"bytes=[ \t]*(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))[ \t]*", re.I)


class RangeNotSatisfiable(Exception):
    """The requested range has no byte of the file."""


@dataclass(frozen=True, slots=True)
class Validators:
    """State of a file by which a client recognises it.

    Attributes:
        version: Identifier of the content (`FileLike.version`).
        modified: Time of the last change in seconds since the epoch; None if it is unknown.
    """

    version: bytes
    modified: int | None

    @property
    def etag(self) -> bytes:
        """Strong entity tag."""
        return b'"%s"' % self.version

    @property
    def last_modified(self) -> bytes | None:
        """Value of the header Last-Modified."""
        return None if self.modified is None else format_date(self.modified)


@lru_cache(maxsize=1024)
def format_date(seconds: int) -> bytes:
    """Return a time in seconds since the epoch as an HTTP date."""
    return formatdate(seconds, usegmt=True).encode()


def check_conditions(header: GetHeader, validators: Validators) -> HTTPStatus:
    """Evaluate the preconditions of a GET or HEAD request (section 13.2.2).

    Returns:
        OK, NOT_MODIFIED or PRECONDITION_FAILED.
    """
    modified = validators.modified
    match, since = header(b"if-match"), _parse_date(header(b"if-unmodified-since"))
    if match is not None:
        if not _has_tag(match, validators.etag, weak=False):
            return HTTPStatus.PRECONDITION_FAILED
    elif since is not None and modified is not None and modified > since:
        return HTTPStatus.PRECONDITION_FAILED
    none_match, since = header(b"if-none-match"), _parse_date(header(b"if-modified-since"))
    if none_match is not None:
        is_same = _has_tag(none_match, validators.etag, weak=True)
        return HTTPStatus.NOT_MODIFIED if is_same else HTTPStatus.OK
    if since is not None and modified is not None and modified <= since:
        return HTTPStatus.NOT_MODIFIED
    return HTTPStatus.OK


def select_range(
    header: GetHeader, validators: Validators, size: int, now: float
) -> tuple[int, int] | None:
    """Return the requested part of a file.

    Args:
        header: The headers of the request.
        validators: State of the file.
        size: Its size in bytes.
        now: Time in seconds since the epoch.

    Returns:
        Positions of the first byte and after the last one. None: the whole file, because there is
        no range, several ranges, one in another unit, or one of another version (If-Range).

    Raises:
        RangeNotSatisfiable: The file has no byte of the range.
    """
    text = header(b"range")
    match = _RANGE.fullmatch(text) if text is not None else None
    if match is None or not _is_same_version(header(b"if-range"), validators, now):
        return None
    if match[3] is not None:
        first, end = max(0, size - int(match[3])), size
    else:
        first = int(match[1])
        end = min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < first:
            return None
    if first >= end:
        raise RangeNotSatisfiable
    return first, end


def _is_same_version(text: bytes | None, validators: Validators, now: float) -> bool:
    if text is None or text.strip() == validators.etag:
        return True
    # A file may have changed twice in the second of its date (section 8.8.2.2).
    modified = validators.modified
    return modified is not None and _parse_date(text) == modified and now >= modified + 1


def _has_tag(text: bytes, etag: bytes, weak: bool) -> bool:
    """Return True if a list of entity tags has this one; our tags contain no commas."""
    tags = {tag.strip() for tag in text.split(b",")}
    return text.strip() == b"*" or etag in tags or (weak and b"W/" + etag in tags)


def _parse_date(text: bytes | None) -> int | None:
    """Return the seconds since the epoch; None if `text` is not a date."""
    if text is None:
        return None
    try:
        parsed = parsedate_tz(text.decode("ascii"))
        return None if parsed is None else timegm(parsed[:6]) - (parsed[9] or 0)
    except (ValueError, OverflowError):
        return None
