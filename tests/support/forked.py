"""Daemons that start in a twentieth of the time: forked from a process that has imported tftpd.

A new interpreter needs 0.5 s of a processor until twistd runs; the tests start hundreds.
"""

import atexit
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import signal
import subprocess
import sys
from functools import cache, partialmethod
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest import mock

CHECKOUT = Path(__file__).resolve().parents[2]

_PRELOADED = [
    "twisted.scripts._twistd_unix",
    "twisted.internet.epollreactor",
    "tftpd.daemon.service",
    "tftpd.status.service",
    "tests.support.forked",
]


class ForkedTwistd:
    """A twistd with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, arguments: list[str], cwd: Path, environment: dict[str, str], log: Path):
        """Run `twistd -n ARGUMENTS` in `cwd`; standard output and error go to `log`."""
        self._process = _server().Process(
            target=_run_twistd, args=(arguments, cwd, environment, log), daemon=True
        )
        self._process.start()
        self.pid = self._process.pid or 0
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._process.exitcode
            if self.returncode is not None:
                self._process.close()  # or its descriptors stay until garbage is collected
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit status."""
        if self.returncode is None:
            self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("twistd", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    terminate = partialmethod(send_signal, signal.SIGTERM)
    kill = partialmethod(send_signal, signal.SIGKILL)


@cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with mock.patch.dict(os.environ, PYTHONPATH=str(CHECKOUT)):
        multiprocessing.forkserver.ensure_running()
    # Waits for its end, with what coverage has still to write.
    atexit.register(multiprocessing.forkserver._forkserver._stop)  # type: ignore[attr-defined]
    return context


def _run_twistd(arguments: list[str], cwd: Path, environment: dict[str, str], log: Path) -> None:
    output = os.open(log, os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    # As a new interpreter does with PYTHONPATH.
    sys.path[:0] = paths = environment["PYTHONPATH"].split(os.pathsep)
    for customize in (Path(path, "sitecustomize.py") for path in paths):
        if customize.exists():
            runpy.run_path(str(customize))
    sys.argv = ["twistd", "-n", "--pidfile=", *arguments]
    from twisted.scripts.twistd import run

    run()
