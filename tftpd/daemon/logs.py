"""Where log events go and in which form, as the configuration says.

A pipe that the log goes to, whose reader may stand still.
"""

import errno
import io
import json
import os
import re
import select
import signal
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from time import monotonic
from typing import Any, TextIO

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

_PATIENCE = 100  # milliseconds that a reader may be late
_REST = 4.0  # times as long as was waited for it, before that is done again


def nonblocking(out: TextIO) -> TextIO:
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


# Priorities of syslog, which systemd takes from the head of a line (sd-daemon(3)).
_PRIORITIES = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}

_LINE = re.compile("^(?=.)", re.MULTILINE)
_SCALAR = (str, int, float, bool, type(None))


def observer(level: str, form: str, out: TextIO) -> ILogObserver:
    """An observer that writes events of at least `level` to `out`.

    `level` is debug, info, warn, error or critical; `form` is text or json.
    Where `out` is the journal, lines have their priorities for it. Lines that a pipe
    has no room for are lost.
    """
    predicate = LogLevelFilterPredicate(LogLevel.lookupByName(level))
    to_journal, out = journaled(out), nonblocking(out)
    if to_journal:
        write = FileLogObserver(out, _prioritized(_object if form == "json" else _undated))
    else:
        write = FileLogObserver(out, _object if form == "json" else _text)
    return FilteringLogObserver(LossTolerantObserver(write), [predicate])


@implementer(ILogObserver)
class LossTolerantObserver:
    """Goes on where a full disk or a pipe takes no lines, and tells how many were lost."""

    def __init__(self, write: ILogObserver) -> None:
        self._write = write
        self._log = Logger(observer=write, namespace="tftpd.daemon.logs")
        self._lost = 0
        self._why = ""

    def __call__(self, event: LogEvent) -> None:
        try:
            if self._lost:
                told = "{lost} lines of the log were lost: {why}"
                self._log.warn(told, lost=self._lost, why=self._why)
                self._lost = 0
            self._write(event)
        except OSError as error:
            self._lost += 1
            self._why = error.strerror or str(error)


def journaled(out: TextIO) -> bool:
    """Whether what is written there goes to the journal (systemd.exec(5))."""
    try:
        status = os.fstat(out.fileno())
    except (AttributeError, OSError, ValueError):
        return False  # no descriptor of its own
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def print_startup_error(text: str) -> None:
    """Say on standard error what keeps the daemon from starting."""
    if journaled(sys.stderr):
        text = _with_priority(text, LogLevel.error)
    print(text, file=sys.stderr)


def _prioritized(to_text: Callable[[LogEvent], str | None]) -> Callable[[LogEvent], str | None]:
    def prioritized(event: LogEvent) -> str | None:
        text = to_text(event)
        return text and _with_priority(text, event.get("log_level", LogLevel.info))

    return prioritized


def _with_priority(text: str, level: Any) -> str:
    """Each line is an entry of the journal, and would otherwise be information."""
    return _LINE.sub(f"<{_PRIORITIES[level]}>", text)


def _undated(event: LogEvent) -> str | None:
    """The same line without its time, which the journal has."""
    text = eventAsText(event, includeTimestamp=False)
    return text.replace("\n", "\n\t") + "\n" if text else None


def _text(event: LogEvent) -> str | None:
    """The line that twistd itself would write."""
    return formatEventAsClassicLogText(event, formatTime=lambda when: _stamp(int(when or 0)))


@lru_cache(maxsize=2)
def _stamp(second: int) -> str:
    """Half the time of a line went into its time, which changes once a second."""
    return formatTime(second)


def output(path: str | None, foreground: bool) -> TextIO:
    """The file that twistd's `--logfile` names, or what twistd takes without it.

    As under twistd alone, SIGUSR1 rotates it, and a size of 1 MB does.
    """
    if path == "-" or (path is None and foreground):
        return sys.stdout
    if path is not None and os.path.exists(path) and not os.path.isfile(path):
        # To rotate a device is to rename it: /dev/null would be a file then.
        return open(path, "a", buffering=1)
    file = LogFile.fromFullPath(path or "twistd.log")
    signal.signal(signal.SIGUSR1, lambda *_: file.rotate())
    return file  # type: ignore[no-any-return]


def _object(event: LogEvent) -> str:
    """One flat object a line, as log shippers read it."""
    return json.dumps(_flat(event), ensure_ascii=True) + "\n"


def _flat(event: LogEvent) -> dict[str, Any]:
    level = event.get("log_level", LogLevel.info)
    record: dict[str, Any] = {
        "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(),
        "level": level.name,
        "logger": event.get("log_namespace"),
        "message": formatEvent(event),
    }
    if "log_failure" in event:
        record["traceback"] = event["log_failure"].getTraceback()
    # Events of Twisted's older log API carry fields of their own, which are
    # in the message already.
    if "isError" not in event:
        record |= {
            name: value
            for name, value in event.items()
            if not name.startswith("log_") and isinstance(value, _SCALAR)
        }
    return record
