"""Filenames as steps, and as printable text for logs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.access.paths import (
    RequestName,
    escape_control_chars,
    is_template,
    printable_name,
    split_name,
)
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused


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
def test_a_name_is_split_into_steps(filename, parts):
    assert split_name(filename) == parts


def test_a_name_longer_than_4096_bytes_is_file_not_found():
    assert len(split_name(b"a" * 4096)) == 1
    with pytest.raises(RequestRefused) as refused:
        split_name(b"a" * 4097)
    assert refused.value.code is ErrorCode.FILE_NOT_FOUND


@given(
    st.lists(st.sampled_from([b"/", b"\\", b".", b"..", b"a"])).map(b"".join)
    | st.binary(max_size=200)
)
def test_steps_are_not_empty_and_contain_no_separator(filename):
    for step in split_name(filename):
        assert step not in (b"", b".")
        assert b"/" not in step
        assert b"\\" not in step


@pytest.mark.parametrize(
    ("filename", "printed"),
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
        ("a\u3164\u1160\u034f\u2800b".encode(), "a\\u3164\\u1160\\u034f\\u2800b"),
        ("\ufe0f\U000e0100".encode(), "\\ufe0f\\U000e0100"),
        ("王辉.jpg".encode(), "王辉.jpg"),
    ],
)
def test_control_characters_and_quotes_are_escaped(filename, printed):
    assert printable_name(filename) == printed


@pytest.mark.parametrize("control", ["\u0080", "\u0085", "\u00a0", "\u00ad"], ids=ascii)
def test_a_control_character_is_printed_differently_from_an_invalid_byte(control):
    assert printable_name(control.encode()) != printable_name(control.encode("latin-1"))


@given(st.binary(max_size=100))
def test_any_name_is_printable(filename):
    assert printable_name(filename).isprintable()


def test_repeated_rules_are_listed_once_and_groups_are_kept():
    requested = RequestName(b"a", groups={"kind": b"efi"})
    rewritten = (
        requested.rewritten(b"b", "rule")
        .rewritten(b"c", "rule")
        .rewritten(b"d", "other", {"rest": b"x"})
    )
    assert rewritten == RequestName(b"d", ("rule", "other"), {"kind": b"efi", "rest": b"x"})


def test_a_refusal_adds_the_name_to_the_log_and_keeps_the_text_for_the_peer():
    refused = RequestRefused(ErrorCode.NOT_DEFINED, "errno 5", ErrorText.READ_FAILED)
    annotated = RequestName(b"b\xff", ("first", "second")).annotate(refused)
    assert (annotated.code, annotated.text) == (ErrorCode.NOT_DEFINED, "File could not be read")
    assert str(annotated) == 'errno 5 ("b\\xff" by first, second)'
    assert RequestName(b"b").annotate(refused) is refused


@pytest.mark.parametrize(
    ("name", "template"),
    [(b"a.j2", True), (b"A.J2", True), (b"a.j2. .", True), (b"a.j2::$DATA", True),
     (b"a.j2X", False), (b"a.j2XX", False), (b"a:b.j2", False), (b"a", False)],
)  # fmt: skip
def test_templates_are_recognised_in_every_spelling_that_a_file_system_accepts(name, template):
    assert is_template(name) is template


def test_the_reason_says_that_the_name_is_too_long():
    assert split_name(b"x" * 4096)
    with pytest.raises(RequestRefused, match=r"^the name is too long$"):
        split_name(b"x" * 4097)


def _read_printable(text):
    """Return the bytes of a name that was made printable."""
    data, position = bytearray(), 0
    while position < len(text):
        if text[position] != "\\":
            data += text[position].encode()
            position += 1
            continue
        kind = text[position + 1]
        digits = {"x": 2, "u": 4, "U": 8}.get(kind, 0)
        code = int(text[position + 2 : position + 2 + digits], 16) if digits else 0
        if kind == "x" and code >= 0x80:
            data.append(code)
        elif digits:
            data += chr(code).encode()
        else:
            data += {"n": b"\n", "r": b"\r", "t": b"\t"}.get(kind, kind.encode())
        position += 2 + digits
    return bytes(data)


@given(
    st.binary(max_size=100) | st.text(max_size=50).map(lambda name: name.encode("utf-8", "replace"))
)
def test_different_names_are_printed_differently(filename):
    text = printable_name(filename)
    assert _read_printable(text) == filename
    assert '"' not in text.replace("\\\\", "").replace('\\"', "")
    text.encode()


def test_control_characters_are_escaped_and_the_result_is_cut():
    assert escape_control_chars("a\nb\x1b") == "a\\nb\\x1b"
    assert escape_control_chars("a\nbcd", max_chars=4) == "a\\nb"
