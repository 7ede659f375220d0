"""Lock files with exact versions and hashes, and the lower bounds of setup.cfg."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from requirements.bounds import required
from tests.support.daemons import CHECKOUT

_PIN = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?P<hashes>( --hash=sha256:[0-9a-f]{64})+)$"
)


def _pins(path: Path) -> dict[str, str]:
    """Return the versions of a lock file; fail if a line is not a version with hashes."""
    text = path.read_text().replace("\\\n", "")
    lines = [
        " ".join(line.split()) for line in text.splitlines() if not line.lstrip().startswith("#")
    ]
    pins = [_PIN.match(line) for line in lines if line]
    assert None not in pins, lines
    return {pin["name"]: pin["version"] for pin in pins if pin}


def _requirements(*extras: str) -> list[Requirement]:
    return [Requirement(line) for line in required(*extras).values()]


@pytest.mark.parametrize("name", ["ci.txt", "oldest.txt"])
def test_a_lock_has_versions_with_hashes_and_names_no_host(name):
    path = CHECKOUT / "requirements" / name
    assert _pins(path)
    assert "/" not in re.sub("^#.*", "", path.read_text(), flags=re.MULTILINE)


def test_ci_txt_has_an_allowed_version_of_each_requirement():
    pins = _pins(CHECKOUT / "requirements/ci.txt")
    extras = ("test", "lint", "docs", "dist", "origins", "engines", "kubernetes")
    for requirement in _requirements(*extras):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_oldest_txt_has_the_lowest_allowed_version_of_each_requirement():
    pins = _pins(CHECKOUT / "requirements/oldest.txt")
    for requirement in _requirements("test", "origins"):
        (bound,) = (each for each in requirement.specifier if each.operator == ">=")
        assert Version(pins[canonicalize_name(requirement.name)]) == Version(bound.version)


@pytest.mark.check
def test_pytest_xdist_runs_the_tests_of_a_group_in_one_process(tmp_path):
    """It does so by the names of tests, which pytest 9.2 does not let it change."""
    file = tmp_path / "test_group.py"
    file.write_text(
        "import os, pytest\n"
        "@pytest.mark.xdist_group('one')\n"
        "@pytest.mark.parametrize('n', range(4))\n"
        "def test(n): open(f'{os.environ[\"OUT\"]}/{n}.pid', 'w').write(str(os.getpid()))\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", str(file)]
    environment = dict(os.environ, OUT=str(tmp_path))
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    pids = {path.read_text() for path in tmp_path.glob("*.pid")}
    assert len(pids) == 1


@pytest.mark.check
def test_a_failed_test_of_a_group_runs_again(tmp_path):
    """As in `make check`: beside others first, and then alone."""
    shutil.copy(CHECKOUT / "tests/conftest.py", tmp_path)
    file = tmp_path / "test_group.py"
    file.write_text(
        "import os, pytest\n"
        "@pytest.mark.xdist_group('one')\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test(n): assert n == 1 or 'AGAIN' in os.environ\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", f"--rootdir={tmp_path}", str(file)]
    environment = dict(os.environ, PYTHONPATH=str(CHECKOUT))
    run = partial(subprocess.run, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert run([*command, "-n", "2", "--dist", "loadgroup"], env=environment).returncode == 1
    again = [*command, "--last-failed", "--last-failed-no-failures", "none"]
    done = run(again, env=environment | {"AGAIN": ""})
    assert (done.returncode, "1 passed" in done.stdout) == (0, True)
