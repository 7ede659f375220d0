"""A plugin of coverage's: what it has counted is kept, however a process ends.

coverage saves when the interpreter ends, and by `[run] patch` at `os._exit`. But twistd
ends by the signal that stopped it, and processes that render may write no file and are
killed once the daemon has let go of them. What a test kills itself has counted in vain.
"""

import os
import resource
import signal
import subprocess
from contextlib import suppress
from typing import Any

from coverage import Coverage
from coverage.exceptions import CoverageException

_USER = os.geteuid()  # whose the process is at its start

_WAIT = 1.0  # seconds; what waits for a job has saved and is gone in a tenth of it

_os_kill = os.kill
_popen_kill = subprocess.Popen.kill
_setrlimit = resource.setrlimit
_coverage_save = Coverage.save


def coverage_init(registry: Any, options: dict[str, str]) -> None:
    """coverage: it is about to count in this process."""
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
    if what == resource.RLIMIT_FSIZE:  # for `_save` to lift
        _, hard = resource.getrlimit(what)
    _setrlimit(what, (soft, hard))


def _save(counted: Coverage) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    _setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    try:
        _coverage_save(counted)
    except CoverageException:
        if os.geteuid() == _USER:
            raise  # another one may not write here
