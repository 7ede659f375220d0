"""Interface to systemd: notifications, the watchdog and inherited sockets.

The protocols are sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3). Nothing happens if
systemd has not started the daemon.
"""

import os
import socket
import time
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

_FIRST_FD = 3  # SD_LISTEN_FDS_START
_STATUS_INTERVAL_SECONDS = 10.0
_STOP_GRACE_SECONDS = 5.0  # systemd waits longer than the daemon before it kills
_MICROSECONDS = 1_000_000


class SystemdNotifier:
    """Sends the daemon's state to systemd.

    While the reactor runs, it notifies the watchdog twice per WatchdogSec, so that systemd
    restarts a daemon that hangs.
    """

    def __init__(self, clock: IReactorTime, status: Callable[[], str]) -> None:
        """Create the notifier.

        systemd's variables are removed from the environment, so that child processes cannot
        notify on behalf of the daemon.

        Args:
            clock: The reactor.
            status: Returns the line that `systemctl status` shows.
        """
        self._clock = clock
        self._status = status
        self._path = os.environ.pop("NOTIFY_SOCKET", "")
        self._watchdog_seconds = _pop_watchdog_seconds()
        self._note = ""
        self._sent_status = ""
        self._calls: list[LoopingCall] = []

    def ready(self, note: str = "") -> None:
        """Report that the daemon serves, also after a reload. The status ends with `note`."""
        self._note = note
        self._sent_status = self._status_line()
        self._send("READY=1", f"STATUS={self._sent_status}")
        if not self._calls and self._path:
            self._repeat(_STATUS_INTERVAL_SECONDS, self._send_status)
            if self._watchdog_seconds is not None:
                self._repeat(self._watchdog_seconds / 2, lambda: self._send("WATCHDOG=1"))

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
        """Stop the timers; idempotent."""
        for call in self._calls:
            call.stop()
        self._calls.clear()

    def _repeat(self, interval: float, function: Callable[[], None]) -> None:
        call = LoopingCall(function)
        call.clock = self._clock
        call.start(interval)
        self._calls.append(call)

    def _send_status(self) -> None:
        line = self._status_line()
        if line != self._sent_status:
            self._sent_status = line
            self._send(f"STATUS={line}")

    def _status_line(self) -> str:
        # A line break would start another assignment.
        return " ".join("; ".join(filter(None, [self._status(), self._note])).split())

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


def _pop_watchdog_seconds() -> float | None:
    """Return the watchdog's timeout in seconds, or None if there is no watchdog."""
    pid, timeout = os.environ.pop("WATCHDOG_PID", ""), os.environ.pop("WATCHDOG_USEC", "")
    if pid not in ("", str(os.getpid())) or not timeout.isdecimal() or not int(timeout):
        return None
    return int(timeout) / _MICROSECONDS
