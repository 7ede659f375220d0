"""Plugin of coverage that saves the data of processes that end by a signal or a limit.

coverage saves its data when the interpreter exits and, with `[run] patch`, in os._exit().
twistd, however, sends itself the signal that stopped it. The template workers may not write
files, and the daemon kills them. Data of a process that a test kills is lost.
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

_WAIT = 1.0  # seconds; an idle template worker saves its data and exits within 0.1 s

_os_kill = os.kill
_popen_kill = subprocess.Popen.kill
_setrlimit = resource.setrlimit
_coverage_save = Coverage.save


def coverage_init(registry: Any, options: dict[str, str]) -> None:
    """Patch the functions that end a process. coverage calls this when it starts."""
    os.kill = _kill
    subprocess.Popen.kill = _end
    resource.setrlimit = _limit
    Coverage.save = _save


def _kill(pid: int, number: int) -> None:
    counted = Coverage.current()
    if pid == os.getpid() and counted and signal.getsignal(number) is signal.SIG_DFL:
        with suppress(Exception):
            counted.save()
    _os_kill(pid, number)


def _end(process: "subprocess.Popen[Any]") -> None:
    if "tftpd.templates.worker" in process.args:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_WAIT)
    _popen_kill(process)


def _limit(what: int, limits: tuple[int, int]) -> None:
    soft, hard = limits
    if what == resource.RLIMIT_FSIZE:  # so that _save() can raise the soft limit
        _, hard = resource.getrlimit(what)
    _setrlimit(what, (soft, hard))


def _save(counted: Coverage) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    _setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    try:
        _coverage_save(counted)
    except CoverageException:
        if os.geteuid() == _USER:
            raise  # a process that has changed its user may not write here
