"""Filenames as steps, in UTF-8, and as printable text for logs."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.access.paths import (
    RequestName,
    decode_name,
    escape_control_chars,
    find_spellings,
    is_template,
    printable_name,
    split_name,
)
from tftpd.config.names import Encoding
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


CHINESE = ("gb18030", "latin-1")
MOJIBAKE = "中文".encode().decode("gb18030")  # its bytes in GB 18030 are valid UTF-8


@pytest.mark.parametrize(
    ("filename", "encodings", "decoded"),
    [
        (b"boot/x", CHINESE, "boot/x"),
        ("启动/王.cfg".encode(), CHINESE, "启动/王.cfg"),
        ("启动/王.cfg".encode("gb2312"), CHINESE, "启动/王.cfg"),
        ("启动/".encode("gb2312") + "王.cfg".encode(), CHINESE, "启动/王.cfg"),
        ("\\启动\\誠".encode("gbk"), CHINESE, "\\启动\\誠"),  # the last byte is a backslash
        (b"\xe4/\xff", CHINESE, "ä/ÿ"),  # incomplete in GB 18030
        (MOJIBAKE.encode("gb18030"), CHINESE, "中文"),
        ("目录/文件".encode("gb18030"), CHINESE, "目录/文件"),  # the first part is valid UTF-8
        ("目录".encode("gb18030"), CHINESE, "Ŀ¼"),
        ("grün/".encode() + b"\xe4", ("latin-1",), "grün/ä"),
        ("目录/".encode("gb18030") + b"\xff", ("gb18030",), None),
        ("中".encode("big5"), ("big5", "gb18030"), "中"),
        (b"\x8a", ("iso-8859-15",), "\x8a"),
        ("王.cfg".encode("gb2312"), ("latin-1", "gb18030"), "Íõ.cfg"),
        (b"", CHINESE, ""),
    ],
)
def test_a_name_is_decoded_by_the_first_encoding_that_can(filename, encodings, decoded):
    expected = "目录/".encode() + b"\xff" if decoded is None else decoded.encode()
    assert decode_name(filename, encodings) == expected
    assert decode_name(expected, encodings) == expected


@pytest.mark.parametrize(
    ("filename", "encodings"),
    [
        (b"\xff/\xe4\xff", ("gb18030",)),
        (b"\xe4", ()),
        (b"\xfa\x5c", ("shift_jis",)),  # not part of JIS X 0208
    ],
)
def test_a_name_that_no_encoding_decodes_is_unchanged(filename, encodings):
    assert decode_name(filename, encodings) == filename


@pytest.mark.parametrize(
    ("component", "encodings", "others"),
    [
        (b"file", CHINESE, []),
        ("王".encode(), CHINESE, ["王".encode("gb2312")]),
        ("ä".encode(), CHINESE, ["ä".encode("gb18030"), b"\xe4"]),
        ("ä".encode(), ("latin-1", "iso-8859-15"), [b"\xe4"]),
        ("王".encode(), ("latin-1",), []),
        (MOJIBAKE.encode(), CHINESE, []),
        ("目录".encode(), CHINESE, ["目录".encode("gb18030")]),  # valid UTF-8
        (b"", CHINESE, []),
        (b"\xff", CHINESE, []),
    ],
)
def test_the_spellings_of_a_component_are_found(component, encodings, others):
    assert find_spellings(component, encodings) == [component, *others]


@pytest.mark.parametrize("encoding", get_args(Encoding))
def test_no_encoding_adds_or_hides_an_ascii_character(encoding):
    """The policies see the decoded name, and the kernel gets its spellings."""
    for number in (*range(0x500), *range(0x501, 0xD800, 7), *range(0xE000, 0x11000, 7)):
        character = chr(number).encode()
        for spelling in find_spellings(character, [encoding]):
            assert (b"/" in spelling, b"\0" in spelling) == (number == ord("/"), number == 0)
    for first in range(0x80, 0x100):
        for second in range(0x100):
            name = bytes((first, second))
            decoded = decode_name(name, [encoding])
            assert decoded == name or not decoded.isascii()


@given(st.lists(st.sampled_from([b"/", b"\\", b".", b"\xd5", b"\x81", b"5"])).map(b"".join))
def test_a_decoded_name_is_not_decoded_again(filename):
    decoded = decode_name(filename, CHINESE)
    assert decode_name(decoded, CHINESE) == decoded
    assert decoded.count(b"/") == filename.count(b"/")


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
