"""Completions, asked for in the shells themselves."""

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import PurePosixPath

import pytest

from manuals.built import files
from tests.support.programs import program

LIMIT = 30.0  # seconds for a shell to answer, on a loaded machine

# What bash is asked: the words of a line, as it splits them, the last unfinished.
ASK = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"_$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def share(tmp_path_factory):
    """An installation of what is built."""
    prefix = tmp_path_factory.mktemp("prefix")
    for name, text in files().items():
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(text)
    return prefix / "share"


@pytest.fixture
def here(tmp_path):
    """A directory with files to be offered."""
    (tmp_path / "one.cfg").touch()
    (tmp_path / "two words.cfg").touch()
    (tmp_path / "sub").mkdir()
    return tmp_path


@pytest.fixture
def bash(share, here):
    """What bash offers for the words of a line."""

    def offers(*words):
        script = str(share / "bash-completion/completions" / words[0])
        done = subprocess.run(
            [program("bash"), "--norc", "-c", ASK, "bash", script, *words],
            cwd=here, capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip
        assert (done.stderr, done.returncode) == ("", 0)
        return sorted(filter(None, done.stdout.split("\n")))

    return offers


FILES = ["one.cfg", "sub", "two words.cfg"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tftpc", "g"], ["get"]),
        (["tftpc", "--v"], ["--version"]),
        (["tftpc", "get", "--bl"], ["--blksize"]),
        (["tftpc", "--unknown", "get", "--bl"], ["--blksize"]),
        (["tftpc", "get", "--mode", ""], ["netascii", "octet"]),
        (["tftpc", "get", "--mode", "="], ["netascii", "octet"]),
        (["tftpc", "get", "--mode", "=", "n"], ["netascii"]),
        (["tftpc", "get", "--mode", "=", "octet", "-o", "o"], ["one.cfg"]),
        (["tftpc", "get", "--port", ""], []),
        (["tftpc", "get", ""], []),
        (["tftpc", "put", ""], FILES),
        (["tftpc", "put", "t"], ["two words.cfg"]),
        (["tftpc", "put", "--port", "70", "one.cfg", "s"], ["sub"]),
        (["tftpc", "put", "one.cfg", "tftp", ":", "//h"], []),
        (["tftpd", "check", ""], FILES),
        (["tftpd", "run", "--config", "o"], ["one.cfg"]),
        (["tftpd", "run", ""], []),
    ],
    ids=lambda words: " ".join(words),
)
def test_bash_offers(bash, words, offered):
    assert bash(*words) == offered


def test_bash_offers_every_subcommand(bash):
    assert {"get", "put"} <= set(bash("tftpc", ""))
    assert {"run", "check", "schema"} <= set(bash("tftpd", ""))


def _shows(argv, setup, keys, shown, here):
    """Whether an interactive shell comes to show `shown` after `keys`; fails if it does not."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(here)
        os.execve(argv[0], argv, {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(here)})
    try:
        # The prompt comes when the shell has taken the terminal over.
        os.write(terminal, f"{setup}; PS1='go''> '\n".encode())
        _until(terminal, b"go> ")
        os.write(terminal, keys.encode())
        return _until(terminal, shown.encode())
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)


def _until(terminal, mark):
    deadline, shown = time.monotonic() + LIMIT, b""
    while mark not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, shown
        shown += os.read(terminal, 4096)
    return True


TABS = [
    ("tftpc g\t", "tftpc get "),
    ("tftpc get --bl\t", "tftpc get --blksize"),
    ("tftpc get --mode=n\t", "--mode=netascii"),
    ("tftpc put o\t", "tftpc put one.cfg"),
    ("tftpc put t\t", r"tftpc put two\ words.cfg"),
    ("tftpd check o\t", "tftpd check one.cfg"),
]


@pytest.mark.parametrize(("keys", "shown"), TABS)
def test_a_tab_in_bash(share, here, keys, shown):
    scripts = share / "bash-completion/completions"
    setup = f"source {scripts}/tftpc; source {scripts}/tftpd"
    assert _shows([program("bash"), "--norc", "--noprofile", "-i"], setup, keys, shown, here)


@pytest.mark.parametrize(("keys", "shown"), TABS)
def test_a_tab_in_zsh(share, here, keys, shown):
    setup = f"fpath=({share}/zsh/site-functions $fpath); autoload -U compinit; compinit -u -D"
    assert _shows([program("zsh"), "-f", "-i"], setup, keys, shown, here)


@pytest.mark.parametrize(
    ("keys", "shown"), [*TABS[:3], ("tftpc put o", "one.cfg"), ("tftpd check o", "one.cfg")]
)
def test_fish_offers(share, here, keys, shown):
    completions = share / "fish/vendor_completions.d"
    line = keys.rstrip("\t")
    ask = f"source {completions}/tftpc.fish; source {completions}/tftpd.fish; complete -C '{line}'"
    done = subprocess.run(
        [program("fish"), "--no-config", "-c", ask],
        cwd=here, env={**os.environ, "HOME": str(here)}, capture_output=True, text=True,
        timeout=LIMIT,
    )  # fmt: skip
    offered = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert (offered, done.stderr) == ([shown.split()[-1]], "")


@pytest.mark.parametrize(
    ("shell", "folder"), [("bash", "bash-completion"), ("zsh", "zsh"), ("fish", "fish")]
)
def test_a_script_is_sound(share, shell, folder):
    scripts = [name for name in files() if PurePosixPath("share", folder) in name.parents]
    assert len(scripts) == 2
    for name in scripts:
        done = subprocess.run(
            [program(shell), "-n", share.parent / name], capture_output=True, timeout=LIMIT
        )
        assert (done.stderr, done.returncode) == (b"", 0)
