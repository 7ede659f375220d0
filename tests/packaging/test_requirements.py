"""Lock files with exact versions and hashes, and the lower bounds of setup.cfg."""

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
        (bound,) = requirement.specifier
        assert bound.operator == ">=", requirement
        assert Version(pins[canonicalize_name(requirement.name)]) == Version(bound.version)
