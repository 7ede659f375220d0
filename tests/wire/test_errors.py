"""ERROR codes and their texts."""

import pytest

from tftpd.wire.errors import ErrorCode, Reason, Refused


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_has_a_text(code):
    assert code.text.isascii()
    assert code.text


def test_a_refusal_tells_the_peer_a_text_of_the_table_and_the_log_more():
    refused = Refused(ErrorCode.ACCESS_VIOLATION, "/etc/passwd is outside")
    assert (refused.text, str(refused)) == ("Access violation", "/etc/passwd is outside")


def test_a_refusal_without_more_says_the_same_to_both():
    refused = Refused(ErrorCode.NOT_DEFINED, text=Reason.STOPPING)
    assert (refused.text, str(refused)) == ("Server is stopping", "Server is stopping")
