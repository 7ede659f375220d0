"""Case-insensitive lookup of names."""

import os

import pytest

from tftpd.access.policy import Grant, ReadPolicy, Symlinks
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage import casefold
from tftpd.storage.casefold import ScanBudget, match_case_insensitive


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "Boot" / "Fonts").mkdir(parents=True)
    (tmp_path / "Boot" / "BCD").write_bytes(b"bcd")
    (tmp_path / "Boot" / "Fonts" / "wgl4_Boot.ttf").write_bytes(b"font")
    return tmp_path


def _match(root, *name, symlinks=Symlinks.INSIDE, budget=None):
    grant = Grant(root, name, ReadPolicy(), symlinks)
    return match_case_insensitive(grant, budget or ScanBudget())


def test_each_component_gets_the_spelling_of_the_directory(tree):
    found = _match(tree, b"BOOT", b"fonts", b"WGL4_boot.TTF")
    assert found == ((b"Boot", b"Fonts", b"wgl4_Boot.ttf"), 1)


def test_an_exact_match_has_priority_and_costs_no_scan(tree):
    (tree / "boot").mkdir()
    (tree / "boot" / "bcd").write_bytes(b"small")
    budget = ScanBudget()
    assert _match(tree, b"boot", b"bcd", budget=budget) == ((b"boot", b"bcd"), 1)
    assert budget == ScanBudget()


def test_the_first_match_in_byte_order_is_taken(tree):
    for name in ("file", "FILE", "File"):
        (tree / name).write_bytes(b"")
    assert _match(tree, b"fiLE") == ((b"FILE",), 3)


def test_a_missing_name_is_file_not_found(tree):
    for name in ((b"none",), (b"boot", b"none"), (b"none", b"x"), (b"boot", b"bcd", b"x")):
        with pytest.raises((RequestRefused, NotADirectoryError)) as missing:
            _match(tree, *name)
        if isinstance(missing.value, RequestRefused):
            assert missing.value.code is ErrorCode.FILE_NOT_FOUND


def test_letter_case_outside_ascii_is_ignored_too(tree):
    (tree / "Grün").write_bytes(b"")
    assert _match(tree, "GRÜN".encode()) == (("Grün".encode(),), 1)


def test_the_number_of_examined_entries_is_limited(tree, monkeypatch):
    for number in range(20):
        (tree / f"{number}").write_bytes(b"")
    budget = ScanBudget()
    with pytest.raises(RequestRefused):
        _match(tree, b"none", budget=budget)
    assert ScanBudget().entries - budget.entries == 21
    with pytest.raises(RequestRefused) as refused:
        _match(tree, b"BOOT", budget=ScanBudget(20))
    assert str(refused.value) == "too many directory entries to search"
    monkeypatch.setattr(casefold, "MAX_DIRECTORY_ENTRIES", 20)
    with pytest.raises(RequestRefused) as refused:
        _match(tree, b"BOOT")
    assert str(refused.value) == "too many directory entries to search"


def test_a_name_with_too_many_components_is_refused(tree):
    with pytest.raises(RequestRefused):
        _match(tree, *[b"x"] * (casefold.MAX_NAME_COMPONENTS + 1))


def test_the_link_policy_applies_to_case_insensitive_names(tree):
    outside = tree.parent / f"{tree.name}-outside"
    outside.mkdir()
    (outside / "Secret").write_bytes(b"secret")
    (tree / "Out").symlink_to(outside)
    (tree / "In").symlink_to("Boot")
    assert _match(tree, b"IN") == ((b"In",), 1)
    assert _match(tree, b"In", b"bcd") == ((b"In", b"BCD"), 1)
    for name in ((b"Out", b"secret"), (b"OUT", b"Secret")):
        with pytest.raises(RequestRefused) as refused:
            _match(tree, *name)
        assert refused.value.code is ErrorCode.ACCESS_VIOLATION
    found = _match(tree, b"OUT", b"SECRET", symlinks=Symlinks.FOLLOW)
    assert found == ((b"Out", b"Secret"), 1)


def test_no_descriptor_is_leaked(tree):
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    _match(tree, b"BOOT", b"bcd")
    with pytest.raises(RequestRefused):
        _match(tree, b"BOOT", b"none")
    after = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    assert len(after) == len(before)
