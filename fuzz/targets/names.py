"""Names: no name leaves its directory, forges a line of the log, or has us try without end."""

from ipaddress import IPv4Address
from pathlib import Path

from fuzz.bounds import bounded
from fuzz.choices import Choices
from tftpd.access.client import Client
from tftpd.access.fallbacks import MAX_CANDIDATES, Fallback, FallbackChain
from tftpd.access.mounts import SERIALS, Mount, Mounts, parse_root, parse_serials, single_root
from tftpd.access.paths import MAX_NAME_BYTES, TEMPORARY, Name, printable_name, split_name
from tftpd.access.policy import ReadPolicy, WritePolicy
from tftpd.access.rewrite import NameRules
from tftpd.protocol.errors import RequestRefused

_CLIENT = Client(IPv4Address("192.0.2.7"))
_NUMBERS = parse_serials(SERIALS)
_PREFIXES: tuple[Name, ...] = ((), (b"in",), (b"in", b"deep"), (b"Boot",), (b"boot", b"x86"))
_ENCODINGS = ("utf-8", "latin-1", "gbk", "gb18030", "shift_jis", "big5", "euc_kr", "cp437")


def check(octets: bytes) -> None:
    """Read one name by mounts and a ladder that the first octets choose."""
    choices = Choices(octets)
    rungs = tuple(rung for rung in Fallback if choices.flag())
    encodings = tuple(name for name in _ENCODINGS if choices.flag())
    ladder = FallbackChain(rungs, encodings, ((b"boot",), (b"tftpboot",), (b"in", b"deep")))
    prefixes = [prefix for prefix in _PREFIXES if not choices.flag()]
    numbered = choices.flag()
    mounts = Mounts(
        [_mount(prefix, numbered) for prefix in prefixes],
        NameRules(fallbacks=ladder),
    )
    filename = choices.one((1, 1, 1, 1, 1, 40)) * choices.rest()
    with bounded():
        _check_steps(filename)
        _check_shown(filename)
        _check_located(mounts, filename)
        _check_ladder(mounts, filename)


def _mount(prefix: Name, numbered: bool) -> Mount:
    """One with roots of a client's own, if `numbered`, by the number before its names."""
    path = "/".join(("/srv", *(step.decode() for step in prefix)))
    own = (parse_root(f"{path}/{{serial}}"), parse_root(f"{path}/{{ip_hex}}/{{mac}}"))
    roots = (*own, *single_root(Path(path))) if numbered else single_root(Path(path))
    numbers = _NUMBERS if numbered else None
    return Mount(prefix, roots, ReadPolicy(), WritePolicy(), serials=numbers)


def _check_steps(filename: bytes) -> None:
    try:
        found = split_name(filename)
    except RequestRefused:
        assert len(filename) > MAX_NAME_BYTES, "a name of this length is one"
        return
    for step in found:
        assert step not in (b"", b"."), "an empty step"
        assert not set(step) & set(b"/\\"), f"{step!r} is more than one step"
    assert split_name(b"/".join(found)) == found, "the steps are another name"


def _check_shown(filename: bytes) -> None:
    shown = printable_name(filename)
    assert shown.isprintable(), f"{shown!r} has control characters"
    shown.encode()  # no half characters
    plain = shown.replace("\\\\", "").replace('\\"', "")
    assert '"' not in plain, f"{shown!r} ends before its end"
    assert _read_back(shown) == filename, f"{shown!r} is shown for another name too"


def _read_back(shown: str) -> bytes:
    """The octets that were shown."""
    made, at = bytearray(), 0
    while at < len(shown):
        if shown[at] != "\\":
            made += shown[at].encode()
            at += 1
            continue
        kind = shown[at + 1]
        size = {"x": 2, "u": 4, "U": 8}.get(kind, 0)
        number = int(shown[at + 2 : at + 2 + size], 16) if size else 0
        if kind == "x" and number >= 0x80:
            made.append(number)
        elif size:
            made += chr(number).encode()
        else:
            made += {"n": b"\n", "r": b"\r", "t": b"\t"}.get(kind, kind.encode())
        at += 2 + size
    return bytes(made)


def _check_located(mounts: Mounts, filename: bytes) -> None:
    try:
        mount, name = mounts.locate(filename)
    except RequestRefused:
        return
    assert not set(name) & {b"..", b".", b""}, f"{name!r} leads elsewhere"
    assert not any(b"/" in step for step in name), f"{name!r} has a slash within a step"
    walked = _walked(filename)
    assert walked is not None, "it goes above all names"
    assert (*mount.prefix, *name) == walked, f"{walked!r} is found at {mount.prefix + name!r}"
    longest = max((m for m in mounts if walked[: len(m.prefix)] == m.prefix), key=_depth)
    assert mount is longest, "a longer prefix decides"
    for path, own, rest in mount.roots_for(name, _CLIENT):
        assert path.parts[:2] == ("/", "srv"), f"{path} is no root"
        for step in own:
            assert step not in (b"", b".", b".."), f"{own!r} leads elsewhere"
            assert b"/" not in step, f"{own!r} has a slash within a step"
        assert rest in (name, name[1:]), f"{rest!r} is no end of {name!r}"
    if any(step.startswith(TEMPORARY) for step in name):
        for ask in (mounts.authorize_read, mounts.authorize_write):
            try:
                ask(filename, _CLIENT)
            except RequestRefused:
                continue
            raise AssertionError("an unfinished upload is granted")


def _depth(mount: Mount) -> int:
    return len(mount.prefix)


def _walked(filename: bytes) -> Name | None:
    """Where a name leads by its letters alone; None where that is above all."""
    walked: list[bytes] = []
    for step in filename.replace(b"\\", b"/").split(b"/"):
        if step == b"..":
            if not walked:
                return None
            walked.pop()
        elif step not in (b"", b"."):
            walked.append(step)
    return tuple(walked)


def _check_ladder(mounts: Mounts, filename: bytes) -> None:
    known = [(filename, False)]
    for candidate in mounts.candidates(filename):
        assert (candidate.name, candidate.ignores_case) not in known, "it is tried twice"
        known.append((candidate.name, candidate.ignores_case))
        assert candidate.name, "nothing is tried"
        assert candidate.fallbacks, "it has climbed nothing"
        assert set(candidate.fallbacks) <= set(mounts.fallbacks), "by a rung that is not there"
        _check_located(mounts, candidate.name)
        if len(candidate.name) <= MAX_NAME_BYTES:
            _check_located(mounts, mounts.normalize_prefix(candidate.name))
    assert len(known) <= 1 + MAX_CANDIDATES, "too many names"
