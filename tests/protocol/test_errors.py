"""ERROR codes and their texts."""

import pytest

from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused, ResourceExhausted


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_has_a_text(code):
    assert code.text.isascii()
    assert code.text


def test_a_refusal_tells_the_peer_a_text_of_the_table_and_the_log_more():
    refused = RequestRefused(ErrorCode.ACCESS_VIOLATION, "/etc/passwd is outside")
    assert (refused.code, refused.text) == (ErrorCode.ACCESS_VIOLATION, "Access violation")
    assert (refused.reason, str(refused)) == ("/etc/passwd is outside", "/etc/passwd is outside")


def test_a_refusal_without_more_says_the_same_to_both():
    refused = RequestRefused(ErrorCode.NOT_DEFINED, text=ErrorText.STOPPING)
    assert (refused.text, str(refused)) == ("Server is stopping", "Server is stopping")


def test_what_is_scarce_is_refused_like_anything_else():
    scarce = ResourceExhausted(ErrorCode.NOT_DEFINED, "EMFILE", ErrorText.OUT_OF_MEMORY)
    assert isinstance(scarce, RequestRefused)
    assert (scarce.code, scarce.text) == (ErrorCode.NOT_DEFINED, "Server is out of memory")
