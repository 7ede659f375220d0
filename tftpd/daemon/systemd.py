"""systemd's side of the daemon: what it hears from us, and sockets that it has bound.

The protocols are those of sd_notify(3), sd_watchdog_enabled(3) and
sd_listen_fds(3). Started by anything else, nothing here does anything.
"""

import os
import socket
import time
from collections.abc import Callable, MutableMapping

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

_FIRST_FD = 3  # SD_LISTEN_FDS_START
_STATUS_EVERY = 10.0  # seconds
_MICROSECONDS = 1_000_000

# What systemd may take longer than we do, in seconds, before it kills.
_GRACE = 5.0


class SystemdNotifier:
    """Tells systemd how the daemon is; `status` gives the line in `systemctl status`.

    While the reactor turns it says so twice in each WatchdogSec, so that a
    daemon that hangs is started anew.
    """

    def __init__(
        self,
        clock: IReactorTime,
        status: Callable[[], str],
        environment: MutableMapping[str, str] = os.environ,
    ) -> None:
        self._clock = clock
        self._status = status
        # Taken away, so that no process of ours speaks for us.
        self._path = environment.pop("NOTIFY_SOCKET", "")
        self._patience = _watchdog(environment)
        self._note = ""
        self._told = ""
        self._calls: list[LoopingCall] = []

    def ready(self, note: str = "") -> None:
        """It serves, or serves again after a reload; the status ends with `note`."""
        self._note = note
        self._told = self._line()
        self._say("READY=1", f"STATUS={self._told}")
        if not self._calls and self._path:
            self._repeat(_STATUS_EVERY, self._tell_status)
            if self._patience is not None:
                self._repeat(self._patience / 2, lambda: self._say("WATCHDOG=1"))

    def reloading(self) -> None:
        """It reads its configuration again; `ready` must follow, whatever comes of it."""
        # The time of the monotonic clock tells one reload from the next.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._say("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reading the configuration")

    def stopping(self, within: float = 0.0) -> None:
        """It ends what is running, which may take `within` seconds, and goes."""
        lines = ["STOPPING=1", "STATUS=stopping"]
        if within:
            lines.append(f"EXTEND_TIMEOUT_USEC={round((within + _GRACE) * _MICROSECONDS)}")
        self._say(*lines)

    def close(self) -> None:
        """Say nothing more; idempotent."""
        for call in self._calls:
            call.stop()
        self._calls.clear()

    def _repeat(self, interval: float, function: Callable[[], None]) -> None:
        call = LoopingCall(function)
        call.clock = self._clock
        call.start(interval)
        self._calls.append(call)

    def _tell_status(self) -> None:
        line = self._line()
        if line != self._told:
            self._told = line
            self._say(f"STATUS={line}")

    def _line(self) -> str:
        # A line break would begin another statement.
        return " ".join("; ".join(filter(None, [self._status(), self._note])).split())

    def _say(self, *lines: str) -> None:
        if self._path[:1] not in ("/", "@"):
            return
        address = "\0" + self._path[1:] if self._path[0] == "@" else self._path
        message = "\n".join(lines).encode("utf-8", "surrogateescape")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(message, address)
        except OSError:
            return  # a daemon serves on, whoever listens to what it says


def inherited(environment: MutableMapping[str, str] = os.environ) -> list[int]:
    """The descriptors that systemd has opened for us, which children do not get."""
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    descriptors = list(range(_FIRST_FD, _FIRST_FD + int(count)))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return descriptors


def _watchdog(environment: MutableMapping[str, str]) -> float | None:
    """How long systemd waits for a sign of life, in seconds; None: it does not wait."""
    pid, wait = environment.pop("WATCHDOG_PID", ""), environment.pop("WATCHDOG_USEC", "")
    if pid not in ("", str(os.getpid())) or not wait.isdecimal() or not int(wait):
        return None
    return int(wait) / _MICROSECONDS
