"""A pytest plugin: few and always the same examples, quick tests first, none that go by the clock.

A mutant is asked by hundreds of tests, on a machine that does other things.
"""

import pytest
from hypothesis import HealthCheck, settings

_CLOCKED = ("in_a_moment", "takes_milliseconds", "takes_no_longer")
_LONG = (
    *("test_loss", "test_stateful", "roll_over", "rolls_over", "random_loss", "bottleneck"),
    *("whatever_is_taken", "matches_as_in"),
)

settings.register_profile(
    "mutants",
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("mutants")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if not any(name in item.name for name in _CLOCKED)]
    items.sort(key=lambda item: any(name in item.nodeid for name in _LONG))
