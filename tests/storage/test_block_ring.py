"""The datagrams of a file: whole, numbered, and never a mixture."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.access.policy import Grant, ReadPolicy
from tftpd.protocol import netascii
from tftpd.protocol.block_numbers import BlockNumbering
from tftpd.protocol.errors import ErrorText, RequestRefused
from tftpd.protocol.packets import Data, decode
from tftpd.storage import source as source_module
from tftpd.storage.block_ring import BlockRing, NetasciiBlockRing
from tftpd.storage.source import FileSource


class Reader:
    """Has frames filled and takes them as fast as they come."""

    def __init__(self, frames):
        self.frames = frames
        self.taken = 0

    def take(self, count, blocking):
        """The payloads of the next blocks, at most `count`, and whether they end the file."""
        got = self.frames.fill(count, blocking)
        assert got <= count
        packets = self._packets(self.taken + 1, got)
        self.taken += got
        assert self.frames.ready == self.taken
        return [packet.payload for packet in packets], self.frames.last_block_size is not None

    def _packets(self, first, count):
        size = self.frames.size
        runs = self.frames.datagrams(first, count) if count else ()
        packets = [
            decode(bytes(run[at : at + size])) for run in runs for at in range(0, len(run), size)
        ]
        numbering = self.frames._numbering
        wires = [numbering.to_wire(index) for index in range(first, first + count)]
        assert [packet.block for packet in packets] == wires
        return packets


@pytest.fixture
def opened(root, reading):
    """Opens a file with some content as frames; all are closed after the test."""
    sources = []

    def frames(content, blksize=512, slots=130, rollover=0, kind=BlockRing):
        (root / "data").write_bytes(content)
        source = FileSource.open(reading("data"))
        sources.append(source)
        return Reader(kind(source, blksize, slots, rollover))

    yield frames
    for source in sources:
        source.close()


def _all(blocks, count=1, blocking=True):
    taken, eof = [], False
    while not eof:
        some, eof = blocks.take(count, blocking)
        taken += some
    return taken


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 100_000, 32768, 32760])
@pytest.mark.parametrize("count", [1, 2, 64])
@pytest.mark.parametrize("slots", [64, 65, 130])
def test_a_file_is_cut_into_whole_blocks_and_a_shorter_last_one(opened, size, count, slots):
    content = os.urandom(size)
    blocks = _all(opened(content, 8, slots), count)
    assert b"".join(blocks) == content
    assert {len(block) for block in blocks[:-1]} <= {8}
    assert len(blocks[-1]) == size % 8


@pytest.mark.parametrize("rollover", [0, 1])
def test_numbers_go_on_after_65535(opened, rollover):
    blocks = _all(opened(b"x" * 8 * 140_000, 8, 3000, rollover), 3000)
    assert len(blocks) == 140_001


@pytest.mark.parametrize("rollover", [0, 1])
def test_the_octets_of_numbers_are_those_of_each(rollover):
    numbering = BlockNumbering(rollover)
    for first in (1, 65_000, 65_535, 65_536, 131_070, 131_071):
        for count in (1, 2, 700, 65_535):
            high, low = numbering.to_bytes(first, count)
            numbers = [256 * upper + lower for upper, lower in zip(high, low, strict=True)]
            assert numbers == [numbering.to_wire(index) for index in range(first, first + count)]


def test_what_is_not_acknowledged_stays_in_the_ring(opened):
    frames = opened(bytes(range(64)), 8, slots=4).frames
    frames.fill(4, blocking=True)
    frames.fill(2, blocking=True)  # over blocks 1 and 2
    runs = [bytes(run) for run in frames.datagrams(3, 4)]
    expected = [Data(n, bytes(range(8 * n - 8, 8 * n))).encode() for n in range(3, 7)]
    assert runs == [b"".join(expected[:2]), b"".join(expected[2:])]


def test_a_small_file_takes_a_small_ring(opened):
    reader = opened(b"x" * 20, 8, slots=1000)
    _all(reader, 100)
    assert len(reader.frames._ring) == 3 * 12


@pytest.mark.parametrize("blksize", [8, 512, 1468, 65464])
def test_cached_files_never_wait(opened, blksize):
    content = os.urandom(300_000)
    assert b"".join(_all(opened(content, blksize), 3, blocking=False)) == content


@given(
    st.binary(max_size=3000).map(lambda text: text.replace(b"\x01", b"\r\n")),
    st.integers(1, 9),
)
def test_netascii_is_cut_after_translation(tmp_path_factory, content, count):
    root = tmp_path_factory.getbasetemp()
    (root / "text").write_bytes(content)
    source = FileSource.open(Grant(root, (b"text",), ReadPolicy()))
    try:
        blocks = _all(Reader(NetasciiBlockRing(source, 8, 10, 0)), count)
    finally:
        source.close()
    assert b"".join(blocks) == netascii.encode(content)
    assert {len(block) for block in blocks[:-1]} <= {8}
    assert len(blocks[-1]) < 8


@pytest.mark.parametrize("change", ["truncated", "rewritten", "appended to", "emptied"])
def test_a_file_that_changes_is_not_passed_off_as_whole(root, opened, change):
    blocks = opened(b"x" * 100_000, 512)
    blocks.take(1, blocking=True)
    data = root / "data"
    match change:
        case "truncated":
            os.truncate(data, 90_000)
        case "rewritten":
            with data.open("r+b") as file:
                file.write(b"y")
            os.utime(data, ns=(1, 1))
        case "appended to":
            with data.open("ab") as file:
                file.write(b"y")
        case "emptied":
            os.truncate(data, 0)
    with pytest.raises(RequestRefused) as refused:
        _all(blocks)
    assert (refused.value.code, refused.value.text) == (0, ErrorText.FILE_CHANGED)


def test_a_file_that_is_replaced_by_rename_is_served_to_its_end(root, opened):
    blocks = opened(b"x" * 100_000, 512)
    blocks.take(1, blocking=True)
    (root / "new").write_bytes(b"y")
    (root / "new").rename(root / "data")
    assert len(b"".join(_all(blocks))) == 100_000 - 512


def test_a_cold_page_takes_nothing_and_is_read_when_waited_for(opened, monkeypatch):
    blocks = opened(b"abcdefgh" * 3, 8, 4)
    _answer_at_once(monkeypatch, BlockingIOError(errno.EAGAIN, "cold"))
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            blocks.take(2, blocking=False)
    assert blocks.take(2, blocking=True) == ([b"abcdefgh"] * 2, False)
    assert blocks.take(2, blocking=True) == ([b"abcdefgh", b""], True)


def _answer_at_once(monkeypatch, answer):
    """What the kernel says to a read that must not wait."""
    waiting = os.preadv

    def preadv(fd, room, offset, *how):
        if not how:
            return waiting(fd, room, offset)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(os, "preadv", preadv)


@pytest.mark.parametrize("answer", [0, OSError(errno.EINVAL, "no"), OSError(errno.EIO, "no")])
def test_an_answer_without_octets_is_left_to_the_read_that_waits(opened, monkeypatch, answer):
    blocks = opened(b"abcdefgh", 8)
    _answer_at_once(monkeypatch, answer)
    with pytest.raises(BlockingIOError):
        blocks.take(2, blocking=False)
    assert blocks.take(2, blocking=True) == ([b"abcdefgh", b""], True)


def test_where_nothing_tells_of_cold_pages_all_reads_wait(opened, monkeypatch):
    monkeypatch.setattr(source_module, "_NOWAIT", None)
    monkeypatch.delattr(os, "preadv")
    blocks = opened(b"abc", 8)
    with pytest.raises(BlockingIOError):
        blocks.take(1, blocking=False)
    assert blocks.take(1, blocking=True) == ([b"abc"], True)


def test_a_page_that_is_partly_cold_gives_what_is_warm(opened, monkeypatch):
    warm = os.preadv
    blocks = opened(bytes(range(256)) * 400, 512)
    monkeypatch.setattr(
        os,
        "preadv",
        lambda fd, into, at, how: warm(fd, [into[0], *(each[:188] for each in into[1:2])], at, how),
    )
    assert b"".join(_all(blocks, 4, blocking=False)) == bytes(range(256)) * 400


def test_a_file_system_that_cannot_tell_is_asked_once(opened, monkeypatch):
    asked = []

    def unknown(*arguments):
        asked.append(arguments)
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "preadv", unknown)
    blocks = opened(b"abcdefgh", 8)
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            blocks.take(1, blocking=False)
    assert len(asked) == 1


def test_a_disk_that_fails_is_told_without_its_error(opened, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "/dev/sda1 is broken")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(RequestRefused) as refused:
        opened(b"abc").take(1, blocking=True)
    assert (refused.value.code, refused.value.text) == (0, ErrorText.READ_FAILED)
