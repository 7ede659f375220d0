"""The committed completions, in the shells themselves."""

import os
import pty
import select
import signal
import subprocess
import time

import pytest

from tests.support.daemons import CHECKOUT
from tests.support.programs import program

pytestmark = pytest.mark.check

LIMIT = 30.0  # seconds for a shell to answer, on a loaded machine

SHARE = CHECKOUT / "share"
BASH = SHARE / "bash-completion/completions"
ZSH = SHARE / "zsh/site-functions"
FISH = SHARE / "fish/vendor_completions.d"

# Calls the completion function of bash for the words of a line, the last one unfinished.
ASK = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"_shtab_$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def directory(tmp_path):
    """Create a directory with files that a shell can complete."""
    (tmp_path / "one.cfg").touch()
    (tmp_path / "two words.cfg").touch()
    (tmp_path / "sub").mkdir()
    return tmp_path


FILES = ["one.cfg", "sub", "two words.cfg"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tftpc", ""], ["get", "probe", "prompt", "put"]),
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
        (["tftpd", "check", ""], FILES),
        (["tftpd", "run", "--config", "o"], ["one.cfg"]),
        (["tftpd", "run", ""], FILES),
        (["tftpd", "explain", "--mode", "=", "octet", "--config", "o"], ["one.cfg"]),
        (["tftpd", "install-units", "--root", ""], ["sub"]),
    ],
    ids=" ".join,
)
def test_bash_offers(directory, words, expected):
    done = subprocess.run(
        [program("bash"), "--norc", "-c", ASK, "bash", BASH / words[0], *words],
        cwd=directory, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert (done.stderr, done.returncode) == ("", 0)
    assert sorted(filter(None, done.stdout.split("\n"))) == expected


def _assert_shows(argv, setup, keys, expected, directory):
    """Type `keys` in an interactive shell and wait until it shows `expected`."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(directory)
        environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(directory)}
        os.execve(argv[0], argv, environment)
    try:
        # The prompt comes when the shell has taken over the terminal.
        os.write(terminal, f"{setup}; PS1='go''> '\n".encode())
        _read_until(terminal, b"go> ")
        os.write(terminal, keys.encode())
        _read_until(terminal, expected.encode())
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)


def _read_until(terminal, mark):
    deadline, shown = time.monotonic() + LIMIT, b""
    while mark not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, shown
        shown += os.read(terminal, 4096)


TABS = [
    ("tftpc g\t", "tftpc get "),
    ("tftpc get --bl\t", "tftpc get --blksize"),
    ("tftpc get --mode n\t", "--mode netascii"),
    ("tftpc get --mode=n\t", "--mode=netascii"),
    ("tftpc put o\t", "tftpc put one.cfg"),
    ("tftpc put t\t", r"tftpc put two\ words.cfg"),
    ("tftpc put one.cfg t\t", r"tftpc put one.cfg two\ words.cfg"),
    ("tftpd check o\t", "tftpd check one.cfg"),
    ("tftpd explain --json --config o\t", "--config one.cfg"),
]


@pytest.mark.parametrize(("keys", "expected"), TABS)
def test_the_tab_key_completes_in_bash(directory, keys, expected):
    setup = f"source {BASH}/tftpc; source {BASH}/tftpd"
    _assert_shows(
        [program("bash"), "--norc", "--noprofile", "-i"], setup, keys, expected, directory
    )


@pytest.mark.parametrize(("keys", "expected"), TABS)
def test_the_tab_key_completes_in_zsh(directory, keys, expected):
    setup = f"fpath=({ZSH} $fpath); autoload -U compinit; compinit -u -D"
    _assert_shows([program("zsh"), "-f", "-i"], setup, keys, expected, directory)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tftpc g", "get"),
        ("tftpc get --bl", "--blksize"),
        ("tftpc get --mode n", "netascii"),
        ("tftpc get --mode=n", "--mode=netascii"),
        ("tftpc put o", "one.cfg"),
        ("tftpc put one.cfg s", "sub/"),
        ("tftpd check o", "one.cfg"),
        ("tftpd explain --json --config o", "one.cfg"),
    ],
)
def test_fish_offers(directory, line, expected):
    ask = f"source {FISH}/tftpc.fish; source {FISH}/tftpd.fish; complete -C '{line}'"
    done = subprocess.run(
        [program("fish"), "--no-config", "-c", ask],
        cwd=directory, env={**os.environ, "HOME": str(directory)},
        capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    offered = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert (offered, done.stderr) == ([expected], "")


@pytest.mark.parametrize(("shell", "directory"), [("bash", BASH), ("zsh", ZSH), ("fish", FISH)])
def test_a_shell_accepts_the_syntax_of_the_scripts(shell, directory):
    scripts = sorted(directory.iterdir())
    assert len(scripts) == 2
    for script in scripts:
        done = subprocess.run([program(shell), "-n", script], capture_output=True, timeout=LIMIT)
        assert (done.stderr, done.returncode) == (b"", 0)
