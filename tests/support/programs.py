"""Programs of other people, with which ours is tried.

One that the machine lacks is skipped by name, unless TFTPD_INTEROP is
`required`: then its test fails.
"""

import os
import shutil

import pytest


def program(name: str) -> str:
    """The path of a program."""
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    if path is None and os.environ.get("TFTPD_INTEROP") != "required":
        pytest.skip(f"{name} is not installed")
    assert path, f"{name} is not installed"
    return path
