"""`tftpd init` writes configurations that have no problems."""

import io
import os
import pty
import select
import subprocess
import sys

import pytest

from tests.support.daemons import CHECKOUT
from tftpd.config.loader import load_settings
from tftpd.daemon.cli import main, parser
from tftpd.daemon.init_config import PURPOSES

RUN = "import sys; from tftpd.daemon.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def init(tmp_path, capsys, monkeypatch):
    """Return a function that runs the command without a terminal."""
    monkeypatch.setattr("sys.stdin", io.StringIO())

    def run(*arguments, status=0):
        path = tmp_path / "etc" / "tftpd.yaml"
        assert main(["init", "-o", str(path), *arguments]) == status
        output = capsys.readouterr()
        return output.err if status else load_settings(path)

    return run


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("more", [(), ("--http", "--address", "127.0.0.1", "--no-status")])
def test_each_purpose_has_a_configuration_without_problems(init, tmp_path, purpose, more):
    root = tmp_path / "files"
    settings = init(purpose, "--root", str(root), "--create", *more)
    (directory,) = settings.directories
    assert directory.root == [str(root)]
    assert bool(directory.write) == (purpose == "backups")
    protocols = {listen.protocol for listen in settings.listen}
    assert protocols == ({"tftp", "http"} if more and purpose != "backups" else {"tftp"})
    assert (settings.status is None) == bool(more)


def test_only_private_networks_may_upload_by_default(init, tmp_path):
    networks = init("backups", "--root", str(tmp_path)).directories[0].write.clients
    assert "10.0.0.0/8" in map(str, networks)
    assert not any(network.is_global for network in networks)


@pytest.mark.parametrize("name", ["a b", 'a"b', "a: b #c", "$HOME", "\u738b", "x{ip}"])
def test_a_directory_may_have_any_name(init, tmp_path, name):
    root = f"{tmp_path}/{name}"
    (directory,) = init("boot", "--root", root, "--create").directories
    assert directory.root == [root]


def test_a_missing_directory_is_reported(init, tmp_path):
    message = init("boot", "--root", str(tmp_path / "none"), status=1)
    assert message == (
        f"tftpd: directories[0].root: {tmp_path}/none does not exist; --create makes it\n"
    )


def test_without_a_terminal_nothing_is_asked(init):
    assert init(status=1) == "tftpd: missing purpose: one of boot, backups, mirror\n"


def test_an_existing_file_stays(init, tmp_path):
    init("boot", "--root", str(tmp_path))
    new = str(tmp_path / "new")
    assert "--force replaces it" in init("mirror", "--root", new, "--create", status=1)
    assert not os.path.exists(new)
    settings = init("mirror", "--root", str(tmp_path), "--force")
    assert settings.directories[0].read.world_readable


def test_a_problem_leaves_no_file(init, tmp_path):
    message = init("boot", "--root", str(tmp_path), "--clients", "10.0.0.0/33", status=1)
    assert message.startswith("tftpd: directories[0].clients[0]: expected a network")
    assert list((tmp_path / "etc").iterdir()) == []


def test_the_variable_names_the_file(monkeypatch):
    monkeypatch.setenv("TFTPD_CONFIG", "/elsewhere.yaml")
    assert parser().parse_args(["check"]).config == "/elsewhere.yaml"
    assert parser().parse_args(["init", "boot"]).output == "/elsewhere.yaml"
    monkeypatch.setenv("TFTPD_CONFIG", "")
    assert parser().parse_args(["check"]).config == "/etc/tftpd/tftpd.yaml"


def test_a_terminal_is_asked(tmp_path):
    answers = ["nonsense", "backups", str(tmp_path / "new"), "127.0.0.1", "10.1.0.0/16", "n", "y"]
    controller, terminal = pty.openpty()
    path = tmp_path / "tftpd.yaml"
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "init", "-o", str(path)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=CHECKOUT,
    )
    os.close(terminal)
    text = b""
    for answer in answers:
        while not text.endswith(b"]: "):
            assert select.select([controller], [], [], 30)[0], text
            text += os.read(controller, 1000)
        os.write(controller, f"{answer}\n".encode())
        text += b"\n"
    try:
        while data := os.read(controller, 1000):
            text += data
    except OSError:  # the other end is closed
        pass
    os.close(controller)
    assert process.wait(30) == 0, text
    assert b"expected one of boot, backups, mirror" in text
    settings = load_settings(path)
    assert [listen.address for listen in settings.listen] == ["127.0.0.1"]
    assert list(map(str, settings.directories[0].write.clients)) == ["10.1.0.0/16"]
    assert settings.status is None
