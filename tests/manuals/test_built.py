"""What is committed under `share/`, and what it is built from."""

import os
import re
import subprocess
import sys

import pytest

from manuals.built import TEXTS, files
from tests.support.daemons import CHECKOUT

BUILT = files()
LIMIT = 60


@pytest.mark.parametrize("name", BUILT, ids=str)
def test_a_committed_file_is_current(name):
    path = CHECKOUT / name
    committed = path.read_text(encoding="utf-8") if path.exists() else None
    assert committed == BUILT[name], f"{name} is not current: run `make manuals` and commit it"


def test_nothing_is_committed_that_is_no_longer_built():
    committed = {path for path in (CHECKOUT / "share").rglob("*") if path.is_file()}
    assert committed == {CHECKOUT / name for name in BUILT}


@pytest.mark.parametrize("columns", ["20", "200"])
def test_terminal_language_time_and_user_make_no_difference(tmp_path, columns):
    environment = dict(
        os.environ,
        PYTHONPATH=str(CHECKOUT), PYTHONHASHSEED=columns, COLUMNS=columns, LINES="5",
        LC_ALL="C", LANGUAGE="de", TZ="Pacific/Kiritimati", HOME=str(tmp_path), USER="nobody",
        FORCE_COLOR="1",
    )  # fmt: skip
    command = [sys.executable, "-m", "manuals", str(tmp_path)]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=LIMIT)
    assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in BUILT} == BUILT


def test_every_file_is_in_the_wheel():
    listed = re.findall(r"^(?:    |.* = )(share/\S+)$", (CHECKOUT / "setup.cfg").read_text(), re.M)
    assert sorted(listed) == sorted(map(str, BUILT))


def test_the_manual_has_the_exit_statuses_of_the_documents():
    document = (CHECKOUT / "docs/client.md").read_text().partition("| exit status |")[2]
    rows = re.findall(r"^\| (\d+) \| (.+?) \|$", document, re.M)
    manual = (TEXTS / "tftpc.1.md").read_text().partition("## Exit status")[2].partition("##")[0]
    terms = re.findall(r"^`(\d+)`\n: (.+)\.$", manual, re.M)
    assert [(status, about.lower()) for status, about in terms] == [
        (status, about.lower()) for status, about in rows
    ]
