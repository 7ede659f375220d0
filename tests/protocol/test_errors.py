"""ERROR codes and their texts."""

import pytest

from tftpd.protocol.errors import (
    AccessDenied,
    AlreadyExists,
    DiskFull,
    ErrorCode,
    ErrorText,
    NotFound,
    Refusal,
    RequestRefused,
    ResourceExhausted,
    ServerError,
    server_error_class,
)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_each_code_has_an_ascii_text(code):
    assert code.text.isascii()
    assert code.text


def test_a_refusal_has_a_standard_text_for_the_peer_and_a_reason_for_the_log():
    refused = RequestRefused(ErrorCode.ACCESS_VIOLATION, "/etc/passwd is outside")
    assert (refused.code, refused.text) == (ErrorCode.ACCESS_VIOLATION, "Access violation")
    assert (refused.reason, str(refused)) == ("/etc/passwd is outside", "/etc/passwd is outside")


def test_a_refusal_without_a_reason_logs_its_text():
    refused = RequestRefused(ErrorCode.NOT_DEFINED, text=ErrorText.STOPPING)
    assert (refused.text, str(refused)) == ("Server is stopping", "Server is stopping")


def test_resource_exhausted_is_a_refusal():
    error = ResourceExhausted(ErrorCode.NOT_DEFINED, "EMFILE", ErrorText.OUT_OF_MEMORY)
    assert isinstance(error, RequestRefused)
    assert (error.code, error.text) == (ErrorCode.NOT_DEFINED, "Server is out of memory")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (0, ServerError),
        (1, NotFound),
        (2, AccessDenied),
        (3, DiskFull),
        (4, ServerError),
        (5, ServerError),
        (6, AlreadyExists),
        (7, Refusal),
        (8, Refusal),
        (99, ServerError),
        (None, ServerError),
    ],
)
def test_the_code_of_an_error_packet_selects_the_exception(code, error):
    assert server_error_class(code) is error
    raised = error("text", code)
    assert (raised.text, raised.code, str(raised)) == ("text", code, "text")
