"""The filename of a request as steps of a path.

Names are octets: TFTP has no encoding for them (RFC 1350 s5 says netascii,
clients send what their firmware has), and neither has a POSIX file system.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tftpd.protocol.errors import ErrorCode, RequestRefused

Name = tuple[bytes, ...]
"""Steps below a root: never empty strings, `.`, `..` or anything with a slash."""

TEMPORARY = b".tftpd-upload-"
"""How the names of unfinished uploads begin; no client can read or write them."""

TEMPLATE = b".j2"
"""How the names of templates end, which are never served as they are."""

SELF = b"."
PARENT = b".."

MAX_NAME_BYTES = 4096  # octets of a filename: PATH_MAX of Linux

NO_GROUPS: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RequestName:
    """A name to look for, and what made it of the one that was asked for, in order.

    `groups` are what rules found in it and gave a name.
    """

    name: bytes
    steps: tuple[str, ...] = ()
    groups: Mapping[str, bytes] = field(default_factory=lambda: NO_GROUPS)

    def rewritten(
        self, name: bytes, by: str, groups: Mapping[str, bytes] = NO_GROUPS
    ) -> "RequestName":
        """What `by` made of it, and found in it."""
        made = RequestName(name, self.steps if by in self.steps else (*self.steps, by), self.groups)
        return made.with_groups(groups)

    def with_groups(self, groups: Mapping[str, bytes]) -> "RequestName":
        """The same, in which these were found."""
        return RequestName(self.name, self.steps, {**self.groups, **groups}) if groups else self

    def annotate(self, refused: RequestRefused) -> RequestRefused:
        """`refused`, whose reason tells the name that it is about."""
        if not self.steps:
            return refused
        name = printable_name(self.name[:MAX_NAME_BYTES])
        why = f'{refused} ("{name}" by {", ".join(self.steps)})'
        return type(refused)(refused.code, why, refused.text)


def split_name(filename: bytes) -> Name:
    """The steps of `filename`, with `..` still among them.

    Windows loaders send backslashes, GRUB a leading slash and pxelinux a
    double one: all of them are separators, and empty steps are folded.
    Raises `Refused` for a name that no file system could hold.
    """
    if len(filename) > MAX_NAME_BYTES:
        raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "the name is too long")
    parts = filename.replace(b"\\", b"/").split(b"/")
    return tuple(part for part in parts if part not in (b"", SELF))


def is_reserved(step: bytes) -> bool:
    """Whether it is the name of an unfinished upload, in letters of any case.

    FAT and its like know no case.
    """
    return step[: len(TEMPORARY)].lower() == TEMPORARY


def is_template(step: bytes) -> bool:
    """Whether it is the name of a template, in letters of any case.

    Nor do FAT, NTFS and SMB know dots and blanks at the end, and of some
    `x::$DATA` is `x`.
    """
    return step.partition(b":")[0].rstrip(b". ").lower().endswith(TEMPLATE)


def printable_name(filename: bytes) -> str:
    """`filename` for logs: UTF-8 where it is that, every other octet escaped.

    Control characters are escaped too, so that a peer cannot forge a line.
    """
    text = filename.decode("utf-8", "surrogateescape")
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(c if c.isprintable() and c not in '"\\' else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # an octet that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    if "\x80" <= character <= "\xff":  # unlike an octet, which is shown as \\x80
        return f"\\u{ord(character):04x}"
    if character == '"':
        return '\\"'
    return character.encode("unicode_escape").decode("ascii")


def printable_text(text: str, max_chars: int | None = None) -> str:
    """Return `text` as one line: characters that are not printable are escaped.

    Args:
        text: The text.
        max_chars: Maximum length of the result; the rest is cut off.
    """
    text = text[:max_chars]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)[:max_chars]
