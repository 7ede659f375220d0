"""Datagrams as a line of text and back, by another codec than the one under test.

    RRQ pxelinux.0 octet tsize=0 blksize=1408      ACK 0
    RRQ boot.lif octet, padded to 516              DATA 3
    OACK tsize=26140 blksize=1408                  ERROR 8 User aborted the transfer

Octets that are no text are written as Python does: `\\xff`, `\\\\`.
"""

import re
import struct

REQUESTS = ("RRQ", "WRQ")
_WORDS = {1: "RRQ", 2: "WRQ", 3: "DATA", 4: "ACK", 5: "ERROR", 6: "OACK"}
_NUMBERS = {word: number for number, word in _WORDS.items()}
_PADDED = re.compile(r"(.*), padded to (\d+)")


def words(datagram: bytes) -> list[bytes]:
    """The strings of a request or an OACK, each ended by a NUL."""
    return datagram[2:].rstrip(b"\0").split(b"\0") if len(datagram) > 2 else []


def opcode(datagram: bytes) -> str:
    """Its name, as in `written()`."""
    return _WORDS[int.from_bytes(datagram[:2], "big")]


def number(datagram: bytes) -> int:
    """That of the block, or of the ERROR."""
    return int.from_bytes(datagram[2:4], "big")


def block(kind: str, index: int, payload: bytes = b"") -> bytes:
    """DATA or ACK; an ERROR has its text for a payload."""
    return struct.pack("!HH", _NUMBERS[kind], index) + payload


def options(datagram: bytes) -> dict[str, str]:
    """Return the options of a request or an OACK, in their order."""
    strings = [word.decode("latin-1") for word in datagram[2:].split(b"\0")[:-1]]
    if opcode(datagram) in REQUESTS:
        strings = strings[2:]
    return dict(zip(strings[::2], strings[1::2], strict=False))


def written(datagram: bytes) -> str:
    """A datagram as a line."""
    kind = opcode(datagram)
    if kind in ("DATA", "ACK"):
        padding = f", padded to {len(datagram)}" if kind == "ACK" and len(datagram) > 4 else ""
        return f"{kind} {number(datagram)}{padding}"
    if kind == "ERROR":
        return f"ERROR {number(datagram)} {datagram[4:].rstrip(bytes(1)).decode()}"
    said = [f"{name}={value}" for name, value in options(datagram).items() if name]
    if kind == "OACK":
        return " ".join([kind, *said])
    name, mode = datagram[2:].split(b"\0")[:2]
    padding = f", padded to {len(datagram)}" if datagram.endswith(bytes(2)) and not said else ""
    return " ".join([kind, _escaped(name), mode.decode(), *said]) + padding


def octets(line: str) -> bytes:
    """The datagram of a line that no DATA is on."""
    padded = _PADDED.fullmatch(line)
    if padded:
        return octets(padded[1]).ljust(int(padded[2]), b"\0")
    kind, *rest = line.split(" ")
    if kind == "ACK":
        return block(kind, int(rest[0]))
    if kind == "ERROR":
        return block(kind, int(rest[0]), " ".join(rest[1:]).encode() + b"\0")
    strings = [part.encode() for option in rest[2:] for part in option.split("=", 1)]
    name = rest[0].encode().decode("unicode_escape").encode("latin-1")
    said = b"".join(word + b"\0" for word in [name, rest[1].encode(), *strings])
    return struct.pack("!H", _NUMBERS[kind]) + said


def _escaped(name: bytes) -> str:
    return name.decode("latin-1").encode("unicode_escape").decode()
