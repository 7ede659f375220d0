"""`tftpc` against servers of tutorials."""

import random
import subprocess

import pytest

from tests.client.test_cli import ENVIRONMENT, LIMIT, TFTPC
from tests.tutorials.programs import TutorialServer

SIZES = [0, 511, 512, 2500]
CONTENT = random.Random(17).randbytes(6000)

SERVERS = {
    "ignores requests with options": {},
    "ignores the options": {"strip_options": True},
    "answers by ERROR 4": {"option_error": 4},
    "answers by ERROR 0": {"option_error": 0},
    "answers by ERROR 8": {"option_error": 8},
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def run(tmp_path):
    """Run `tftpc`; `{url}` in an argument stands for the URL of the server."""

    def run_tftpc(server, *arguments):
        with server.running() as port:
            url = f"tftp://127.0.0.1:{port}"
            return subprocess.run(
                [*TFTPC, *(argument.format(url=url) for argument in arguments)],
                cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=LIMIT,
            )  # fmt: skip

    return run_tftpc


@pytest.mark.parametrize("kind", SERVERS)
def test_a_file_is_downloaded_from_a_server_that_counts_from_0(run, root, tmp_path, kind):
    (root / "file").write_bytes(CONTENT)
    done = run(TutorialServer(root, **SERVERS[kind]), "get", "{url}/file")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("size", SIZES)
def test_files_of_each_size_are_downloaded_whole(run, root, tmp_path, size):
    (root / "file").write_bytes(CONTENT[:size])
    done = run(TutorialServer(root, strip_options=True), "get", "{url}/file")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "file").read_bytes() == CONTENT[:size]


def test_a_missing_file_is_reported(run, root):
    done = run(TutorialServer(root), "get", "{url}/missing")
    assert done.returncode == 1
    assert b"ERROR 5" in done.stderr


@pytest.mark.parametrize("kind", SERVERS)
def test_a_file_is_uploaded_to_a_server_that_counts_from_1(run, root, tmp_path, kind):
    (tmp_path / "file").write_bytes(CONTENT)
    server = TutorialServer(root, 1, 512, **SERVERS[kind])
    done = run(server, "put", "file", "{url}/stored")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (root / "stored").read_bytes() == CONTENT


@pytest.mark.check
def test_a_server_that_waits_for_block_0_is_recognized(run, root, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    done = run(TutorialServer(root), "put", "--patience", "3", "file", "{url}/stored")
    assert done.returncode == 5
    assert b"--first-block 0" in done.stderr


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["ignores requests with options", "ignores the options"])
def test_a_file_is_uploaded_to_a_server_that_waits_for_block_0(run, root, tmp_path, kind, size):
    (tmp_path / "file").write_bytes(CONTENT[:size])
    server = TutorialServer(root, **SERVERS[kind])
    done = run(server, "put", "--first-block", "0", "file", "{url}/stored")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (root / "stored").read_bytes() == CONTENT[:size]


@pytest.mark.parametrize(
    ("option", "count"), [((), 3), (("--no-options",), 1)], ids=["by default", "--no-options"]
)
def test_a_request_without_options_is_sent_at_once_or_after_two_with_options(
    run, root, option, count
):
    (root / "file").write_bytes(CONTENT)
    server = TutorialServer(root)
    done = run(server, "get", "-v", *option, "{url}/file")
    assert done.returncode == 0
    assert [datagram[-7:] == b"\0octet\0" for datagram in server.requests] == (
        [False] * (count - 1) + [True]
    )
    assert (b"request repeated without options" in done.stdout) == (count > 1)


def test_names_in_gb2312_are_sent_and_printed(run, root, tmp_path):
    name = "说明.txt"
    (root / name).write_bytes(CONTENT)
    server = TutorialServer(root, first_upload_block=1)
    gb2312 = ("--encoding", "gb2312", "--no-options")
    done = run(server, "get", *gb2312, f"{{url}}/{name}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().startswith(f"{name}: 6000 bytes")
    assert (tmp_path / name).read_bytes() == CONTENT
    done = run(server, "put", *gb2312, name, "{url}/王诚.jpg")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (root / "王诚.jpg").read_bytes() == CONTENT
