"""Outcomes and rates, as logs and metrics show them."""

import pytest

from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult


@pytest.mark.parametrize("outcome", Outcome)
def test_an_outcome_is_successful_if_the_client_got_all_that_it_needed(outcome):
    successful = {Outcome.DONE, Outcome.UNCONFIRMED, Outcome.PROBE}
    assert outcome.successful is (outcome in successful)


def test_each_outcome_has_its_text():
    assert [outcome.value for outcome in Outcome] == [
        "done", "unconfirmed", "probe", "timed out", "aborted by peer", "failed", "replaced",
        "stopped", "evicted", "refused", "dropped",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "seconds", "rate"), [(1000, 4.0, 250.0), (1000, 0.0, 0.0), (0, 2.0, 0.0)]
)
def test_the_rate_is_bytes_per_second_or_0_if_no_time_passed(size, seconds, rate):
    peer = ("127.0.0.1", 2000)
    result = TransferResult(
        Direction.READ, peer, b"f", Outcome.DONE, bytes_transferred=size, seconds=seconds
    )
    assert result.rate == rate
