"""A coverage plugin that saves the data of processes that end by a signal.

coverage saves its data when the interpreter exits, and at `os._exit` with `[run] patch`. But
twistd kills itself with the signal that stopped it. Template processes may not write files and
are killed when the daemon no longer needs them. Data of processes that a test kills is lost.
"""

import os
import resource
import signal
import subprocess
from contextlib import suppress
from typing import Any

from coverage import Coverage
from coverage.exceptions import CoverageException

_USER = os.geteuid()  # at the start of the process

_WAIT_SECONDS = 1.0  # an idle template process saves and exits within 0.1 s

_os_kill = os.kill
_popen_kill = subprocess.Popen.kill
_setrlimit = resource.setrlimit
_coverage_save = Coverage.save


def coverage_init(registry: Any, options: dict[str, str]) -> None:
    """coverage: measurement starts in this process."""
    os.kill = _kill
    subprocess.Popen.kill = _wait_and_kill
    resource.setrlimit = _limit
    Coverage.save = _save


def _kill(pid: int, number: int) -> None:
    coverage = Coverage.current()
    if pid == os.getpid() and coverage and signal.getsignal(number) is signal.SIG_DFL:
        with suppress(Exception):
            coverage.save()
    _os_kill(pid, number)


def _wait_and_kill(process: "subprocess.Popen[Any]") -> None:
    if "tftpd.templates.worker" in process.args:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_WAIT_SECONDS)
    _popen_kill(process)


def _limit(what: int, limits: tuple[int, int]) -> None:
    soft, hard = limits
    if what == resource.RLIMIT_FSIZE:  # `_save` lifts the limit
        _, hard = resource.getrlimit(what)
    _setrlimit(what, (soft, hard))


def _save(coverage: Coverage) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    _setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    try:
        _coverage_save(coverage)
    except CoverageException:
        if os.geteuid() == _USER:
            raise  # another user may not write here
