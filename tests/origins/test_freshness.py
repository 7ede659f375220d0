"""Freshness of cached objects."""

import pytest

from tftpd.origins.freshness import Freshness, FreshnessRules, KeyHistory, judge

NOW = 1_000_000.0
RULES = FreshnessRules(max_age=30, stale=600, negative=2)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (KeyHistory(), Freshness.ASK),
        (KeyHistory(checked_at=NOW), Freshness.FRESH),
        (KeyHistory(checked_at=NOW - 29.9), Freshness.FRESH),
        (KeyHistory(checked_at=NOW - 29.9, failed_at=NOW - 1), Freshness.FRESH),
        (KeyHistory(checked_at=NOW - 30), Freshness.REVALIDATE),
        (KeyHistory(checked_at=NOW - 30, failed_at=NOW - 1.9), Freshness.SERVE_STALE),
        (KeyHistory(checked_at=NOW - 30, failed_at=NOW - 2), Freshness.REVALIDATE),
        (KeyHistory(checked_at=NOW - 629.9, failed_at=NOW), Freshness.SERVE_STALE),
        (KeyHistory(checked_at=NOW - 630), Freshness.ASK),
        (KeyHistory(checked_at=NOW - 630, failed_at=NOW), Freshness.FAILED),
        (KeyHistory(failed_at=NOW - 1.9), Freshness.FAILED),
        (KeyHistory(failed_at=NOW - 2), Freshness.ASK),
        (KeyHistory(absent_at=NOW - 1.9), Freshness.ABSENT),
        (KeyHistory(absent_at=NOW - 1.9, failed_at=NOW), Freshness.ABSENT),
        (KeyHistory(absent_at=NOW - 2), Freshness.ASK),
        # An object that appeared after an absence.
        (KeyHistory(checked_at=NOW, absent_at=NOW - 1), Freshness.FRESH),
    ],
)
def test_the_answer_depends_on_the_age_of_the_last_answers(history, expected):
    assert judge(history, RULES, NOW) is expected


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (KeyHistory(checked_at=NOW + 1), Freshness.REVALIDATE),
        (KeyHistory(checked_at=NOW + 1, failed_at=NOW - 1), Freshness.SERVE_STALE),
        (KeyHistory(absent_at=NOW + 1), Freshness.ASK),
        (KeyHistory(failed_at=NOW + 1), Freshness.ASK),
    ],
)
def test_an_answer_from_the_future_is_not_trusted(history, expected):
    assert judge(history, RULES, NOW) is expected


def test_a_failure_is_not_served_stale_if_stale_is_zero():
    rules = FreshnessRules(max_age=30, stale=0, negative=2)
    assert judge(KeyHistory(checked_at=NOW - 30, failed_at=NOW), rules, NOW) is Freshness.FAILED
