"""Programs that get an event on standard input."""

import os
import selectors
import signal
import subprocess
import threading
import time
from contextlib import suppress
from tempfile import TemporaryFile
from typing import IO, Any

from tftpd.config.events import EventSection
from tftpd.events.hooks import Attempt, Hook, encode_event

_MAX_OUTPUT_BYTES = 4096  # for the log; the rest is read and discarded
_TERM_SECONDS = 2.0  # between SIGTERM and SIGKILL
_POLL_SECONDS = 0.1  # a child of the program may keep its output open
_TRY_AGAIN = 75  # EX_TEMPFAIL of <sysexits.h>

# Of the daemon alone: its imports, and the notification of systemd.
_PRIVATE_VARIABLES = ("PYTHONPATH", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")

_VARIABLES = {
    "TFTPD_EVENT": "event",
    "TFTPD_ID": "id",
    "TFTPD_NODE": "node",
    "TFTPD_CLIENT": "client",
    "TFTPD_FILE": "file",
    "TFTPD_PATH": "path",
    "TFTPD_OUTCOME": "outcome",
}
"""Fields of the event in the environment of the program."""


class ProgramHook(Hook):
    """A program that runs once for each event, in a process group of its own."""

    def __init__(self, section: EventSection) -> None:
        assert section.exec is not None
        self._command = section.exec
        self._timeout = section.timeout
        self._is_stopping = threading.Event()

    def stop(self) -> None:
        """End the programs that run now."""
        self._is_stopping.set()

    def deliver(self, event: dict[str, Any]) -> Attempt:
        """Run the program; see `Hook.deliver`."""
        try:
            with _open_temporary() as file:
                file.write(encode_event(event))
                file.seek(0)
                process = subprocess.Popen(
                    self._command,
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=_environment(event),
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            return Attempt(f"the program cannot start: {reason}", again=True)
        with process:
            output, problem = self._await_end(process)
            # What it has left in its process group ends with it.
            _signal_group(process, signal.SIGKILL)
            process.wait()
        text = output.decode("utf-8", "backslashreplace").strip()
        again = self._is_stopping.is_set() or process.returncode == _TRY_AGAIN
        if not problem and process.returncode > 0:
            problem = f"exit status {process.returncode}"
        elif not problem and process.returncode < 0:
            problem = f"ended by signal {-process.returncode}"
        return Attempt(problem, again and bool(problem), text)

    def _await_end(self, process: "subprocess.Popen[bytes]") -> tuple[bytes, str]:
        """Read the output until the program ends; return it, and a problem if its time is over."""
        assert process.stdout is not None
        output = bytearray()
        deadline = time.monotonic() + self._timeout
        problem = ""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while process.poll() is None:
                is_over = time.monotonic() >= deadline
                if problem and is_over:
                    return bytes(output), problem
                if not problem and (is_over or self._is_stopping.is_set()):
                    text = f"not finished within {self._timeout:g} s"
                    problem = text if is_over else "the daemon stopped"
                    _signal_group(process, signal.SIGTERM)
                    deadline = time.monotonic() + _TERM_SECONDS
                _read_output(process, selector, output)
            _read_output(process, selector, output, seconds=0)
        return bytes(output), problem


def _open_temporary() -> IO[bytes]:
    """Open a file without a name: in memory on Linux, else in a directory such as /tmp."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("tftpd-event"), "w+b", buffering=0)
    return TemporaryFile(buffering=0)


def _read_output(
    process: "subprocess.Popen[bytes]",
    selector: selectors.BaseSelector,
    output: bytearray,
    seconds: float = _POLL_SECONDS,
) -> None:
    """Read a part of the output, or wait for a moment."""
    assert process.stdout is not None
    if not selector.get_map():
        time.sleep(seconds)
    elif selector.select(seconds):
        data = os.read(process.stdout.fileno(), 65_536)
        output += data[: _MAX_OUTPUT_BYTES - len(output)]
        if not data:
            selector.unregister(process.stdout)


def _signal_group(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _environment(event: dict[str, Any]) -> dict[str, str]:
    """Return the environment of the daemon, and the most important fields of the event."""
    inherited = {key: value for key, value in os.environ.items() if key not in _PRIVATE_VARIABLES}
    values = {name: event.get(field) for name, field in _VARIABLES.items()}
    return inherited | {name: str(value) for name, value in values.items() if value is not None}
