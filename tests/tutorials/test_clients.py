"""Clients of tutorials against the daemon."""

import os
import random

import pytest

from tests.support.daemons import daemon, free_port, until
from tests.tutorials import programs

SIZES = [0, 1, 511, 512, 513, 1024, 2500]
CONTENT = random.Random(16).randbytes(6000)


@pytest.fixture(scope="module", params=["per-session", "single-port"])
def running(request, tmp_path_factory):
    """A daemon that waits two seconds for the next packet of a client."""
    listen = [{"address": "127.0.0.1", "port": free_port(), "mode": request.param}]
    directory = tmp_path_factory.mktemp("tutorials")
    names = {"encodings": ["utf-8", "gb18030"]}  # as in conf/tftpd.yaml
    settings = {"listen": listen, "retransmit": {"idle_timeout": 2}, "names": names}
    with daemon(directory, **settings) as started:
        started.server = ("127.0.0.1", listen[0]["port"])
        yield started


def ended(running, name):
    """Return the log entry of the request for a file, when the request has ended."""
    entries = []

    def find():
        entries[:] = [entry for entry in running.transfers() if entry["file"] == name]
        return entries

    until(find)
    return entries[0]


@pytest.mark.parametrize("size", SIZES)
def test_an_upload_whose_blocks_count_from_0_is_stored_whole(running, size):
    name = f"from-0-{size}"
    programs.upload_from_block_0(running.server, name, CONTENT[:size])
    assert (running.root / name).read_bytes() == CONTENT[:size]
    entry = ended(running, name)
    assert (entry["outcome"], entry["bytes"], entry["first_block"]) == ("done", size, 0)


@pytest.mark.parametrize("size", [513, 516, 2500])
def test_an_upload_with_blocks_of_516_bytes_is_refused_with_the_reason(running, size):
    name = f"long-{size}"
    answers = programs.upload_without_last_block(running.server, name, CONTENT[:size])
    text = f"block of {min(size, 516)} bytes is longer than blksize 512"
    assert answers[1:] == [b"\0\5\0\4" + text.encode() + b"\0"]
    entry = ended(running, name)
    assert (entry["outcome"], entry["code"], entry["detail"]) == ("failed", 4, text)
    assert not (running.root / name).exists()


@pytest.mark.check
@pytest.mark.parametrize("size", [1, 512, 513, 1024])
def test_an_upload_without_an_empty_last_block_is_not_stored_if_all_blocks_are_full(running, size):
    name = f"no-end-{size}"
    programs.upload_without_last_block(running.server, name, CONTENT[:size], blksize=512)
    entry = ended(running, name)
    if size % 512:
        assert (entry["outcome"], entry["first_block"]) == ("done", 1)
        assert (running.root / name).read_bytes() == CONTENT[:size]
    else:
        # The host of the client reports that nobody receives on its port, if that arrives.
        assert entry["outcome"] in ("timed out", "aborted by peer")
        assert "the final short block is missing" in entry["detail"]
        assert not (running.root / name).exists()


@pytest.mark.check
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("download", "outcome"),
    [
        (programs.download_in_order, "done"),
        (programs.download_without_last_ack, "unconfirmed"),
    ],
)
def test_a_download_is_complete(running, download, outcome, size):
    name = f"{download.__name__}-{size}"
    (running.root / name).write_bytes(CONTENT[:size])
    assert download(running.server, name) == CONTENT[:size]
    if size == 2500:
        assert ended(running, name)["outcome"] == outcome


def test_a_missing_file_is_reported(running):
    with pytest.raises(FileNotFoundError):
        programs.download_in_order(running.server, "missing")


@pytest.mark.check
def test_a_client_that_acknowledges_block_0_only_gets_few_packets(running):
    (running.root / "never").write_bytes(CONTENT)
    assert programs.download_that_counts_from_0(running.server, "never") <= 4
    entry = ended(running, "never")
    assert (entry["outcome"], entry["detail"]) == ("timed out", "only block 0 was acknowledged")


def test_a_name_that_was_cut_is_in_the_log(running):
    (running.root / "说明.txt").write_bytes(CONTENT)
    with programs.udp_socket() as sock:
        request = programs.request_with_counted_characters(programs.RRQ, "说明.txt")
        sock.sendto(request, running.server)
        assert sock.recv(1024) == b"\0\5\0\1File not found\0"
    assert "说明.t (" in ended(running, "˵\\xc3\\xf7.t")["detail"]


@pytest.mark.parametrize("name", ["王诚.jpg", "目录/说明书.txt"])
def test_a_name_in_gb2312_is_stored_and_found_by_its_characters(running, name):
    path = running.root / name
    path.parent.mkdir(exist_ok=True)
    programs.upload_from_block_0(running.server, name, CONTENT)
    assert path.read_bytes() == CONTENT
    assert programs.download_in_order(running.server, name) == CONTENT
    path.rename(os.fsdecode(bytes(path.parent) + b"/" + path.name.encode(programs.ENCODING)))
    assert programs.download_in_order(running.server, name) == CONTENT
