"""The programs in share/examples."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.daemons import CHECKOUT, daemon, until
from tests.support.plain import put
from tests.support.programs import program

pytestmark = pytest.mark.check

SCRIPT = CHECKOUT / "share/examples/commit-upload"


@pytest.fixture
def commit(tmp_path):
    """Return a function that stores a file and runs `commit-upload` for it."""
    program("git")
    (tmp_path / "root").mkdir()
    subprocess.run(["git", "init", "--quiet", tmp_path / "git"], check=True)

    def run(name, content=None, environment=None, **event):
        path = tmp_path / "root" / name
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        event = {"event": "upload_stored", "path": str(path), "client": "10.0.0.1", **event}
        home = {"HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
        return subprocess.run(
            [SCRIPT, tmp_path / "git", tmp_path / "root"],
            input=json.dumps(event).encode(),
            env={**os.environ, **home, **(environment or {})},
            capture_output=True,
        )

    return run


def _log(tmp_path, form="%an: %s|%b"):
    command = ["git", "-C", tmp_path / "git", "log", f"--format={form}"]
    return subprocess.run(command, capture_output=True, text=True).stdout.split("\n")


def _content(tmp_path, name):
    command = ["git", "-C", tmp_path / "git", "show", f"HEAD:{name}"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def test_each_changed_upload_is_a_commit(commit, tmp_path):
    for content in (b"1\n", b"2\n", b"2\n"):
        done = commit("cfg/sw1.cfg", content)
        assert (done.returncode, done.stderr) == (0, b"")
    assert len(_log(tmp_path, "%h")) - 1 == 2
    assert _log(tmp_path)[0] == "tftpd: Store cfg/sw1.cfg|Uploaded by 10.0.0.1."
    assert _content(tmp_path, "cfg/sw1.cfg") == b"2\n"


@pytest.mark.parametrize("name", [".git/config", "a/.GIT/hooks/post-commit", ".gitattributes"])
def test_no_name_changes_the_repository(commit, tmp_path, name):
    before = (tmp_path / "git/.git/config").read_bytes()
    done = commit(name, b"x")
    assert done.returncode == 1
    assert b"not committed because of its name" in done.stderr
    assert (tmp_path / "git/.git/config").read_bytes() == before
    assert not (tmp_path / "git/.git/hooks/post-commit").exists()


def test_names_are_not_patterns_and_bytes_are_kept(commit, tmp_path):
    assert commit(":(glob)*", b"star").returncode == 0
    assert commit("-f", b"dash").returncode == 0
    raw = os.fsencode(tmp_path / "root") + b"/caf\xe9"
    with open(raw, "wb") as file:
        file.write(b"latin")
    done = commit("caf\\xe9", environment={"TFTPD_PATH": os.fsdecode(raw)})
    assert (done.returncode, done.stderr) == (0, b"")
    assert _content(tmp_path, ":(glob)*") == b"star"
    assert _log(tmp_path, "%s")[0] == "Store caf\\xe9"
    assert b"caf\xe9" in os.listdir(os.fsencode(tmp_path / "git"))


def test_a_path_outside_of_the_root_and_other_events_change_nothing(commit, tmp_path):
    (tmp_path / "secret").write_text("x")
    assert commit("x", path=str(tmp_path / "secret")).returncode == 1
    assert commit("x", path=str(tmp_path / "root/../secret")).returncode == 1
    assert commit("x", b"1", event="read_done").returncode == 0
    assert commit("x", path=None).returncode == 0
    assert _log(tmp_path) == [""]


def test_uploads_that_end_at_once_are_all_committed(commit, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda number: commit(f"sw{number}.cfg", b"x"), range(8)))
    assert [each.returncode for each in done] == [0] * 8
    assert len(_log(tmp_path, "%h")) - 1 == 8


def test_a_daemon_commits_its_uploads_and_keeps_versions(tmp_path, monkeypatch):
    program("git")
    monkeypatch.setenv("HOME", str(tmp_path))
    subprocess.run(["git", "init", "--quiet", tmp_path / "git"], check=True)
    root = tmp_path / "root"
    hook = {"event": ["upload_stored"], "exec": [str(SCRIPT), str(tmp_path / "git"), str(root)]}
    write = {"overwrite": True, "keep": 5}
    directories = [{"path": "/", "root": str(root), "write": write}]
    with daemon(tmp_path, directories=directories, events=[hook]) as running:
        for number, content in enumerate((b"1\n", b"2\n"), 1):
            put(running.port, b"sw1.cfg", content)
            until(lambda n=number: len(_log(tmp_path, "%h")) - 1 == n)
    assert _content(tmp_path, "sw1.cfg") == b"2\n"
    assert [path.read_bytes() for path in (root / ".versions").iterdir()] == [b"1\n"]
