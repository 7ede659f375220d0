"""Messages between the daemon and its render processes."""

import io
import json
from pathlib import Path

import pytest

from tftpd.access.policy import Grant, ReadPolicy, Symlinks
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.templates.protocol import (
    InvalidMessage,
    MessageKind,
    RenderJob,
    decode_refusal,
    encode_message,
    encode_refusal,
    receive_message,
)


def test_a_job_survives_encoding():
    grant = Grant(
        Path("/srv/\udcff"), (b"a", b"\xff\xfe", "é".encode()), ReadPolicy(True), Symlinks.DENY, 1
    )
    variables = {"name": "\udcff\ud800é\n", "variables": {"a": [1, 2.5, None, True, {"b": "c"}]}}
    job = RenderJob(grant, variables, 1024, 0.5)
    assert RenderJob.decode(job.encode()) == job


def test_messages_are_received_in_order():
    taken = io.BytesIO(encode_message(MessageKind.READY) + encode_message(MessageKind.FILE, b"abc"))
    assert receive_message(taken.read, 3) == (MessageKind.READY, b"")
    assert receive_message(taken.read, 3) == (MessageKind.FILE, b"abc")


@pytest.mark.parametrize(
    "message", [encode_message(MessageKind.FILE, b"abcd"), b"\xff\0\0\0\0", b"\0" * 5]
)
def test_a_message_that_is_too_long_or_unknown_is_invalid(message):
    with pytest.raises(InvalidMessage):
        receive_message(io.BytesIO(message).read, 3)


def test_a_refusal_survives_encoding():
    for refused in (
        RequestRefused(ErrorCode.FILE_NOT_FOUND, "é"),
        RequestRefused(ErrorCode.NOT_DEFINED, "why", ErrorText.TEMPLATE_FAILED),
    ):
        message = io.BytesIO(encode_refusal(refused))
        kind, body = receive_message(message.read, 1 << 10)
        sent = decode_refusal(body)
        assert (kind, sent.code, sent.reason, sent.text) == (
            MessageKind.REFUSED,
            refused.code,
            refused.reason,
            refused.text,
        )


@pytest.mark.parametrize(
    "body",
    [
        *([0, "why", "any text"], [99, "why", ""], [0, "why"], 5, {}, [[], "", ""]),
        *([1, 5, ""], [1, ["why"], ""], [1, None, ""]),
    ],
)
def test_a_refusal_with_another_text_is_invalid(body):
    with pytest.raises(InvalidMessage):
        decode_refusal(json.dumps(body).encode())
    with pytest.raises(InvalidMessage):
        decode_refusal(b"\xff")


def test_a_deeply_nested_refusal_is_invalid():
    with pytest.raises(InvalidMessage):
        decode_refusal(b"[" * 60000)


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ("a\nb\r\x1b[31m", "a\\nb\\r\\x1b[31m"),
        ("é\udcff\ud800", "é\\udcff\\ud800"),
        ("a" * 60000, "a" * 1000),
        ("\n" * 1000, "\\n" * 500),
    ],
)
def test_the_reason_of_a_refusal_is_one_printable_line(sent, received):
    body = json.dumps([1, sent, ""]).encode()
    assert decode_refusal(body).reason == received
    _, body = receive_message(
        io.BytesIO(encode_refusal(RequestRefused(ErrorCode.FILE_NOT_FOUND, sent))).read, 1 << 16
    )
    assert decode_refusal(body).reason == received


def test_the_text_of_a_standard_code_is_fixed():
    assert decode_refusal(b'[1, "why", "any text"]').text == ErrorCode.FILE_NOT_FOUND.text
