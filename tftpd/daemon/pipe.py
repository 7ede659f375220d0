"""A pipe that the log goes to, whose reader may stand still."""

import errno
import io
import os
import select
import stat
from time import monotonic
from typing import TextIO

_PATIENCE = 100  # milliseconds that a reader may be late
_REST = 4.0  # times as long as was waited for it, before that is done again


def unwaiting(out: TextIO) -> TextIO:
    """`out`, or if that is a pipe or a socket, what writes there and hardly waits for its reader.

    What finds no room is lost, as `OSError` tells: a daemon that waited would serve nobody.
    """
    try:
        kind = os.fstat(out.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return out  # no descriptor of its own
    if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
        return _Pipe(out)  # type: ignore[return-value]
    return out


class _Pipe(io.TextIOBase):
    """Asks before it writes: O_NONBLOCK would be for all processes that write there."""

    def __init__(self, out: TextIO) -> None:
        self._out = out  # stays open as long as this
        self._encoding = out.encoding
        self._poll = select.poll()
        self._poll.register(out.fileno(), select.POLLOUT)
        self._within = False  # a line
        self._stands = False  # the reader
        self._not_before = 0.0

    def fileno(self) -> int:
        """The descriptor."""
        return self._out.fileno()

    def write(self, text: str) -> int:
        """Write whole lines; raises `OSError` where there is no room."""
        # The rest of a line that found none is lost, and does not spoil the next.
        octets = ("\n" * self._within + text).encode(self._encoding, "backslashreplace")
        for at in range(0, len(octets), select.PIPE_BUF):
            if not self._has_room():
                raise BlockingIOError(errno.EAGAIN, "its reader stands still")
            chunk = octets[at : at + select.PIPE_BUF]  # for which there is room then
            os.write(self._out.fileno(), chunk)
            self._within = not chunk.endswith(b"\n")
        return len(text)

    def _has_room(self) -> bool:
        """Whether there is some, or soon: a reader that is slow gets a fifth of our time."""
        if self._poll.poll(0):
            self._stands = False
            return True
        began = monotonic()
        if self._stands or began < self._not_before:
            return False
        self._stands = not self._poll.poll(_PATIENCE)
        ended = monotonic()
        self._not_before = ended + _REST * (ended - began)
        return not self._stands
