"""Clients of other projects with our daemon: curl, tftp-hpa, atftp and busybox."""

import random
import subprocess

import pytest

from tests.support.daemons import daemon, free_port
from tests.support.programs import program

pytestmark = pytest.mark.check

SIZES = [0, 1, 511, 512, 513, 5120, 100_000]
LIMIT = 60  # seconds for one client


def _content(size):
    return random.Random(size).randbytes(size)


class Curl:
    name = "curl"

    def get(self, port, name, to):
        return ["curl", "-sS", "-o", to, f"tftp://127.0.0.1:{port}/{name}"]

    def put(self, port, path, name):
        return ["curl", "-sS", "-T", path, f"tftp://127.0.0.1:{port}/{name}"]


class CurlPlain(Curl):
    def get(self, port, name, to):
        return [*super().get(port, name, to), "--tftp-no-options"]

    def put(self, port, path, name):
        return [*super().put(port, path, name), "--tftp-no-options"]


class CurlLarge(Curl):
    def get(self, port, name, to):
        return [*super().get(port, name, to), "--tftp-blksize", "8192"]

    def put(self, port, path, name):
        return [*super().put(port, path, name), "--tftp-blksize", "8192"]


class Hpa:
    name = "tftp"

    def get(self, port, name, to):
        return ["tftp", "-m", "binary", "127.0.0.1", str(port), "-c", "get", name, to]

    def put(self, port, path, name):
        return ["tftp", "-m", "binary", "127.0.0.1", str(port), "-c", "put", path, name]


class Atftp:
    name = "atftp"
    options = ()

    def get(self, port, name, to):
        return ["atftp", *self.options, "-g", "-r", name, "-l", to, "127.0.0.1", str(port)]

    def put(self, port, path, name):
        return ["atftp", *self.options, "-p", "-l", path, "-r", name, "127.0.0.1", str(port)]


class AtftpWindow(Atftp):
    options = ("--option", "blksize 1428", "--option", "windowsize 8", "--option", "tsize 0")


class Busybox:
    name = "busybox"

    def get(self, port, name, to):
        return ["busybox", "tftp", "-g", "-r", name, "-l", to, "127.0.0.1", str(port)]

    def put(self, port, path, name):
        return ["busybox", "tftp", "-p", "-l", path, "-r", name, "127.0.0.1", str(port)]


class BusyboxLarge(Busybox):
    def get(self, port, name, to):
        command = super().get(port, name, to)
        return [*command[:2], "-b", "16384", *command[2:]]

    def put(self, port, path, name):
        command = super().put(port, path, name)
        return [*command[:2], "-b", "16384", *command[2:]]


CLIENTS = [Curl, CurlPlain, CurlLarge, Hpa, Atftp, AtftpWindow, Busybox, BusyboxLarge]


@pytest.fixture(scope="module", params=["per-session", "single-port"])
def running(request, tmp_path_factory):
    port = free_port()
    listen = [{"address": "127.0.0.1", "port": port, "mode": request.param}]
    with daemon(tmp_path_factory.mktemp("interop"), listen=listen) as started:
        started.port = port
        yield started


@pytest.fixture(params=CLIENTS, ids=lambda kind: kind.__name__)
def client(request):
    program(request.param.name)
    return request.param()


def _run(command, **how):
    return subprocess.run(command, capture_output=True, timeout=LIMIT, **how)


@pytest.mark.parametrize("size", SIZES)
def test_a_client_downloads_a_file(running, client, size, tmp_path):
    (running.root / f"get{size}").write_bytes(_content(size))
    done = _run(client.get(running.port, f"get{size}", str(tmp_path / "got")))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "got").read_bytes() == _content(size)


@pytest.mark.parametrize("size", SIZES)
def test_a_client_uploads_a_file(running, client, size, tmp_path):
    name = f"put-{type(client).__name__}-{size}"
    (tmp_path / "local").write_bytes(_content(size))
    done = _run(client.put(running.port, str(tmp_path / "local"), name))
    assert done.returncode == 0, done.stderr
    assert (running.root / name).read_bytes() == _content(size)


def test_a_client_reports_a_missing_file(running, client, tmp_path):
    done = _run(client.get(running.port, "no-such-file", str(tmp_path / "got")))
    if client.name == "curl":
        assert done.returncode == 68  # CURLE_TFTP_NOTFOUND
        return
    if client.name != "tftp":  # tftp-hpa prints the error and exits with 0
        assert done.returncode != 0
    assert b"not found" in (done.stdout + done.stderr).lower()


def test_tftp_hpa_reads_and_writes_netascii(running, tmp_path):
    program("tftp")
    text = b"one\ntwo\r\nthree"
    (running.root / "text").write_bytes(text)
    got = str(tmp_path / "got")
    command = ["tftp", "-m", "ascii", "127.0.0.1", str(running.port), "-c", "get", "text", got]
    assert _run(command).returncode == 0
    assert (tmp_path / "got").read_bytes() == text
    command = ["tftp", "-m", "ascii", "127.0.0.1", str(running.port), "-c", "put", got, "back"]
    assert _run(command).returncode == 0
    assert (running.root / "back").read_bytes() == text
