"""The exit statuses that belong to exceptions."""

import pytest

from tftpd.client.errors import LocalError, TimedOut, server_error_class


@pytest.mark.parametrize(
    ("code", "status"),
    [(0, 1), (1, 3), (2, 4), (3, 4), (4, 1), (5, 1), (6, 4), (7, 4), (8, 4), (99, 1)],
)
def test_the_code_of_an_error_packet_determines_the_exit_status(code, status):
    assert server_error_class(code).exit_status == status


def test_timeouts_and_local_errors_have_different_exit_statuses():
    assert (TimedOut.exit_status, LocalError.exit_status) == (5, 1)
