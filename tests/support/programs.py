"""Requirements of tests: foreign programs, libraries and Linux.

A test is skipped if its program is not installed. It fails instead if the environment variable
TFTPD_INTEROP is `required`.
"""

import importlib.util
import os
import shutil
import sys

import pytest

needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
"""Mark of tests of facilities that other systems lack, such as reads that do not block."""


def program(name: str) -> str:
    """Return the path of a program, or skip the test."""
    # Programs of Python packages are beside the interpreter, also if PATH does not have it.
    beside = os.path.dirname(sys.executable)
    path = shutil.which(name, path=f"{beside}:{os.environ['PATH']}:/usr/sbin")
    if path is None and os.environ.get("TFTPD_INTEROP") != "required":
        pytest.skip(f"{name} is not installed")
    assert path, f"{name} is not installed"
    return path


def library(name: str) -> None:
    """Skip the tests of a module if an optional library is not installed."""
    if importlib.util.find_spec(name) is None:
        reason = f"{name} is not installed"
        assert os.environ.get("TFTPD_INTEROP") != "required", reason
        pytest.skip(reason, allow_module_level=True)
