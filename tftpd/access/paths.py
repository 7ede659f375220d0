"""Requested file names as components of a path.

File names are bytes. RFC 1350 section 5 says netascii, but clients send whatever their
firmware has, and POSIX file systems have no encoding either.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tftpd.protocol.errors import ErrorCode, RequestRefused

Name = tuple[bytes, ...]
"""Path components below a root. No component is empty, `.`, `..` or contains a slash."""

TEMPORARY = b".tftpd-upload-"
"""Prefix of the names of unfinished uploads. No client can read or write such names."""

VERSIONS = b".versions"
"""Directory below a root with the replaced files. No client can read or write below it."""

TEMPLATE = b".j2"
"""Suffix of the names of templates. Templates are never served unrendered."""

SELF = b"."
PARENT = b".."

MAX_NAME_BYTES = 4096  # PATH_MAX on Linux

# Letters and marks that Unicode tells programs not to show (Default_Ignorable_Code_Point), and
# the empty Braille pattern. `str.isprintable` accepts them.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)


@dataclass(frozen=True, slots=True)
class RequestName:
    """A name to look up, and the steps that derived it from the requested name.

    Attributes:
        name: The name.
        steps: Labels of the rewrite rules and fallbacks that were applied, in order.
        groups: Named groups that rewrite rules matched.
    """

    name: bytes
    steps: tuple[str, ...] = ()
    groups: Mapping[str, bytes] = field(default_factory=dict)

    def rewritten(
        self, name: bytes, step: str, groups: Mapping[str, bytes] | None = None
    ) -> "RequestName":
        """Return the result `name` of the step `step`, with the groups that it matched."""
        steps = self.steps if step in self.steps else (*self.steps, step)
        return RequestName(name, steps, {**self.groups, **(groups or {})})

    def annotate(self, refused: RequestRefused) -> RequestRefused:
        """Return `refused` with this name and its steps added to the reason."""
        if not self.steps:
            return refused
        name = printable_name(self.name[:MAX_NAME_BYTES])
        reason = f'{refused} ("{name}" by {", ".join(self.steps)})'
        return type(refused)(refused.code, reason, refused.text)


def decode_name(filename: bytes, encodings: Sequence[str]) -> bytes:
    """Return `filename` in UTF-8.

    Args:
        filename: A name. It is UTF-8 if it is valid UTF-8. Otherwise, each of its parts between
            slashes is decoded, and a part that no encoding decodes is not changed.
        encodings: Encodings of the parts, besides UTF-8.
    """
    try:
        return filename.decode().encode()
    except UnicodeDecodeError:
        return b"/".join(_decode_part(part, encodings) for part in filename.split(b"/"))


def _decode_part(part: bytes, encodings: Sequence[str]) -> bytes:
    """Return a part of a name in UTF-8.

    A part that is valid UTF-8 is UTF-8; otherwise the first encoding that decodes it applies. But
    many words in GB 2312 are valid UTF-8 by accident, with characters of Europe and the Near East.
    The encoding applies if only it gives a character of East Asia.
    """
    utf_8 = _decode(part, "utf-8")
    other = next(filter(None, (_decode(part, encoding) for encoding in encodings)), None)
    if other and (utf_8 is None or max(utf_8) < "\u0800" <= max(other)):
        return other.encode()
    return part


def _decode(part: bytes, encoding: str) -> str | None:
    """Return the text of `part`; None if it is not the encoding of exactly one text."""
    with suppress(UnicodeError):
        text = part.decode(encoding)
        if text.encode(encoding) == part:
            return text
    return None


def find_spellings(component: bytes, encodings: Sequence[str]) -> Sequence[bytes]:
    """Return a component in UTF-8 and its other spellings, which are decoded to it."""
    spellings = [component]
    for encoding in encodings:
        with suppress(UnicodeError):
            spelling = component.decode().encode(encoding)
            if spelling not in spellings and _decode_part(spelling, encodings) == component:
                spellings.append(spelling)
    return spellings


def split_name(filename: bytes) -> Name:
    """Split `filename` into components; `..` is kept.

    Slashes and backslashes are separators, because Windows loaders send backslashes. Empty
    components and `.` are removed, because GRUB sends a leading slash and pxelinux a double one.

    Raises:
        RequestRefused: The name is longer than MAX_NAME_BYTES.
    """
    if len(filename) > MAX_NAME_BYTES:
        raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "the name is too long")
    parts = filename.replace(b"\\", b"/").split(b"/")
    return tuple(part for part in parts if part not in (b"", SELF))


def is_reserved(component: bytes) -> bool:
    """Return True for the name of an unfinished upload, and for the directory of versions.

    Case is ignored, because FAT and similar file systems ignore it.
    """
    if component[:1] != b".":
        return False
    return component[: len(TEMPORARY)].lower() == TEMPORARY or _fold_name(component) == VERSIONS


def refuse_reserved(name: Name) -> None:
    """Raise `RequestRefused` if a component of `name` is reserved."""
    if any(map(is_reserved, name)):
        is_version = any(_fold_name(component) == VERSIONS for component in name)
        purpose = "versions of files" if is_version else "unfinished uploads"
        reason = f"the name is reserved for {purpose}"
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, reason)


def is_template(component: bytes) -> bool:
    """Return True for the name of a template."""
    return _fold_name(component).endswith(TEMPLATE)


def _fold_name(component: bytes) -> bytes:
    """Return a name in the form in which all names of one file are equal.

    Case is ignored. FAT, NTFS and SMB also ignore trailing dots and spaces, and for NTFS
    `x::$DATA` is the file `x`.
    """
    return component.partition(b":")[0].rstrip(b". ").lower()


def printable_name(filename: bytes) -> str:
    """Return `filename` for log lines and messages.

    Valid UTF-8 is kept; other bytes, quotes, backslashes and control characters are escaped, so
    that a peer cannot forge a log line.
    """
    quoted = filename.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    text = quoted.decode("utf-8", "backslashreplace")
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return "".join(c if _is_visible(c) else _escaped(c) for c in text)


def _is_visible(character: str) -> bool:
    return character.isprintable() and not _INVISIBLE.match(character)


def _escaped(character: str) -> str:
    if "\x80" <= character <= "\xff":  # the byte 0x80 is shown as \\x80 instead
        return f"\\u{ord(character):04x}"
    return character.encode("unicode_escape").decode("ascii")


def escape_control_chars(text: str, max_chars: int | None = None) -> str:
    """Return `text` as one line: characters that cannot be seen are escaped.

    Args:
        text: The text.
        max_chars: Maximum length of the result; the rest is cut off.
    """
    text = text[:max_chars]
    return "".join(c if _is_visible(c) else ascii(c)[1:-1] for c in text)[:max_chars]
