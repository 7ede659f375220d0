"""Datagrams as lines of text and back, independent of the codec under test.

    RRQ pxelinux.0 octet tsize=0 blksize=1408      ACK 0
    RRQ boot.lif octet, padded to 516              DATA 3
    OACK tsize=26140 blksize=1408                  ERROR 8 User aborted the transfer

Bytes that are not text are escaped as in Python: `\\xff`, `\\\\`.
"""

import re
import struct

REQUESTS = ("RRQ", "WRQ")
_NAMES = {1: "RRQ", 2: "WRQ", 3: "DATA", 4: "ACK", 5: "ERROR", 6: "OACK"}
_OPCODES = {name: number for number, name in _NAMES.items()}
_PADDED = re.compile(r"(.*), padded to (\d+)")


def strings(datagram: bytes) -> list[bytes]:
    """Return the NUL-terminated strings of a request or an OACK."""
    return datagram[2:].rstrip(b"\0").split(b"\0") if len(datagram) > 2 else []


def opcode(datagram: bytes) -> str:
    """Return the name of the packet type, as in `to_text()`."""
    return _NAMES[int.from_bytes(datagram[:2], "big")]


def number(datagram: bytes) -> int:
    """Return the block number, or the code of an ERROR."""
    return int.from_bytes(datagram[2:4], "big")


def block(kind: str, index: int, payload: bytes = b"") -> bytes:
    """Return a DATA or an ACK, or an ERROR with its text as the payload."""
    return struct.pack("!HH", _OPCODES[kind], index) + payload


def options(datagram: bytes) -> dict[str, str]:
    """Return the options of a request or an OACK, in their order."""
    words = [word.decode("latin-1") for word in datagram[2:].split(b"\0")[:-1]]
    if opcode(datagram) in REQUESTS:
        words = words[2:]
    return dict(zip(words[::2], words[1::2], strict=False))


def to_text(datagram: bytes) -> str:
    """Return the line for a datagram."""
    kind = opcode(datagram)
    if kind in ("DATA", "ACK"):
        padding = f", padded to {len(datagram)}" if kind == "ACK" and len(datagram) > 4 else ""
        return f"{kind} {number(datagram)}{padding}"
    if kind == "ERROR":
        return f"ERROR {number(datagram)} {datagram[4:].rstrip(bytes(1)).decode()}"
    pairs = [f"{name}={value}" for name, value in options(datagram).items() if name]
    if kind == "OACK":
        return " ".join([kind, *pairs])
    name, mode = datagram[2:].split(b"\0")[:2]
    padding = f", padded to {len(datagram)}" if datagram.endswith(bytes(2)) and not pairs else ""
    return " ".join([kind, _escaped(name), mode.decode(), *pairs]) + padding


def from_text(line: str) -> bytes:
    """Return the datagram for a line; DATA is not supported."""
    padded = _PADDED.fullmatch(line)
    if padded:
        return from_text(padded[1]).ljust(int(padded[2]), b"\0")
    kind, *rest = line.split(" ")
    if kind == "ACK":
        return block(kind, int(rest[0]))
    if kind == "ERROR":
        return block(kind, int(rest[0]), " ".join(rest[1:]).encode() + b"\0")
    words = [part.encode() for option in rest[2:] for part in option.split("=", 1)]
    name = rest[0].encode().decode("unicode_escape").encode("latin-1")
    body = b"".join(word + b"\0" for word in [name, rest[1].encode(), *words])
    return struct.pack("!H", _OPCODES[kind]) + body


def _escaped(name: bytes) -> str:
    return name.decode("latin-1").encode("unicode_escape").decode()
