"""What the daemon and a process that renders tell each other, over a socket.

Down: jobs, as JSON. Up: that it is ready; then, for each job, the octets of the
file or why there are none. Each message has its kind and its length before it.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from tftpd.access.policy import Grant, ReadPolicy, Symlinks
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused

_HEADER = struct.Struct("!BI")  # kind, octets that follow

_LONGEST_WHY = 1000  # characters


class MessageKind(IntEnum):
    """What a message is."""

    JOB = 1
    READY = 2
    FILE = 3  # its octets are the file
    REFUSED = 4
    LAST = 5  # refused, and this process has to end


class InvalidMessage(Exception):
    """The other side said what nobody of ours says."""


@dataclass(frozen=True, slots=True)
class RenderJob:
    """A template, what it is told, and the most that may come of it.

    It may take so many seconds; who renders sees to it that it ends a little
    later even if nobody ends it.
    """

    grant: Grant[ReadPolicy]
    facts: Mapping[str, Any]
    size: int
    seconds: float

    def encode(self) -> bytes:
        """Octets for `decode()`."""
        grant = self.grant
        plain = {
            "root": str(grant.root),
            "name": [step.decode("latin-1") for step in grant.name],
            "symlinks": grant.symlinks,
            "own": grant.own,
            "world_readable": grant.policy.world_readable,
            "facts": dict(self.facts),
            "size": self.size,
            "seconds": self.seconds,
        }
        return json.dumps(plain).encode()  # ASCII, octets that are not UTF-8 too

    @staticmethod
    def decode(octets: bytes) -> "RenderJob":
        """What `encode()` made the octets of."""
        said = json.loads(octets)
        grant = Grant(
            Path(said["root"]),
            tuple(step.encode("latin-1") for step in said["name"]),
            ReadPolicy(world_readable=said["world_readable"]),
            Symlinks(said["symlinks"]),
            said["own"],
        )
        return RenderJob(grant, said["facts"], said["size"], said["seconds"])


def framed(kind: MessageKind, body: bytes = b"") -> bytes:
    """A message."""
    return _HEADER.pack(kind, len(body)) + body


def refusal(refused: RequestRefused, last: bool = False) -> bytes:
    """A message that says why there is no file; after the `last` comes no other."""
    body = json.dumps([refused.code, line(refused.reason), refused.text]).encode()
    return framed(MessageKind.LAST if last else MessageKind.REFUSED, body)


def refused_by(body: bytes) -> RequestRefused:
    """The refusal that a message is about.

    Its text is one of ours and its reason a line, whatever was said; raises `Garbled`.
    """
    try:
        code, why, text = json.loads(body)
        code = ErrorCode(code)
        reason = ErrorText(text) if code is ErrorCode.NOT_DEFINED else None
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidMessage from error
    if not isinstance(why, str):
        raise InvalidMessage
    return RequestRefused(code, line(why), reason)


def line(text: str, longest: int = _LONGEST_WHY) -> str:
    """So many characters of `text`, and all of them to be seen: a log has it as one line."""
    text = text[:longest]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)[:longest]


def receive(take: Callable[[int], bytes], longest: int) -> tuple[MessageKind, bytes]:
    """The next message; `take` gives exactly so many octets.

    Raises `Garbled` for what is none, or has more than `longest` octets.
    """
    kind, length = _HEADER.unpack(take(_HEADER.size))
    if kind not in list(MessageKind) or length > longest:
        raise InvalidMessage
    return MessageKind(kind), take(length)
