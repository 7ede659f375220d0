"""A template process that an attacker may control: whatever it sends is a file or a refusal."""

import io
import json
import socket
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.access.policy import Grant, ReadPolicy
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.templates.process import RenderProcess
from tftpd.templates.protocol import (
    InvalidMessage,
    MessageKind,
    RenderJob,
    decode_refusal,
    encode_message,
    receive_message,
)

MAX_REFUSAL_BYTES = 64 << 10
ERROR_TEXTS = {*(code.text for code in ErrorCode), *ErrorText}
JSON = st.lists(
    st.sampled_from(
        [
            *(b"[", b"]", b"[0, ", b'"why"', b", "),
            *(b'"File could not be generated"', b"null", b"99"),
            *(b'[0, "a\\nb", "File could not be generated"]', b"{", b"}", b":"),
            b'[1, "\\ud800", ""]',
            *(b"[" * 1100, b'[0, "' + b"a" * 1100 + b'", "Internal error"]', b"9" * 5000),
        ]
    ),
    max_size=6,
).map(b"".join)
REFUSALS = st.builds(
    lambda code, reason, text: json.dumps([code, reason, text]).encode(),
    st.integers(-1, 9),
    st.text(st.characters()) | st.just("a" * 1100),
    st.sampled_from(["", "File could not be generated", "Internal error", "anything"]),
)
HEADERS = st.tuples(st.integers(0, 7).map(lambda kind: bytes([kind])), st.binary(max_size=4))
MESSAGES = st.lists(
    st.builds(
        encode_message, st.sampled_from(MessageKind), REFUSALS | JSON | st.binary(max_size=100)
    )
    | st.binary(max_size=40)
    | st.tuples(HEADERS.map(b"".join), JSON).map(b"".join),
    max_size=5,
).map(b"".join)


class _HostileProcess(RenderProcess):
    """A process that has sent these bytes, reads nothing, and has ended with this status."""

    def __init__(self, data, status):
        self._process = SimpleNamespace(
            poll=lambda: status, wait=lambda timeout: status, kill=lambda: None
        )
        self._socket, self.other_end = socket.socketpair()
        self.other_end.sendall(data)
        self.other_end.shutdown(socket.SHUT_WR)
        self.works = False


def _next_message(stream, max_size):
    """Return the next message of a stream; no kind if it is cut short or invalid."""

    def take(size):
        data = stream.read(size)
        if len(data) < size:
            raise EOFError
        return data

    try:
        return receive_message(take, max_size)
    except (EOFError, InvalidMessage):
        return None, b""


def _is_refusal(body):
    try:
        decode_refusal(body)
    except InvalidMessage:
        return False
    return True


def _check_refused(refused):
    assert refused.text in ERROR_TEXTS
    assert refused.code == ErrorCode.NOT_DEFINED or refused.text == refused.code.text
    assert refused.reason.isprintable()
    assert len(refused.reason) <= 1000


@given(
    st.booleans().map(lambda ready: encode_message(MessageKind.READY) if ready else b""),
    MESSAGES,
    st.sampled_from([0, 1, -9, -64, -200]),
    st.sampled_from([0, 1, 100, 1 << 16]),
)
def test_any_bytes_of_a_process_give_a_file_or_a_refusal_within_the_limit(
    ready, messages, status, size
):
    expected = io.BytesIO(ready + messages)
    job = RenderJob(Grant(Path("/srv"), (b"t.j2",), ReadPolicy()), {}, size, 5.0)
    process = _HostileProcess(ready + messages, status)
    with closing(process), closing(process.other_end):
        kind, body = _next_message(expected, MAX_REFUSAL_BYTES)
        try:
            process.begin()
            assert kind is MessageKind.READY
        except RequestRefused as refused:
            _check_refused(refused)
            assert not process.works
        while process.works:
            kind, body = _next_message(expected, max(size, MAX_REFUSAL_BYTES))
            try:
                assert (MessageKind.FILE, process.render(job)) == (kind, body)
                assert len(body) <= size
            except RequestRefused as refused:
                _check_refused(refused)
                assert process.works == (kind is MessageKind.REFUSED and _is_refusal(body))
        unread = b"".join(iter(lambda: process._socket.recv(1 << 20), b""))
    assert unread == expected.read()


@pytest.mark.parametrize(
    "body",
    [
        b'[0, "a\\nb", "File could not be generated"]',
        b'[1, "\\ud800", ""]',
        b'[0, "' + b"a" * 1100 + b'", "Internal error"]',
        b"[" * 1100,
    ],
    ids=["two lines", "a lone surrogate", "a long line", "nested too deep"],
)
def test_a_refusal_of_a_hostile_process_has_a_short_printable_reason(body):
    data = encode_message(MessageKind.READY) + encode_message(MessageKind.REFUSED, body)
    job = RenderJob(Grant(Path("/srv"), (b"t.j2",), ReadPolicy()), {}, 100, 5.0)
    process = _HostileProcess(data, 0)
    with closing(process), closing(process.other_end):
        process.begin()
        with pytest.raises(RequestRefused) as refused:
            process.render(job)
    _check_refused(refused.value)
