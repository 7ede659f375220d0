"""The committed files in `share/` and the site: what `make docs` writes."""

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

from tests.support.daemons import CHECKOUT

LIMIT = 300  # seconds


def _installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


@pytest.fixture(scope="module")
def _locked_tools():
    """Skip the test unless the locked versions are installed, because others write other files.

    CI must have them.
    """
    lock = (CHECKOUT / "requirements/ci.txt").read_text()
    missing = [
        f"{name} {locked} (installed: {_installed(name)})"
        for name in ("sphinx", "myst-parser", "docutils", "shtab")
        for locked in re.findall(rf"^{name}==(\S+)", lock, re.MULTILINE)
        if _installed(name) != locked
    ]
    if missing and os.environ.get("TFTPD_INTEROP") != "required":
        pytest.skip(f"`make locked` installs {', '.join(missing)}")
    assert missing == []


def _run(*arguments):
    """Run a script of the documentation in an unusual environment, which must not matter."""
    environment = dict(
        os.environ,
        COLUMNS="20", LANGUAGE="de", TZ="Pacific/Kiritimati", FORCE_COLOR="1", PYTHONHASHSEED="1",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def _sphinx(builder, target, doctrees):
    _run("-m", "sphinx", "-W", "--keep-going", "-q", "-b", builder, "-d", doctrees, "docs", target)


def _files(directory):
    """Return the files that `make docs` writes; other folders of `share` are written by hand."""
    return {
        path.relative_to(directory): path.read_text(encoding="utf-8")
        for folder in ("man", "bash-completion", "zsh", "fish")
        for path in (directory / folder).rglob("*")
        if path.is_file()
    }


@pytest.mark.check
@pytest.mark.usefixtures("_locked_tools")
def test_the_committed_manual_pages_and_completions_are_current(tmp_path):
    _sphinx("man", tmp_path / "share/man", tmp_path / "doctrees")
    _run("docs/completions.py", tmp_path / "share")
    committed, written = _files(CHECKOUT / "share"), _files(tmp_path / "share")
    assert committed.keys() == written.keys()
    old = [str(path) for path, text in written.items() if text != committed[path]]
    assert old == [], "run `make docs` and commit the files"


@pytest.mark.check
@pytest.mark.usefixtures("_locked_tools")
def test_the_site_builds_without_warnings(tmp_path):
    _sphinx("html", tmp_path / "html", tmp_path / "doctrees")
    assert (tmp_path / "html/reference/configuration.html").is_file()


def test_the_wheel_contains_every_file_of_share():
    listed = re.findall(r"^(?:\s+|.* = )(share/\S+)$", (CHECKOUT / "setup.cfg").read_text(), re.M)
    assert sorted(listed) == sorted(f"share/{path}" for path in _files(CHECKOUT / "share"))
