"""Data plane: moves the blocks of transfers that run as expected.

It exists as a C extension and in Python, with the same interface: see `reference`. The extension
is optional. The environment variable TFTPD_DATAPLANE selects one: `python`, or `C`, which is an
error without the extension.
"""

import os

from tftpd.dataplane.reference import DataPlane as DataPlane
from tftpd.dataplane.reference import Event as Event
from tftpd.dataplane.reference import Position as Position

NAME = "python"
"""Which data plane runs: "C" or "python"."""

PROBLEM = ""
"""The reason why the selected data plane cannot run. The programs then refuse to start."""

_selected = os.environ.get("TFTPD_DATAPLANE", "")
if _selected != "python":
    try:
        # The number is the version of the interface: an older build is not used.
        from tftpd.dataplane._native import DataPlane2 as DataPlane  # noqa: F401
    except ImportError as error:  # installed without a compiler
        if _selected == "C":
            PROBLEM = f"TFTPD_DATAPLANE=C: the extension cannot be loaded: {error}"
    else:
        NAME = "C"
if _selected not in ("", "C", "python"):
    PROBLEM = f'TFTPD_DATAPLANE: expected "C" or "python", got "{_selected}"'

MOVES_WINDOWS = NAME == "C"
"""True if the plane moves windows faster than a session does. In Python, the session handles a
window in few calls."""
