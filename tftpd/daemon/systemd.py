"""Interface to systemd: notifications, the watchdog and inherited sockets.

The protocols are sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3). Nothing happens if
systemd has not started the daemon.
"""

import os
import socket
import time
from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

_FIRST_FD = 3  # SD_LISTEN_FDS_START
_STATUS_INTERVAL_SECONDS = 10.0
_STOP_GRACE_SECONDS = 5.0  # systemd waits longer than the daemon before it kills
_MICROSECONDS = 1_000_000


class SystemdNotifier:
    """Sends the daemon's state to systemd.

    While the reactor runs, the notifier sends the status and notifies the watchdog. It does so
    every 10 s, and at least twice per WatchdogSec. systemd restarts a daemon that hangs.
    """

    def __init__(self, clock: IReactorTime, status: Callable[[], str]) -> None:
        """Create the notifier.

        systemd's variables are removed from the environment, so that child processes cannot
        notify on behalf of the daemon.

        Args:
            clock: The reactor.
            status: Returns the line that `systemctl status` shows.
        """
        self._status = status
        self._note = ""
        self._path = os.environ.pop("NOTIFY_SOCKET", "")
        watchdog_seconds = _pop_watchdog_seconds()
        self._interval = min(_STATUS_INTERVAL_SECONDS, watchdog_seconds / 2)
        self._watchdog = ["WATCHDOG=1"] if watchdog_seconds < inf else []
        self._timer = LoopingCall(lambda: self._send(*self._watchdog, self._status_line()))
        self._timer.clock = clock

    def ready(self, note: str = "") -> None:
        """Report that the daemon serves, also after a reload. The status ends with `note`."""
        self._note = note
        self._send("READY=1", self._status_line())
        if self._path and not self._timer.running:
            self._timer.start(self._interval, now=False)

    def reloading(self) -> None:
        """Report the start of a reload. `ready` must follow, even if the reload fails."""
        # The monotonic time identifies the reload.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reading the configuration")

    def stopping(self, within: float = 0.0) -> None:
        """Report that the daemon stops, which may take `within` seconds."""
        lines = ["STOPPING=1", "STATUS=stopping"]
        if within:
            timeout = round((within + _STOP_GRACE_SECONDS) * _MICROSECONDS)
            lines.append(f"EXTEND_TIMEOUT_USEC={timeout}")
        self._send(*lines)

    def close(self) -> None:
        """Stop the timer; idempotent."""
        if self._timer.running:
            self._timer.stop()

    def _status_line(self) -> str:
        text = "; ".join(filter(None, [self._status(), self._note]))
        return f"STATUS={' '.join(text.split())}"  # a line break would start another assignment

    def _send(self, *lines: str) -> None:
        if self._path[:1] not in ("/", "@"):
            return
        address = "\0" + self._path[1:] if self._path[0] == "@" else self._path
        message = "\n".join(lines).encode("utf-8", "surrogateescape")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(message, address)
        except OSError:
            return  # the daemon serves even if systemd does not listen


def inherited() -> list[int]:
    """Return the descriptors of the sockets that systemd has opened for this process.

    Child processes do not inherit them, and the variables are removed from the environment.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    descriptors = list(range(_FIRST_FD, _FIRST_FD + int(count)))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return descriptors


def _pop_watchdog_seconds() -> float:
    """Return the watchdog's timeout in seconds; infinity if there is no watchdog."""
    pid, timeout = os.environ.pop("WATCHDOG_PID", ""), os.environ.pop("WATCHDOG_USEC", "")
    if pid not in ("", str(os.getpid())) or not timeout.isdecimal() or not int(timeout):
        return inf
    return int(timeout) / _MICROSECONDS
