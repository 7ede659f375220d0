"""Data in memory that is read like a file."""

import pytest

from tftpd.protocol.errors import RequestRefused
from tftpd.storage.block_ring import BlockRing, NetasciiBlockRing
from tftpd.storage.source import FileLike, MemorySource
from tftpd.storage.walk import open_file


def _read(source: FileLike, offset: int, *lengths: int) -> tuple[int, list[bytes]]:
    rooms = [bytearray(length) for length in lengths]
    got = source.read([memoryview(room) for room in rooms], offset, blocking=False)
    return got, [bytes(room) for room in rooms]


def test_buffers_are_filled_in_order_from_an_offset():
    source = MemorySource(b"0123456789")
    assert source.size == 10
    assert _read(source, 3, 2, 3) == (5, [b"34", b"567"])


def test_buffers_after_the_end_of_the_data_stay_empty():
    assert _read(MemorySource(b"0123456789"), 7, 2, 2, 2) == (3, [b"78", b"9\0", b"\0\0"])


@pytest.mark.parametrize("offset", [3, 4])
def test_reading_at_or_after_the_end_is_refused(offset):
    with pytest.raises(RequestRefused):
        _read(MemorySource(b"012"), offset, 2)


def test_the_other_methods_have_no_effect():
    source = MemorySource(b"012")
    source.set_noatime()
    assert not source.is_touched()
    source.close()
    source.close()
    assert _read(source, 0, 3) == (3, [b"012"])


@pytest.mark.parametrize("kind", [BlockRing, NetasciiBlockRing])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 160, 1000])
def test_a_memory_source_gives_the_same_datagrams_as_a_file(reading, root, kind, size):
    data = bytes(index * 7 % 256 for index in range(size))
    (root / "file").write_bytes(data)
    there = open_file(reading("file"))
    assert list(_datagrams(kind(there, 16, 4, 0))) == list(
        _datagrams(kind(MemorySource(data), 16, 4, 0))
    )
    there.close()


def _datagrams(frames: BlockRing):
    block = 0
    while frames.last_block_size is None:
        frames.fill(4, blocking=True)
        while block < frames.ready:
            block += 1
            yield [bytes(part) for part in frames.datagrams(block, 1) if part]
