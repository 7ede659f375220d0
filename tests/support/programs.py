"""Look-up of foreign programs for interoperability tests.

A test is skipped if its program is not installed. It fails instead if the environment variable
TFTPD_INTEROP is `required`.
"""

import os
import shutil

import pytest


def program(name: str) -> str:
    """Return the path of a program, or skip the test."""
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    if path is None and os.environ.get("TFTPD_INTEROP") != "required":
        pytest.skip(f"{name} is not installed")
    assert path, f"{name} is not installed"
    return path
