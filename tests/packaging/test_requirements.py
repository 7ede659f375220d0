"""The lock files of CI, with exact versions and hashes, and the bounds of setup.cfg."""

import re
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
    """The versions of a lock file; fails on a line that is not a version with its hashes."""
    text = path.read_text().replace("\\\n", "")
    lines = [
        " ".join(line.split()) for line in text.splitlines() if not line.lstrip().startswith("#")
    ]
    pins = [_PIN.match(line) for line in lines if line]
    assert None not in pins, lines
    return {pin["name"]: pin["version"] for pin in pins if pin}


def _asked(*extras: str) -> list[Requirement]:
    return [Requirement(line) for line in required(*extras).values()]


@pytest.mark.parametrize("name", ["ci.txt", "oldest.txt"])
def test_a_lock_has_versions_with_hashes_and_names_no_host(name):
    path = CHECKOUT / "requirements" / name
    assert _pins(path)
    assert "/" not in re.sub("^#.*", "", path.read_text(), flags=re.MULTILINE)


def test_ci_has_all_that_is_asked_for_at_versions_that_are_admitted():
    pins = _pins(CHECKOUT / "requirements/ci.txt")
    for asked in _asked("test", "lint", "docs"):
        assert pins[canonicalize_name(asked.name)] in asked.specifier, asked


def test_the_oldest_are_the_lowest_that_are_admitted():
    pins = _pins(CHECKOUT / "requirements/oldest.txt")
    for asked in _asked("test"):
        (bound,) = asked.specifier
        assert bound.operator == ">=", asked
        assert Version(pins[canonicalize_name(asked.name)]) == Version(bound.version)


def test_a_client_needs_no_other_tqdm_than_the_tests():
    assert required("client").items() <= required("test").items()
