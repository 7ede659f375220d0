"""Our client with servers of other projects: atftpd, tftp-hpa's in.tftpd and dnsmasq."""

import json
import random

import pytest

from tests.interop.servers import KINDS, running_server
from tests.support.daemons import until

pytestmark = pytest.mark.check

SIZES = [0, 1, 511, 512, 513, 1467, 1468, 1469, 5 * 1468, 100_000]
ETHERNET = ["--json", "--blksize", "1468", "--windowsize", "16"]
WINDOWS = [1, 2, 16, 64]
WRITABLE = [kind for kind in KINDS if kind.refused_name is not None]


def _content(size):
    return random.Random(size).randbytes(size)


def _name(kind):
    return kind.name


@pytest.fixture(scope="module", params=KINDS, ids=_name)
def server(request, tmp_path_factory):
    with running_server(request.param, tmp_path_factory.mktemp("served")) as started:
        yield started


takes_uploads = pytest.mark.parametrize("server", WRITABLE, ids=_name, indirect=True)


def _negotiated(done):
    """Return the blksize and windowsize of a successful transfer."""
    assert (done.returncode, done.stderr) == (0, b"")
    result = json.loads(done.stdout)
    return result["blksize"], result["windowsize"]


@pytest.mark.parametrize("size", SIZES)
def test_a_download_is_intact(server, tmp_path, size):
    (server.root / f"get{size}").write_bytes(_content(size))
    done = server.tftpc("get", *ETHERNET, f"{server.url}/get{size}", cwd=tmp_path)
    assert _negotiated(done) == server.kind.granted(1468, 16)
    assert (tmp_path / f"get{size}").read_bytes() == _content(size)


@takes_uploads
@pytest.mark.parametrize("size", SIZES)
def test_an_upload_is_intact(server, tmp_path, size):
    (tmp_path / "local").write_bytes(_content(size))
    done = server.tftpc("put", *ETHERNET, "local", f"{server.url}/put{size}", cwd=tmp_path)
    assert _negotiated(done) == server.kind.granted(1468, 16)
    until(lambda: (server.root / f"put{size}").read_bytes() == _content(size))


@pytest.mark.parametrize("windowsize", WINDOWS)
def test_a_download_uses_the_granted_windowsize(server, tmp_path, windowsize):
    (server.root / "windows").write_bytes(_content(200_000))
    options = ["--json", "--blksize", "1024", "--windowsize", str(windowsize)]
    done = server.tftpc("get", *options, f"{server.url}/windows", cwd=tmp_path)
    assert _negotiated(done) == server.kind.granted(1024, windowsize)
    assert (tmp_path / "windows").read_bytes() == _content(200_000)


@takes_uploads
@pytest.mark.parametrize("windowsize", WINDOWS)
def test_an_upload_uses_the_granted_windowsize(server, tmp_path, windowsize):
    (tmp_path / "local").write_bytes(_content(200_000))
    options = ["--json", "--blksize", "1024", "--windowsize", str(windowsize)]
    name = f"up{windowsize}"
    done = server.tftpc("put", *options, "local", f"{server.url}/{name}", cwd=tmp_path)
    assert _negotiated(done) == server.kind.granted(1024, windowsize)
    until(lambda: (server.root / name).read_bytes() == _content(200_000))


def test_a_download_is_intact_after_a_rollover(server, tmp_path):
    blksize = server.kind.min_blksize
    content = _content(66_000 * blksize + 3)
    (server.root / "long").write_bytes(content)
    options = ["--json", "--blksize", str(blksize), "--windowsize", "16"]
    done = server.tftpc("get", *options, f"{server.url}/long", cwd=tmp_path)
    assert _negotiated(done) == server.kind.granted(blksize, 16)
    assert (tmp_path / "long").read_bytes() == content


def test_netascii_is_converted_in_both_directions(server, tmp_path):
    text = b"one\ntwo\n\rthree\n" * 100
    (server.root / "text").write_bytes(text)
    done = server.tftpc("get", f"{server.url}/text;mode=netascii", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "text").read_bytes() == text
    if server.kind in WRITABLE:
        done = server.tftpc("put", "text", f"{server.url}/back;mode=netascii", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        until(lambda: (server.root / "back").read_bytes() == text)


def test_a_missing_file_exits_with_3(server, tmp_path):
    done = server.tftpc("get", f"{server.url}/none", cwd=tmp_path)
    assert done.returncode == 3
    assert b"not found" in done.stderr.lower()
    assert list(tmp_path.iterdir()) == []


def test_a_refused_upload_exits_with_4(server, tmp_path):
    (server.root / "locked").write_bytes(b"old")
    (server.root / "locked").chmod(0o644)
    (tmp_path / "local").write_bytes(b"other")
    name = server.kind.refused_name or "any"
    done = server.tftpc("put", "local", f"{server.url}/{name}", cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert (server.root / "locked").read_bytes() == b"old"


def test_a_probe_reports_its_observations(server):
    (server.root / "probed").write_bytes(_content(100_000))
    url = f"{server.url}/probed"
    done = server.tftpc("probe", "--json", "--patience", "1", url, cwd=server.root)
    has_tsize = "tsize" in server.kind.options  # GRUB and UEFI fail without it
    assert (done.returncode, done.stderr) == (0 if has_tsize else 1, b"")
    report = json.loads(done.stdout)
    assert report["answer"]["origin"] == "own port"
    if has_tsize:
        assert report["size"] == 100_000
    if server.kind.name == "atftpd":  # it answers duplicate ACKs and repeated requests
        assert (report["repetition"]["copies"], report["repetition"]["transfers"]) == ([2, 2, 2], 2)
