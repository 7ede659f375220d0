"""A directory of this process, in memory where the system has such a place."""

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

_MEMORY = "/dev/shm"


@cache
def place() -> Path:
    """The directory. It goes with the process."""
    memory = _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else None
    made = Path(tempfile.mkdtemp(prefix="tftpd-fuzz-", dir=os.environ.get("TMPDIR") or memory))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
