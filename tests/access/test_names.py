"""Filenames as steps, and as text for logs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.access.names import show, steps
from tftpd.wire.errors import ErrorCode, Refused


@pytest.mark.parametrize(
    ("filename", "parts"),
    [
        (b"file", (b"file",)),
        (b"/grub/grub.cfg", (b"grub", b"grub.cfg")),
        (b"boot//pxelinux.cfg///default", (b"boot", b"pxelinux.cfg", b"default")),
        (b"\\Boot\\BCD", (b"Boot", b"BCD")),
        (b"./a/./b/.", (b"a", b"b")),
        (b"a/../b", (b"a", b"..", b"b")),
        (b"...", (b"...",)),
        (b"", ()),
        (b"///", ()),
        (b"\xff\xfe", (b"\xff\xfe",)),
        (b"a b", (b"a b",)),
    ],
)
def test_steps(filename, parts):
    assert steps(filename) == parts


def test_a_name_that_no_file_system_holds_is_not_found():
    assert len(steps(b"a" * 4096)) == 1
    with pytest.raises(Refused) as refused:
        steps(b"a" * 4097)
    assert refused.value.code is ErrorCode.FILE_NOT_FOUND


@given(st.binary(max_size=200))
def test_steps_are_clean(filename):
    for step in steps(filename):
        assert step not in (b"", b".")
        assert b"/" not in step
        assert b"\\" not in step


@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        (b"boot/vmlinuz", "boot/vmlinuz"),
        ("grün".encode(), "grün"),
        (b"a\nb", "a\\nb"),
        (b"\x1b[2J", "\\x1b[2J"),
        (b'a"b', 'a\\"b'),
        (b"a\\b", "a\\\\b"),
        (b"\xff", "\\xff"),
        ("\u202egpj.exe".encode(), "\\u202egpj.exe"),
        ("\u2028".encode(), "\\u2028"),
    ],
)
def test_names_are_shown_on_one_line_and_unforged(filename, shown):
    assert show(filename) == shown


@pytest.mark.parametrize("control", ["\u0080", "\u0085", "\u00a0", "\u00ad"], ids=ascii)
def test_a_character_is_not_shown_like_an_octet_that_is_no_text(control):
    assert show(control.encode()) != show(control.encode("latin-1"))


@given(st.binary(max_size=100))
def test_whatever_the_name_its_line_is_printable(filename):
    assert show(filename).isprintable()
