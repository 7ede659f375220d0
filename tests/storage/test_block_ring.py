"""Datagrams of a file: complete, numbered, and never a mixture of two files."""

import errno
import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.programs import needs_linux
from tftpd.access.policy import Grant, ReadPolicy
from tftpd.protocol import netascii
from tftpd.protocol.block_numbers import BlockNumbering
from tftpd.protocol.errors import ErrorText, RequestRefused
from tftpd.protocol.negotiation import Direction, Mode, OptionLimits, negotiate
from tftpd.protocol.packets import Data, decode
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer
from tftpd.protocol.sender import Sender
from tftpd.storage import block_ring
from tftpd.storage import source as source_module
from tftpd.storage.block_ring import BlockRing, NetasciiBlockRing
from tftpd.storage.walk import open_file


class Reader:
    """Fills a block ring and takes the blocks as soon as they are read."""

    def __init__(self, ring):
        self.ring = ring
        self.taken = 0

    def take(self, count, blocking):
        """Return the payloads of at most `count` blocks, and whether the file has ended."""
        got = self.ring.fill(count, blocking)
        assert got <= count
        packets = self._packets(self.taken + 1, got)
        self.taken += got
        assert self.ring.ready == self.taken
        return [packet.payload for packet in packets], self.ring.last_block_size is not None

    def _packets(self, first, count):
        size = self.ring.size
        runs = self.ring.datagrams(first, count) if count else ()
        packets = [
            decode(bytes(run[at : at + size])) for run in runs for at in range(0, len(run), size)
        ]
        numbering = self.ring._numbering
        wires = [numbering.to_wire(index) for index in range(first, first + count)]
        assert [packet.block for packet in packets] == wires
        return packets


@pytest.fixture
def opened(root, reading):
    """Open a file with the given content as a block ring; the test closes it."""
    sources = []

    def open_ring(content, blksize=512, slots=130, rollover=0, kind=BlockRing, first_block=1):
        (root / "data").write_bytes(content)
        source = open_file(reading("data"))
        sources.append(source)
        return Reader(kind(source, blksize, slots, rollover, first_block))

    yield open_ring
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
def test_a_file_is_split_into_full_blocks_and_a_shorter_last_block(opened, size, count, slots):
    content = os.urandom(size)
    blocks = _all(opened(content, 8, slots), count)
    assert b"".join(blocks) == content
    assert {len(block) for block in blocks[:-1]} <= {8}
    assert len(blocks[-1]) == size % 8


@pytest.mark.parametrize("first_block", [0, 1])
@pytest.mark.parametrize("rollover", [0, 1])
def test_block_numbers_roll_over_after_65535(opened, rollover, first_block):
    content = b"x" * 8 * 140_000
    blocks = _all(opened(content, 8, 3000, rollover, first_block=first_block), 3000)
    assert len(blocks) == 140_001


@pytest.mark.parametrize("kind", [BlockRing, NetasciiBlockRing])
def test_the_first_block_may_have_the_number_0(opened, kind):
    ring = opened(b"12345678abc", 8, kind=kind, first_block=0).ring
    ring.fill(2, blocking=True)
    assert bytes(ring.datagrams(1, 2)[0]) == (
        Data(0, b"12345678").encode() + Data(1, b"abc").encode()
    )


@pytest.mark.parametrize("rollover", [0, 1])
def test_bytes_of_many_block_numbers_equal_those_of_single_numbers(rollover):
    numbering = BlockNumbering(rollover)
    for first in (1, 65_000, 65_535, 65_536, 131_070, 131_071):
        for count in (1, 2, 700, 65_535):
            high, low = numbering.to_bytes(first, count)
            numbers = [256 * upper + lower for upper, lower in zip(high, low, strict=True)]
            assert numbers == [numbering.to_wire(index) for index in range(first, first + count)]


def test_blocks_that_are_not_acknowledged_stay_in_the_ring(opened):
    ring = opened(bytes(range(64)), 8, slots=4).ring
    ring.fill(4, blocking=True)
    ring.fill(2, blocking=True)  # over blocks 1 and 2
    runs = [bytes(run) for run in ring.datagrams(3, 4)]
    expected = [Data(n, bytes(range(8 * n - 8, 8 * n))).encode() for n in range(3, 7)]
    assert runs == [b"".join(expected[:2]), b"".join(expected[2:])]


def test_a_small_file_takes_a_small_ring(opened):
    reader = opened(b"x" * 20, 8, slots=1000)
    _all(reader, 100)
    assert len(reader.ring.buffer) == 3 * 12


@pytest.mark.parametrize("blksize", [8, 256, 512, 1468, 65464])
def test_the_largest_window_takes_at_most_four_times_its_limit_of_bytes(opened, blksize):
    limits = OptionLimits(windowsize=65535)
    requested = ((b"blksize", b"%d" % blksize), (b"windowsize", b"65535"))
    options = negotiate(requested, limits, Mode.OCTET, Direction.READ)
    sender = Sender(options, RetransmitTimer(RetransmitPolicy()), 0.0)
    ring = opened(bytes(8 << 20), options.blksize, sender.buffer_blocks).ring
    tracemalloc.start()
    try:
        while ring.ready < min(sender.buffer_blocks, (8 << 20) // blksize):
            ring.fill(sender.buffer_blocks - ring.ready, blocking=True)
        n_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    factor = 2.5 if blksize >= 1024 else 4
    assert n_bytes <= factor * limits.window_bytes


@needs_linux
@pytest.mark.parametrize("blksize", [8, 512, 1468, 65464])
def test_files_in_the_page_cache_never_block(opened, blksize):
    content = os.urandom(300_000)
    assert b"".join(_all(opened(content, blksize), 3, blocking=False)) == content


@given(
    st.binary(max_size=3000).map(lambda text: text.replace(b"\x01", b"\r\n")),
    st.integers(1, 9),
)
def test_netascii_is_split_into_blocks_after_translation(tmp_path_factory, content, count):
    root = tmp_path_factory.getbasetemp()
    (root / "text").write_bytes(content)
    source = open_file(Grant(root, (b"text",), ReadPolicy()))
    try:
        blocks = _all(Reader(NetasciiBlockRing(source, 8, 10, 0)), count)
    finally:
        source.close()
    assert b"".join(blocks) == netascii.encode_netascii(content)
    assert {len(block) for block in blocks[:-1]} <= {8}
    assert len(blocks[-1]) < 8


def _overwrite(path, offset, data):
    """Write into the file; its size does not shrink, and its mtime is a new one."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    os.utime(path, ns=(1, 1))


CHANGES = {
    "truncated": lambda path: os.truncate(path, 90_000),
    "emptied": lambda path: os.truncate(path, 0),
    "one byte that was sent": lambda path: _overwrite(path, 100, b"y"),
    "other bytes": lambda path: _overwrite(path, 0, b"y" * 100_000),
    "other bytes, and more": lambda path: _overwrite(path, 0, b"y" * 200_000),
}
HARMLESS = {
    "touched": lambda path: os.utime(path, ns=(1, 1)),
    "appended to": lambda path: _overwrite(path, 100_000, b"y" * 1000),
    "written with the same bytes": lambda path: _overwrite(path, 0, b"x" * 100_000),
}


@pytest.mark.parametrize("kind", [BlockRing, NetasciiBlockRing])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_is_refused(root, opened, change, kind):
    blocks = opened(b"x" * 100_000, 512, kind=kind)
    blocks.take(1, blocking=True)
    CHANGES[change](root / "data")
    with pytest.raises(RequestRefused) as refused:
        _all(blocks)
    assert (refused.value.code, refused.value.text) == (0, ErrorText.FILE_CHANGED)


@pytest.mark.parametrize("slots", [1, 3, 130])
@pytest.mark.parametrize("kind", [BlockRing, NetasciiBlockRing])
@pytest.mark.parametrize("change", HARMLESS)
def test_a_file_with_the_same_bytes_is_served_with_its_first_size(
    root, opened, change, kind, slots
):
    blocks = opened(b"x" * 100_000, 512, slots, kind=kind)
    blocks.take(1, blocking=True)
    HARMLESS[change](root / "data")
    assert len(b"".join(_all(blocks, 1))) == 100_000 - 512


@needs_linux
@pytest.mark.parametrize("kind", [BlockRing, NetasciiBlockRing])
def test_a_touched_file_is_read_again_in_blocking_mode_only(root, opened, kind):
    blocks = opened(b"x" * 40_000, 512, kind=kind)
    blocks.take(1, blocking=False)
    os.utime(root / "data", ns=(1, 1))
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            _all(blocks, 100, blocking=False)
    _all(blocks, 100, blocking=True)
    assert (blocks.taken, blocks.ring.last_block_size) == (79, 40_000 % 512)


def test_a_file_that_shrinks_while_it_is_read_again_is_refused(root, opened, monkeypatch):
    blocks = opened(b"x" * 30_000, 512)
    blocks.take(58, blocking=True)
    os.utime(root / "data", ns=(1, 1))
    read = os.preadv

    def truncate(fd, buffers, offset, *flags):
        if offset == 0:  # the whole file again
            os.truncate(root / "data", 0)
        return read(fd, buffers, offset, *flags)

    monkeypatch.setattr(os, "preadv", truncate)
    with pytest.raises(RequestRefused, match="changed"):
        blocks.take(1, blocking=True)


@pytest.mark.parametrize(("count", "is_served"), [(1, True), (24, True), (300, False)])
def test_a_large_file_that_is_read_fast_has_no_checksum(
    root, opened, monkeypatch, count, is_served
):
    """Beyond the first bytes, large reads are those of large windows."""
    monkeypatch.setattr(block_ring, "_CHECKED_BYTES", 100_000)
    blocks = opened(b"x" * 1_000_000, 1468, slots=1000)
    blocks.take(count, blocking=True)
    os.utime(root / "data", ns=(1, 1))
    if is_served:
        assert b"".join(_all(blocks, count)) == b"x" * (1_000_000 - count * 1468)
        return
    with pytest.raises(RequestRefused, match="changed"):
        _all(blocks, count)


def test_a_file_replaced_by_rename_is_served_to_its_end(root, opened):
    blocks = opened(b"x" * 100_000, 512)
    blocks.take(1, blocking=True)
    (root / "new").write_bytes(b"y")
    (root / "new").rename(root / "data")
    assert len(b"".join(_all(blocks))) == 100_000 - 512


def test_a_cold_page_is_read_only_in_blocking_mode(opened, monkeypatch):
    blocks = opened(b"abcdefgh" * 3, 8, 4)
    _patch_nonblocking_reads(monkeypatch, BlockingIOError(errno.EAGAIN, "cold"))
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            blocks.take(2, blocking=False)
    assert blocks.take(2, blocking=True) == ([b"abcdefgh"] * 2, False)
    assert blocks.take(2, blocking=True) == ([b"abcdefgh", b""], True)


def _patch_nonblocking_reads(monkeypatch, answer):
    """Make every nonblocking read return `answer`."""
    waiting = os.preadv

    def preadv(fd, room, offset, *how):
        if not how:
            return waiting(fd, room, offset)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(os, "preadv", preadv)


@pytest.mark.parametrize("answer", [0, OSError(errno.EINVAL, "no"), OSError(errno.EIO, "no")])
def test_a_nonblocking_read_without_data_is_repeated_in_blocking_mode(opened, monkeypatch, answer):
    blocks = opened(b"abcdefgh", 8)
    _patch_nonblocking_reads(monkeypatch, answer)
    with pytest.raises(BlockingIOError):
        blocks.take(2, blocking=False)
    assert blocks.take(2, blocking=True) == ([b"abcdefgh", b""], True)


def test_all_reads_block_without_preadv2(opened, monkeypatch):
    monkeypatch.setattr(source_module, "_NOWAIT", None)
    blocks = opened(b"abc", 8)
    with pytest.raises(BlockingIOError):
        blocks.take(1, blocking=False)
    assert blocks.take(1, blocking=True) == ([b"abc"], True)


@needs_linux
def test_a_partly_cold_range_gives_its_cached_blocks(opened, monkeypatch):
    warm = os.preadv
    blocks = opened(bytes(range(256)) * 400, 512)
    monkeypatch.setattr(
        os,
        "preadv",
        lambda fd, into, at, how: warm(fd, [into[0], *(each[:188] for each in into[1:2])], at, how),
    )
    assert b"".join(_all(blocks, 4, blocking=False)) == bytes(range(256)) * 400


@needs_linux
def test_a_file_system_without_nowait_reads_is_tried_once(opened, monkeypatch):
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


def test_a_read_error_is_reported_without_its_details(opened, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "/dev/sda1 is broken")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(RequestRefused) as refused:
        opened(b"abc").take(1, blocking=True)
    assert (refused.value.code, refused.value.text) == (0, ErrorText.READ_FAILED)
