"""Data plane: moves the blocks of transfers that run as expected.

It exists as a C extension and in Python, with the same interface: see `reference`. The extension
is optional. The environment variable `TFTPD_DATAPLANE=python` forces Python.
"""

import os

from tftpd.dataplane.reference import DataPlane as DataPlane
from tftpd.dataplane.reference import Position as Position

NAME = "python"
"""Which data plane runs: "C" or "python"."""

if os.environ.get("TFTPD_DATAPLANE") != "python":
    try:
        from tftpd.dataplane._native import DataPlane as DataPlane
    except ImportError:  # installed without a compiler
        pass
    else:
        NAME = "C"

MOVES_WINDOWS = NAME == "C"
"""True if the plane moves windows faster than a session does. In Python, the session handles a
window in few calls."""
