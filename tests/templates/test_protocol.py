"""Messages between the daemon and its render processes."""

import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


TEXT = st.text(st.characters(), max_size=30)  # with surrogates
JOBS = st.builds(
    RenderJob,
    st.builds(
        Grant,
        st.binary(max_size=8).map(lambda name: Path("/srv/" + os.fsdecode(name))),
        st.lists(st.binary(max_size=20), max_size=4).map(tuple),
        st.booleans().map(ReadPolicy),
        st.sampled_from(Symlinks),
        st.integers(0, 4),
    ),
    st.dictionaries(
        TEXT,
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
            lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
            max_leaves=10,
        ),
        max_size=4,
    ),
    st.integers(0, 1 << 20),
    st.floats(0, 100),
)
REASONS = st.text(st.characters())
REFUSALS = st.builds(RequestRefused, st.sampled_from(list(ErrorCode)[1:]), REASONS) | st.builds(
    RequestRefused, st.just(ErrorCode.NOT_DEFINED), REASONS, st.sampled_from(ErrorText)
)


@given(JOBS, st.binary())
def test_any_job_is_received_as_it_was_sent(job, following):
    stream = io.BytesIO(encode_message(MessageKind.JOB, job.encode()) + following)
    kind, body = receive_message(stream.read, 1 << 20)
    assert (kind, RenderJob.decode(body), stream.read()) == (MessageKind.JOB, job, following)


@given(REFUSALS, st.integers(1, 99), st.booleans())
def test_any_refusal_keeps_its_code_and_text_and_its_reason_is_one_line(refused, times, last):
    refused.reason *= times
    kind, body = receive_message(io.BytesIO(encode_refusal(refused, last)).read, 64 << 10)
    received = decode_refusal(body)
    assert kind == (MessageKind.LAST if last else MessageKind.REFUSED)
    assert (received.code, received.text) == (refused.code, refused.text)
    assert received.reason.isprintable()
    assert len(received.reason) <= 1000


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
