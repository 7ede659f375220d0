"""Profiles: what they are chosen by is read in bounded time, whatever an admin or client wrote."""

from fuzz.bounds import bounded
from fuzz.choices import Choices
from tftpd.access.profiles import Fingerprint, Globs, encode_options

_WORDS = ("blksize", "tsize=0", "tsize?", "blksize=512|1468?", "windowsize=*?", "a=|?", "x=y=z")
_GLOBS = ("*", "?", "*a*", "*a*a*a*a*b", "[a-z]*", "[!a]", "[z-a]", "[", "a[", "[]]", "[[a]", "\\")


def check(octets: bytes) -> None:
    """Read a fingerprint and globs, and hold requests to them."""
    choices = Choices(octets)
    words = [_text(choices, _WORDS) for _ in range(choices.number(6))]
    globs = [_text(choices, _GLOBS) for _ in range(choices.number(6))]
    options = tuple((_word(choices), _word(choices)) for _ in range(choices.number(8)))
    name = choices.rest() * (1 + choices.number(7))
    with bounded():
        _check_fingerprint(words, options)
        found = Globs(globs)
        assert found == Globs(globs)
        fits = found.matches(name)
        assert not (fits and len(name) > 4096), "no file system holds such a name"
        assert found.matches(name.replace(b"\\", b"/")) == fits, "a backslash is a slash"
        if "*" in globs and len(name) <= 4096:
            assert fits, "* is any text"


def _check_fingerprint(words: list[str], options: tuple[tuple[bytes, bytes], ...]) -> None:
    asked = encode_options(options)
    try:
        found = Fingerprint(words)
    except ValueError:
        return
    assert found.matches(asked) == _fits(words, [(n.lower(), v) for n, v in options]), (
        "read otherwise"
    )


def _fits(words: list[str], options: list[tuple[bytes, bytes]]) -> bool:
    """The same, word by word: each takes the option that comes next, if it is that one."""
    left = list(options)
    for word in words:
        bare = word.removesuffix("?")
        name, valued, values = bare.partition("=")
        known = [value.encode() for value in values.split("|")]
        if left and left[0][0] == name.encode() and (not valued or left[0][1] in known):
            del left[0]
        elif bare == word:
            return False
    return not left


def _text(choices: Choices, known: tuple[str, ...]) -> str:
    if choices.flag():
        return choices.one(known)
    return choices.octets(40).decode("utf-8", "surrogateescape")


def _word(choices: Choices) -> bytes:
    if choices.flag():
        return choices.one((b"blksize", b"tsize", b"0", b"512", b"windowsize", b"a", b""))
    return choices.octets(30).replace(b"\0", b"")
