"""Our client against another server: atftpd, skipped where it is missing."""

import os
import random
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from tests.client.test_cli import ENVIRONMENT, LIMIT, TFTPC
from tests.daemons import free_port, until

SIZES = [0, 1, 511, 512, 513, 1468, 100_000]


def _content(size):
    return random.Random(size).randbytes(size)


@contextmanager
def _atftpd(root, *options):
    path = shutil.which("atftpd", path=os.environ["PATH"] + ":/usr/sbin")
    if path is None and os.environ.get("TFTPD_INTEROP") != "required":
        pytest.skip("atftpd is not installed")
    assert path, "atftpd is not installed"
    if os.getuid() != 0:
        pytest.skip("atftpd starts as root only")
    port = free_port()
    command = [path, "--daemon", "--no-fork", "--port", str(port), "--bind-address", "127.0.0.1"]
    command += ["--user", "root", "--group", "root", "--logfile", "/dev/stdout", *options]
    process = subprocess.Popen(
        [*command, str(root)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: process.poll() is not None or _listens(port))
        assert process.poll() is None
        yield port
    finally:
        process.terminate()
        process.wait(LIMIT)


def _listens(port):
    with open("/proc/net/udp") as sockets:
        return f":{port:04X} " in sockets.read()


@pytest.fixture(scope="module", params=[(), ("--no-blksize", "--no-tsize")], ids=["all", "few"])
def server(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("atftpd")
    root.chmod(0o777)
    with _atftpd(root, *request.param) as port:
        yield root, f"tftp://127.0.0.1:{port}"


def _tftpc(*arguments, **how):
    return subprocess.run(
        [*TFTPC, *arguments], env=ENVIRONMENT, capture_output=True, timeout=LIMIT, **how
    )


@pytest.mark.parametrize("size", SIZES)
def test_a_download(server, tmp_path, size):
    root, url = server
    (root / f"get{size}").write_bytes(_content(size))
    done = _tftpc("get", f"{url}/get{size}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"get{size}").read_bytes() == _content(size)


@pytest.mark.parametrize("size", SIZES)
def test_an_upload(server, tmp_path, size):
    root, url = server
    (tmp_path / "local").write_bytes(_content(size))
    done = _tftpc("put", "local", f"{url}/put{size}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    until(lambda: (root / f"put{size}").read_bytes() == _content(size))


def test_a_file_that_is_not_there(server, tmp_path):
    _, url = server
    assert _tftpc("get", f"{url}/none", cwd=tmp_path).returncode == 3


def test_netascii(server, tmp_path):
    root, url = server
    (root / "text").write_bytes(b"one\ntwo\n")
    assert _tftpc("get", f"{url}/text;mode=netascii", cwd=tmp_path).returncode == 0
    assert (tmp_path / "text").read_bytes() == b"one\ntwo\n"
