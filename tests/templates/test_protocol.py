"""What the daemon and its processes tell each other."""

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


def test_a_job_is_what_it_was():
    grant = Grant(
        Path("/srv/\udcff"), (b"a", b"\xff\xfe", "é".encode()), ReadPolicy(True), Symlinks.DENY, 1
    )
    variables = {"name": "\udcff\ud800é\n", "variables": {"a": [1, 2.5, None, True, {"b": "c"}]}}
    job = RenderJob(grant, variables, 1024, 0.5)
    assert RenderJob.decode(job.encode()) == job


def test_messages_come_one_after_another():
    taken = io.BytesIO(encode_message(MessageKind.READY) + encode_message(MessageKind.FILE, b"abc"))
    assert receive_message(taken.read, 3) == (MessageKind.READY, b"")
    assert receive_message(taken.read, 3) == (MessageKind.FILE, b"abc")


@pytest.mark.parametrize(
    "message", [encode_message(MessageKind.FILE, b"abcd"), b"\xff\0\0\0\0", b"\0" * 5]
)
def test_what_is_too_long_or_unknown_is_garbled(message):
    with pytest.raises(InvalidMessage):
        receive_message(io.BytesIO(message).read, 3)


def test_a_refusal_is_what_it_was():
    for refused in (
        RequestRefused(ErrorCode.FILE_NOT_FOUND, "é"),
        RequestRefused(ErrorCode.NOT_DEFINED, "why", ErrorText.TEMPLATE_FAILED),
    ):
        message = io.BytesIO(encode_refusal(refused))
        kind, body = receive_message(message.read, 1 << 10)
        said = decode_refusal(body)
        assert (kind, said.code, said.reason, said.text) == (
            MessageKind.REFUSED,
            refused.code,
            refused.reason,
            refused.text,
        )


@pytest.mark.parametrize(
    "said",
    [
        *([0, "why", "any text"], [99, "why", ""], [0, "why"], 5, {}, [[], "", ""]),
        *([1, 5, ""], [1, ["why"], ""], [1, None, ""]),
    ],
)
def test_a_refusal_has_no_text_but_ours(said):
    with pytest.raises(InvalidMessage):
        decode_refusal(json.dumps(said).encode())
    with pytest.raises(InvalidMessage):
        decode_refusal(b"\xff")


def test_a_refusal_that_is_nested_without_end_is_garbled():
    with pytest.raises(InvalidMessage):
        decode_refusal(b"[" * 60000)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("a\nb\r\x1b[31m", "a\\nb\\r\\x1b[31m"),
        ("é\udcff\ud800", "é\\udcff\\ud800"),
        ("a" * 60000, "a" * 1000),
        ("\n" * 1000, "\\n" * 500),
    ],
)
def test_the_reason_of_a_refusal_is_a_line_whoever_wrote_it(said, told):
    body = json.dumps([1, said, ""]).encode()
    assert decode_refusal(body).reason == told
    _, body = receive_message(
        io.BytesIO(encode_refusal(RequestRefused(ErrorCode.FILE_NOT_FOUND, said))).read, 1 << 16
    )
    assert decode_refusal(body).reason == told


def test_the_text_of_a_code_is_that_of_the_code():
    assert decode_refusal(b'[1, "why", "any text"]').text == ErrorCode.FILE_NOT_FOUND.text
