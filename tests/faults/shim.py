"""A machine that has faults on demand, for one daemon alone.

The kernels at hand inject none, and no clock that others go by may be set.
"""

import mmap
import os
import struct
import subprocess
from pathlib import Path

from tests.support.programs import program

_SOURCE = Path(__file__).with_name("shim.c")
_NUMBER = struct.Struct("=q")
_PLACES = ("clock", "read", "write", "sync", "log")


class Machine:
    """Faults of the daemon that runs with `environment`. Attributes can be set at any time.

    `clock` is by how many seconds its wall clock is ahead; the others are the
    errno by which reads, writes and syncs of files fail, and writes to the log.
    """

    def __init__(self, directory: Path) -> None:
        shim, numbers = directory / "shim.so", directory / "faults"
        compiler = (program("gcc"), "-shared", "-fPIC", "-O1", "-Wall", "-Werror")
        subprocess.run((*compiler, "-o", shim, _SOURCE, "-ldl"), check=True, timeout=60)
        numbers.write_bytes(bytes(_NUMBER.size * len(_PLACES)))
        with numbers.open("r+b") as file:
            self._numbers = mmap.mmap(file.fileno(), 0)
        self.environment = {"LD_PRELOAD": os.fspath(shim), "FAULTS": os.fspath(numbers)}

    def set(self, **faults: int) -> None:
        """Have these, from now on; 0 mends one."""
        for name, number in faults.items():
            _NUMBER.pack_into(self._numbers, _NUMBER.size * _PLACES.index(name), number)
