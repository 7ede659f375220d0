"""Faults of system calls for one daemon, by a preloaded library.

The kernels of test machines do not inject faults, and tests must not set the clock of the machine.
"""

import mmap
import os
import struct
import subprocess
from pathlib import Path

from tests.support.programs import program

_SOURCE = Path(__file__).with_name("fault_injection.c")
_NUMBER = struct.Struct("=q")
_FAULTS = ("clock", "read", "write", "sync", "log")  # in the order of the enum in the source


class FaultInjector:
    """Faults of the daemon that runs with the variables of `environment`."""

    def __init__(self, directory: Path) -> None:
        library, numbers = directory / "fault_injection.so", directory / "faults"
        compiler = (program("gcc"), "-shared", "-fPIC", "-O1", "-Wall", "-Werror")
        subprocess.run((*compiler, "-o", library, _SOURCE, "-ldl"), check=True, timeout=60)
        numbers.write_bytes(bytes(_NUMBER.size * len(_FAULTS)))
        with numbers.open("r+b") as file:
            self._numbers = mmap.mmap(file.fileno(), 0)
        self.environment = {"LD_PRELOAD": os.fspath(library), "FAULTS": os.fspath(numbers)}

    def set(self, **faults: int) -> None:
        """Set faults from now on; 0 ends a fault.

        Args:
            faults: `clock` is added to the wall clock, in seconds. `read`, `write` and `sync`
                are the errno of reads, writes and fsync of files, `log` of writes to
                standard output.
        """
        for name, number in faults.items():
            _NUMBER.pack_into(self._numbers, _NUMBER.size * _FAULTS.index(name), number)
