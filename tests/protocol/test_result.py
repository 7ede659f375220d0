"""Outcomes and rates, as logs and metrics read them."""

import pytest

from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult


@pytest.mark.parametrize("outcome", Outcome)
def test_a_client_that_got_what_it_came_for_is_a_good_end(outcome):
    good = {Outcome.DONE, Outcome.UNCONFIRMED, Outcome.PROBE}
    assert outcome.successful is (outcome in good)


def test_every_outcome_has_a_word_of_its_own():
    assert [outcome.value for outcome in Outcome] == [
        "done", "unconfirmed", "probe", "timed out", "aborted by peer", "failed", "replaced",
        "stopped", "evicted", "refused", "dropped",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("octets", "seconds", "rate"), [(1000, 4.0, 250.0), (1000, 0.0, 0.0), (0, 2.0, 0.0)]
)
def test_a_rate_is_octets_a_second_and_0_where_no_time_passed(octets, seconds, rate):
    peer = ("127.0.0.1", 2000)
    report = TransferResult(
        Direction.READ, peer, b"f", Outcome.DONE, bytes_transferred=octets, seconds=seconds
    )
    assert report.rate == rate
