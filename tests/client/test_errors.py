"""The exit statuses that belong to exceptions."""

import pytest

from tftpd.client.errors import LocalError, TimedOut, exit_status_after
from tftpd.protocol.errors import server_error_class


@pytest.mark.parametrize(
    ("code", "status"),
    [(0, 1), (1, 3), (2, 4), (3, 4), (4, 1), (5, 1), (6, 4), (7, 4), (8, 4), (99, 1)],
)
def test_the_code_of_an_error_packet_determines_the_exit_status(code, status):
    assert exit_status_after(server_error_class(code)) == status


def test_timeouts_and_local_errors_have_different_exit_statuses():
    assert [exit_status_after(kind) for kind in (TimedOut, LocalError)] == [5, 1]
