"""Names that differ from those in a directory in case only."""

import os

import pytest

from tftpd.access.policy import Symlinks
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage import casefold
from tftpd.storage.casefold import ScanBudget, match_case_insensitive


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "Boot" / "Fonts").mkdir(parents=True)
    (tmp_path / "Boot" / "BCD").write_bytes(b"bcd")
    (tmp_path / "Boot" / "Fonts" / "wgl4_Boot.ttf").write_bytes(b"font")
    return tmp_path


def _spelled(root, *name, symlinks=Symlinks.INSIDE, room=None):
    return match_case_insensitive(root, name, symlinks, room or ScanBudget())


def test_each_step_is_spelled_as_the_directory_has_it(tree):
    found = _spelled(tree, b"BOOT", b"fonts", b"WGL4_boot.TTF")
    assert (found.name, found.choices) == ((b"Boot", b"Fonts", b"wgl4_Boot.ttf"), 1)


def test_what_is_there_is_taken_as_it_is(tree):
    (tree / "boot").mkdir()
    (tree / "boot" / "bcd").write_bytes(b"small")
    room = ScanBudget()
    assert _spelled(tree, b"boot", b"bcd", room=room).name == (b"boot", b"bcd")
    assert room == ScanBudget()


def test_of_several_the_first_in_the_order_of_octets_is_taken(tree):
    for name in ("file", "FILE", "File"):
        (tree / name).write_bytes(b"")
    assert _spelled(tree, b"fiLE") == casefold.Spelling((b"FILE",), 3)


def test_what_is_not_there_is_not_found(tree):
    for name in ((b"none",), (b"boot", b"none"), (b"none", b"x"), (b"boot", b"bcd", b"x")):
        with pytest.raises((RequestRefused, NotADirectoryError)) as missing:
            _spelled(tree, *name)
        if isinstance(missing.value, RequestRefused):
            assert missing.value.code is ErrorCode.FILE_NOT_FOUND


def test_letters_beyond_ascii_have_cases_too(tree):
    (tree / "Grün").write_bytes(b"")
    assert _spelled(tree, "GRÜN".encode()).name == ("Grün".encode(),)


def test_no_more_entries_are_looked_at_than_there_is_room_for(tree, monkeypatch):
    for number in range(20):
        (tree / f"{number}").write_bytes(b"")
    room = ScanBudget()
    with pytest.raises(RequestRefused):
        _spelled(tree, b"none", room=room)
    assert ScanBudget().entries - room.entries == 21
    with pytest.raises(RequestRefused) as refused:
        _spelled(tree, b"BOOT", room=ScanBudget(20))
    assert str(refused.value) == "too many directory entries to search"
    monkeypatch.setattr(casefold, "MAX_DIRECTORY_ENTRIES", 20)
    with pytest.raises(RequestRefused) as refused:
        _spelled(tree, b"BOOT")
    assert str(refused.value) == "too many directory entries to search"


def test_a_name_of_too_many_steps_is_not_looked_for(tree):
    with pytest.raises(RequestRefused):
        _spelled(tree, *[b"x"] * (casefold.MAX_NAME_STEPS + 1))


def test_links_lead_no_farther_than_without_it(tree):
    outside = tree.parent / f"{tree.name}-outside"
    outside.mkdir()
    (outside / "Secret").write_bytes(b"secret")
    (tree / "Out").symlink_to(outside)
    (tree / "In").symlink_to("Boot")
    assert _spelled(tree, b"IN").name == (b"In",)
    assert _spelled(tree, b"In", b"bcd").name == (b"In", b"BCD")
    for name in ((b"Out", b"secret"), (b"OUT", b"Secret")):
        with pytest.raises(RequestRefused) as refused:
            _spelled(tree, *name)
        assert refused.value.code is ErrorCode.ACCESS_VIOLATION
    assert _spelled(tree, b"OUT", b"SECRET", symlinks=Symlinks.FOLLOW).name == (b"Out", b"Secret")


def test_no_descriptor_is_left(tree):
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    _spelled(tree, b"BOOT", b"bcd")
    with pytest.raises(RequestRefused):
        _spelled(tree, b"BOOT", b"none")
    after = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    assert len(after) == len(before)
