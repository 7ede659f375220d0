"""Download that continues after a broken connection."""

import time
from collections.abc import Callable, Iterator

from tftpd.origins.stores import ObjectInfo, OriginError, OriginUnavailable

CHUNK_BYTES = 64 << 10
"""Size of a part that a store reads at least: small, so that the first client need not wait."""

# Pauses before the requests for the rest. An origin that restarts is back within seconds, and a
# client waits no longer than these 16 s together.
_PAUSES_SECONDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

# Limit for an origin that breaks each connection after a few bytes.
_MAX_REQUESTS = 100


class ResumingDownload:
    """Content of one version of an object.

    Args:
        info: Facts from the head of the answer.
        parts: Content of the first answer.
        resume: Asks for the same version from an offset on, in bytes. None if the origin sent
            nothing by which the same version can be recognised.
        close: Releases the connection.

    Attributes:
        info: Facts from the head of the answer.
    """

    def __init__(
        self,
        info: ObjectInfo,
        parts: Iterator[bytes],
        resume: Callable[[int], Iterator[bytes]] | None,
        close: Callable[[], None],
    ) -> None:
        self.info = info
        self.close = close
        self._parts = parts
        self._resume = resume

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in order; see `Download.chunks`."""
        size = self.info.size
        have = 0
        parts = self._parts
        pauses = iter(_PAUSES_SECONDS)
        for _ in range(_MAX_REQUESTS):
            try:
                for chunk in parts:
                    have += len(chunk)
                    if size is not None and have > size:
                        raise OriginError(f"the object is longer than the announced {size} bytes")
                    yield chunk
                    pauses = iter(_PAUSES_SECONDS)
                if size is None or have == size:
                    return
                raise OriginUnavailable("the connection was closed")
            except OriginUnavailable as error:
                pause = next(pauses, None)
                if self._resume is None or size is None or pause is None:
                    raise _interrupted(have, size, error) from error
            time.sleep(pause)
            parts = self._resume_later(self._resume, have)
        raise _interrupted(have, size, OriginError("the connection was closed again and again"))

    @staticmethod
    def _resume_later(resume: Callable[[int], Iterator[bytes]], offset: int) -> Iterator[bytes]:
        """Ask for the rest when the first part of it is read, so that one place handles errors."""
        yield from resume(offset)


def _interrupted(have: int, size: int | None, error: OriginError) -> OriginError:
    of_size = "" if size is None else f" of {size}"
    reason = f"interrupted after {have}{of_size} bytes: {error.reason}"
    return OriginError(reason, blocked=error.blocked)
