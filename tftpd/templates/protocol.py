"""Messages between the daemon and a render process, over a socket.

The daemon sends jobs, pickled. The process reports that it is ready, and then sends for each job
the file, or the reason why there is none as JSON: the daemon does not trust the process. A header
with kind and length precedes each message.
"""

import json
import pickle
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from tftpd.access.paths import escape_control_chars
from tftpd.access.policy import Grant, ReadPolicy
from tftpd.protocol.errors import ErrorCode, ErrorText, HostFault, RequestRefused

_HEADER = struct.Struct("!BI")  # kind, length of the body in bytes
_CHUNK_BYTES = 256 << 10  # of one recv(2)

_MAX_REASON_CHARS = 1000

MAX_TEMPLATE_BYTES = 1 << 20


class MessageKind(IntEnum):
    """Kind of a message."""

    JOB = 1
    READY = 2
    FILE = 3  # the body is the file
    REFUSED = 4
    LAST = 5  # refused, and this process must end


class InvalidMessage(Exception):
    """The other side sent a message that this protocol does not have."""


@dataclass(frozen=True, slots=True)
class RenderJob:
    """A template to render.

    Attributes:
        grant: The template, with its root and its policy.
        variables: Variables of the template, as JSON values. None: only compile it.
        max_size: Maximum size of the file in bytes.
        seconds: Time limit. A process that nobody ends exits itself a little later.
        source: The template if it is at an origin; None: the process reads it.
    """

    grant: Grant[ReadPolicy]
    variables: Mapping[str, Any] | None
    max_size: int
    seconds: float
    source: bytes | None = None

    def encode(self) -> bytes:
        """Return the body of the job's message, for `decode()`."""
        return pickle.dumps(self)

    @staticmethod
    def decode(body: bytes) -> "RenderJob":
        """Return the job of which `encode()` made `body`."""
        job: RenderJob = pickle.loads(body)
        return job


def template_failed(reason: str, kind: type[RequestRefused] = HostFault) -> RequestRefused:
    """Return the refusal, an exception of class `kind`, of a template that gives no file."""
    return kind(ErrorCode.NOT_DEFINED, reason, ErrorText.TEMPLATE_FAILED)


def check_template_size(size: int) -> None:
    """Raise `RequestRefused` for a template with more than 1 MiB."""
    if size > MAX_TEMPLATE_BYTES:
        raise template_failed(f"has {size} bytes, the limit is {MAX_TEMPLATE_BYTES}")


def encode_message(kind: MessageKind, body: bytes = b"") -> bytes:
    """Return a message: header and body."""
    return _HEADER.pack(kind, len(body)) + body


def encode_refusal(refused: RequestRefused, last: bool = False) -> bytes:
    """Return a message with the reason why there is no file.

    Args:
        refused: The refusal.
        last: Whether the process ends after this message.
    """
    reason = escape_control_chars(refused.reason, _MAX_REASON_CHARS)
    body = json.dumps([refused.code, reason, refused.text]).encode()
    return encode_message(MessageKind.LAST if last else MessageKind.REFUSED, body)


def decode_refusal(body: bytes) -> RequestRefused:
    """Return the refusal of a message.

    The sender is not trusted: the text is always one of `ErrorText`, and the reason is one
    printable line.

    Raises:
        InvalidMessage: The body is not a refusal.
    """
    try:
        code, reason, text = json.loads(body)
        code = ErrorCode(code)
        error_text = ErrorText(text) if code is ErrorCode.NOT_DEFINED else None
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidMessage from error
    if not isinstance(reason, str):
        raise InvalidMessage
    return HostFault(code, escape_control_chars(reason, _MAX_REASON_CHARS), error_text)


def read_exactly(channel: socket.socket, count: int, deadline: float | None = None) -> bytes:
    """Return the next `count` bytes of a socket.

    Args:
        channel: The socket.
        count: Number of bytes.
        deadline: Monotonic time at which the bytes must have arrived; None: wait for any time.

    Raises:
        OSError: The other side has closed the socket, or TimeoutError at the deadline.
    """
    data = bytearray()
    while len(data) < count:
        if deadline is not None:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            channel.settimeout(remaining)
        chunk = channel.recv(min(count - len(data), _CHUNK_BYTES))
        if not chunk:
            raise ConnectionResetError
        data += chunk
    return bytes(data)


def receive_message(
    read_exactly: Callable[[int], bytes], max_body_size: int
) -> tuple[MessageKind, bytes]:
    """Receive the next message.

    Args:
        read_exactly: Returns exactly the given number of bytes.
        max_body_size: Maximum size of the body in bytes.

    Raises:
        InvalidMessage: The kind is unknown, or the body is too large.
    """
    kind, length = _HEADER.unpack(read_exactly(_HEADER.size))
    if kind not in list(MessageKind) or length > max_body_size:
        raise InvalidMessage
    return MessageKind(kind), read_exactly(length)
