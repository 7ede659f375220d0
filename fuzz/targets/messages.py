"""What the daemon and a process that renders tell each other, where one of them is not ours."""

import socket
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from fuzz.bounds import bounded
from fuzz.choices import Choices
from tftpd.access.policy import Grant, ReadPolicy, Symlinks
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.templates.process import RenderProcess
from tftpd.templates.protocol import (
    InvalidMessage,
    MessageKind,
    RenderJob,
    decode_refusal,
    encode_message,
    encode_refusal,
    receive_message,
)

_HEADER = 5  # octets
_LONGEST = 64 << 10  # octets that are heard of what is no file
_TEXTS = (*(code.text for code in ErrorCode), *ErrorText)
_PIECES = (
    *(b"[", b"]", b"[0, ", b'"why"', b", ", b'"File could not be made"', b"null", b"true", b"99"),
    *(b'[0, "a\\nb", "File could not be made"]', b'[1, "\\ud800", ""]', b"{", b"}", b":", b"1e999"),
    *(b"[" * 1100, b'[0, "' + b"a" * 1100 + b'", "Internal error"]', b"9" * 5000, b"\xff\xfe"),
)
_SIZES = (0, 1, 100, 1 << 16)


class _Gone:
    """A process that has ended."""

    def __init__(self, status: int) -> None:
        self._status = status

    def poll(self) -> int:
        """How it has."""
        return self._status

    def wait(self, seconds: float) -> int:
        """The same."""
        return self._status

    def kill(self) -> None:
        """It has."""


class _Hostile(RenderProcess):
    """One that has said this, ready or not, and then ended with `status`."""

    def __init__(self, says: bytes, status: int) -> None:
        self._process = _Gone(status)  # type: ignore[assignment]
        self._socket, self.theirs = socket.socketpair()
        self.theirs.sendall(says)
        self.theirs.shutdown(socket.SHUT_WR)
        self.works = True

    def left(self) -> bytes:
        """What of it was not heard."""
        self._socket.setblocking(False)
        octets = b""
        with suppress(OSError):
            while more := self._socket.recv(1 << 20):
                octets += more
        return octets


def check(octets: bytes) -> None:
    """Hear a process that says anything, or have one hear a job and the daemon a refusal."""
    choices = Choices(octets)
    with bounded():
        match choices.number(3):
            case 0 | 1:
                _check_answers(choices)
            case 2:
                _check_job(choices)
            case _:
                _check_refusal(choices)


def _check_answers(choices: Choices) -> None:
    """A file of the size that is allowed, or a refusal; and no octet more than the message has."""
    status, size = choices.one((0, 1, -9, -64, -200)), choices.one(_SIZES)
    says = b"".join(_said(choices) for _ in range(1 + choices.number(4)))
    job = RenderJob(Grant(Path("/srv"), (b"t.j2",), ReadPolicy()), {}, size, 5.0)
    hostile = _Hostile(says, status)
    with closing(hostile), closing(hostile.theirs):
        heard, most = _heard(says, _LONGEST)
        try:
            hostile.begin()
            assert heard is not None, "it has said nothing"
            assert heard[0] is MessageKind.READY, "it is not ready"
        except RequestRefused as refused:
            _check_line(refused)
            assert not hostile.works, "it works"
        while hostile.works:
            says = says[most:]
            heard, most = _heard(says, max(size, _LONGEST))
            _check_answer(hostile, job, heard)
        assert hostile.left() == says[most:], "it hears more than there is, or less"


def _check_answer(
    hostile: _Hostile, job: RenderJob, heard: tuple[MessageKind, bytes] | None
) -> None:
    try:
        file = hostile.render(job)
    except RequestRefused as refused:
        _check_line(refused)
        works = heard is not None and heard[0] is MessageKind.REFUSED and _is_refusal(heard[1])
        assert hostile.works == works, "it works on"
        return
    assert heard == (MessageKind.FILE, file), "another file"
    assert len(file) <= job.max_size, f"{len(file)} octets"
    assert hostile.works, "it is to end"


def _check_line(refused: RequestRefused) -> None:
    assert refused.text in _TEXTS, f"{refused.text!r} is no text of ours"
    assert refused.code == ErrorCode.NOT_DEFINED or refused.text == refused.code.text
    assert refused.reason.isprintable(), f"{refused.reason!r} is more than a line"
    assert len(refused.reason) <= 1000, "a long line"


def _heard(says: bytes, longest: int) -> tuple[tuple[MessageKind, bytes] | None, int]:
    """The first message of what was said, None where there is none, and the octets read for it."""
    kind, length = says[0] if says else 0, int.from_bytes(says[1:_HEADER], "big")
    if len(says) >= _HEADER and (not 1 <= kind <= len(MessageKind) or length > longest):
        return None, _HEADER
    if len(says) < _HEADER + length or len(says) < _HEADER:
        return None, len(says)
    return (MessageKind(kind), says[_HEADER : _HEADER + length]), _HEADER + length


def _is_refusal(body: bytes) -> bool:
    try:
        decode_refusal(body)
    except InvalidMessage:
        return False
    return True


def _said(choices: Choices) -> bytes:
    """A message, or something like it."""
    kind = choices.one((*MessageKind, MessageKind.READY, MessageKind.READY))
    body = b"".join(choices.one(_PIECES) for _ in range(choices.number(6)))
    match choices.number(5):
        case 0:
            return choices.octets(40)
        case 1:
            return encode_message(kind, choices.octets(40))
        case 2:
            return bytes((choices.number(255), *choices.octets(4))) + body
        case 3:
            return encode_message(kind)
        case _:
            return encode_message(kind, body)


def _check_job(choices: Choices) -> None:
    """What the daemon wants is what the process is told; and not an octet beyond is taken."""
    policy = ReadPolicy(world_readable=choices.flag())
    name = tuple(choices.octets(20) for _ in range(choices.number(4)))
    root = Path("/srv/" + choices.octets(8).decode("utf-8", "surrogateescape"))
    grant = Grant(root, name, policy, choices.one(tuple(Symlinks)), choices.number(4))
    variables = {_text(choices): _value(choices, 0) for _ in range(choices.number(4))}
    job = RenderJob(grant, variables, choices.number(1 << 20), choices.number(255) / 8)
    stream = BytesIO(encode_message(MessageKind.JOB, job.encode()) + choices.rest())
    kind, body = receive_message(stream.read, 1 << 20)
    assert (kind, RenderJob.decode(body)) == (MessageKind.JOB, job), "another job"


def _check_refusal(choices: Choices) -> None:
    """A refusal comes as it was, but that its reason is a line."""
    code = choices.one(tuple(ErrorCode))
    text = choices.one(tuple(ErrorText)) if code is ErrorCode.NOT_DEFINED else None
    refused = RequestRefused(code, _text(choices) * choices.number(99), text)
    kind, body = receive_message(BytesIO(encode_refusal(refused, choices.flag())).read, _LONGEST)
    assert kind in (MessageKind.REFUSED, MessageKind.LAST)
    told = decode_refusal(body)
    _check_line(told)
    assert (told.code, told.text) == (refused.code, refused.text), "another refusal"


def _value(choices: Choices, depth: int) -> Any:
    match choices.number(7 if depth < 4 else 4):
        case 0:
            return choices.one((None, True, False))
        case 1:
            return choices.number(1 << 40) - (1 << 20)
        case 2:
            return choices.one((0.5, -1e300, float("inf")))
        case 3 | 4:
            return _text(choices)
        case 5:
            return [_value(choices, depth + 1) for _ in range(choices.number(3))]
        case _:
            return {_text(choices): _value(choices, depth + 1) for _ in range(choices.number(3))}


def _text(choices: Choices) -> str:
    return choices.octets(30).decode("utf-8", choices.one(("surrogateescape", "replace")))
