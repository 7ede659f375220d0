"""Where log events go and in which form, as the configuration says."""

import json
import os
import signal
import sys
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

_SCALAR = (str, int, float, bool, type(None))


def observer(level: str, form: str, out: TextIO) -> ILogObserver:
    """An observer that writes events of at least `level` to `out`.

    `level` is debug, info, warn, error or critical; `form` is text or json.
    """
    predicate = LogLevelFilterPredicate(LogLevel.lookupByName(level))
    write = _JSONLines(out) if form == "json" else FileLogObserver(out, _text)
    return FilteringLogObserver(write, [predicate])


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


@implementer(ILogObserver)
class _JSONLines:
    """One flat object a line, as log shippers read it."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __call__(self, event: LogEvent) -> None:
        self._out.write(json.dumps(_flat(event), ensure_ascii=True) + "\n")
        self._out.flush()


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
