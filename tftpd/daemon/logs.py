"""Log output: the destination of log events and their format."""

import errno
import io
import json
import os
import re
import select
import stat
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from time import monotonic
from typing import Any, TextIO, cast

from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    eventAsText,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.threadable import isInIOThread
from zope.interface import implementer

_MAX_WAIT_MS = 100  # for the reader of a pipe
_PAUSE_FACTOR = 4.0  # after waiting t seconds, do not wait again for 4 t seconds

# Priorities of syslog, which systemd reads from the start of a line (sd-daemon(3)).
_PRIORITIES = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}

_LINE = re.compile("^(?=.)", re.MULTILINE)
_SCALAR = (str, int, float, bool, type(None))


def observer(level: str, form: str, out: TextIO, reactor: Any = None) -> ILogObserver:
    """Return an observer that writes log events to `out`.

    If `out` is the journal, each line gets a priority. A pipe or socket whose reader is stalled
    loses lines; it never blocks the daemon for long.

    Args:
        level: The lowest level that is written: debug, info, warn, error or critical.
        form: `text`, or `json` for one object per line.
        out: The destination.
        reactor: The lines of one turn of this reactor are written together; None: each line is
            written at once.
    """
    lowest = LogLevel.lookupByName(level)
    has_priority = is_journal(out)
    format_text = _format_without_time if has_priority else _format_text
    format_event = _format_json if form == "json" else format_text

    def to_text(event: LogEvent) -> str | None:
        if level != "debug" and _is_twisted_info(event):
            return None
        text = format_event(event)
        if text and has_priority:
            return _prefix_priority(text, event.get("log_level", LogLevel.info))
        return text

    return BatchingObserver(nonblocking(out), to_text, lowest, reactor)


def _is_twisted_info(event: LogEvent) -> bool:
    """Return True for information of Twisted itself, such as the start of its main loop."""
    is_twisted = event.get("log_namespace", "").startswith(("twisted.", "log_legacy"))
    return is_twisted and event.get("log_level") is LogLevel.info


@implementer(ILogObserver)
class BatchingObserver:
    """Observer that writes the lines of one turn of the reactor together.

    It continues after a write error, and logs how many lines were lost.
    """

    def __init__(
        self, out: TextIO, to_text: Callable[[LogEvent], str | None], lowest: Any, reactor: Any
    ) -> None:
        self._out = out
        self._to_text = to_text
        self._lowest = lowest  # but lines that were lost are always reported
        self._reactor = reactor
        self._lock = threading.RLock()  # threads log, too, and signal handlers inside `flush`
        self._lines: list[str] = []
        self._is_scheduled = False
        self._lost = 0
        self._reason = ""
        if reactor is not None:
            reactor.addSystemEventTrigger("after", "shutdown", self.flush)

    def __call__(self, event: LogEvent) -> None:
        """Twisted: log an event."""
        level = event.get("log_level")
        text = None if level is None or level < self._lowest else self._to_text(event)
        if not text:
            return
        self._lines.append(text)
        if self._is_scheduled:
            return
        if self._reactor is None or not (self._reactor.running and isInIOThread()):
            self.flush()
        else:
            self._is_scheduled = True
            self._reactor.callLater(0, self.flush)

    def flush(self) -> None:
        """Write the lines that wait, after the number of lines that were lost before."""
        self._is_scheduled = False
        with self._lock:
            lines, self._lines = self._lines, []
            if self._lost:
                self._report_lost()
            if lines and not isinstance(self._out, _PipeWriter):
                lines = ["".join(lines)]  # but a stalled pipe loses single lines
            for text in lines:
                if not self._write(text):
                    self._lost += text.count("\n")

    def _write(self, text: str) -> bool:
        try:
            self._out.write(text)
            self._out.flush()
        except OSError as error:
            self._reason = error.strerror or str(error)
            return False
        return True

    def _report_lost(self) -> None:
        events: list[LogEvent] = []
        log = Logger("tftpd.daemon.logs", observer=cast(ILogObserver, events.append))
        message = "{lost} log lines were lost: {reason}"
        log.warn(message, event="log_lines_lost", lost=self._lost, reason=self._reason)
        if self._write(self._to_text(events[0]) or ""):
            self._lost = 0


class DaemonLogFile(io.TextIOBase):
    """Log file that programs such as logrotate may move, remove or truncate at any time.

    Each write checks that the file still has its name, and else opens a new file with this name.
    If that fails, for example because root was dropped, the old file stays open.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._file = self._open()
        self._is_stale = False

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        return self._file.fileno()

    def write(self, text: str) -> int:
        """Write text to the file that has the name now."""
        try:
            has_moved = not os.path.samestat(os.stat(self._path), os.fstat(self.fileno()))
        except OSError:
            has_moved = True
        if has_moved:
            self._reopen()
        return self._file.write(text)

    def close(self) -> None:
        """Close the file; idempotent."""
        self._file.close()

    def _open(self) -> TextIO:
        # Append mode: after a truncation the next line is at the start of the file.
        # Line buffering: each write ends a line.
        # Another program may have put a FIFO there: without a reader, open(2) would wait.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        return open(os.open(self._path, flags, 0o666), "a", 1, "utf-8", "backslashreplace")

    def _reopen(self) -> None:
        try:
            file = self._open()
        except OSError as error:
            if not self._is_stale:
                self._is_stale = True
                fields = {"path": self._path, "reason": error.strerror}
                message = 'log file "{path}" cannot be reopened: {reason}'
                Logger().warn(message, event="log_reopen_failed", **fields)
        else:
            self._is_stale = False
            self._file.close()
            self._file = file


def open_log(path: str | None, foreground: bool) -> TextIO:
    """Open the log that twistd's options select.

    Args:
        path: The value of `--logfile`; `-` is standard output. The default is standard output
            in the foreground, else twistd.log.
        foreground: True with `--nodaemon`.

    Raises:
        OSError: The file cannot be opened.
    """
    if path == "-" or (path is None and foreground):
        return sys.stdout
    if path is not None and os.path.exists(path) and not os.path.isfile(path):
        return open(path, "a", buffering=1)
    return DaemonLogFile(path or "twistd.log")  # type: ignore[return-value]


def is_journal(out: TextIO) -> bool:
    """Return whether `out` is connected to the journal (JOURNAL_STREAM in systemd.exec(5))."""
    status, stream = _stat(out), os.environ.get("JOURNAL_STREAM")
    return status is not None and stream == f"{status.st_dev}:{status.st_ino}"


def print_startup_error(text: str) -> None:
    """Print the reason why the daemon cannot start on standard error."""
    if is_journal(sys.stderr):
        text = _prefix_priority(text, LogLevel.error)
    print(text, file=sys.stderr)


def nonblocking(out: TextIO) -> TextIO:
    """Return a file that writes to `out` without waiting long for a slow reader.

    Only pipes and sockets have readers; any other file is returned unchanged. Text that does
    not fit is lost and `write` raises OSError: a daemon that waited would serve no client.
    """
    status = _stat(out)
    if status is not None and (stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)):
        return _PipeWriter(out)  # type: ignore[return-value]
    return out


class _PipeWriter(io.TextIOBase):
    """Polls before each write. O_NONBLOCK would affect all processes that share the pipe."""

    def __init__(self, out: TextIO) -> None:
        self._out = out  # keeps the descriptor open
        self._encoding = out.encoding
        self._poll = select.poll()
        self._poll.register(out.fileno(), select.POLLOUT)
        self._is_mid_line = False
        self._is_stalled = False  # the reader
        self._next_wait = 0.0

    def write(self, text: str) -> int:
        # The rest of a truncated line is lost. It must not corrupt the next line.
        data = ("\n" * self._is_mid_line + text).encode(self._encoding, "backslashreplace")
        for start in range(0, len(data), select.PIPE_BUF):
            if not self._is_writable():
                raise BlockingIOError(errno.EAGAIN, "its reader is stalled")
            # A writable pipe accepts PIPE_BUF bytes.
            chunk = data[start : start + select.PIPE_BUF]
            os.write(self._out.fileno(), chunk)
            self._is_mid_line = not chunk.endswith(b"\n")
        return len(text)

    def _is_writable(self) -> bool:
        """Poll, and wait for a slow reader for at most 20 % of the time."""
        if self._poll.poll(0):
            self._is_stalled = False
            return True
        start = monotonic()
        if self._is_stalled or start < self._next_wait:
            return False
        self._is_stalled = not self._poll.poll(_MAX_WAIT_MS)
        end = monotonic()
        self._next_wait = end + _PAUSE_FACTOR * (end - start)
        return not self._is_stalled


def _stat(out: TextIO) -> os.stat_result | None:
    try:
        return os.fstat(out.fileno())
    except (AttributeError, OSError, ValueError):
        return None  # it has no descriptor


def _prefix_priority(text: str, level: Any) -> str:
    """Prefix each line: the journal stores a line as an entry, by default as information."""
    return _LINE.sub(f"<{_PRIORITIES[level]}>", text)


def _format_without_time(event: LogEvent) -> str | None:
    """Format for the journal, which stores the time itself."""
    text = eventAsText(event, includeTimestamp=False)
    return text.replace("\n", "\n\t") + "\n" if text else None


def _format_text(event: LogEvent) -> str | None:
    """Format as twistd does; a line of the access log in a tenth of its time."""
    if event.get("event") == "transfer":
        second = _format_second(int(event["log_time"]))
        return f"{second} [{event['log_namespace']}#{event['log_level'].name}] {event['message']}\n"
    return formatEventAsClassicLogText(
        event, formatTime=lambda when: _format_second(int(when or 0))
    )


# Format a time once per second; it took half of the time of a line.
_format_second = lru_cache(maxsize=2)(formatTime)


def _format_json(event: LogEvent) -> str:
    """Format as one flat object per line, for log shippers."""
    record: dict[str, Any] = {
        "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(),
        "level": event.get("log_level", LogLevel.info).name,
        "logger": event.get("log_namespace"),
        "message": formatEvent(event),
    }
    if "log_failure" in event:
        record["traceback"] = event["log_failure"].getTraceback()
    # Events of Twisted's legacy log API have internal fields; their message is complete.
    if "isError" not in event:
        record |= {
            name: value
            for name, value in event.items()
            if not name.startswith("log_") and isinstance(value, _SCALAR)
        }
    return json.dumps(record, ensure_ascii=True) + "\n"
