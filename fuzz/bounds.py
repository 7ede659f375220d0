"""What may be taken of time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds. What has a bound takes milliseconds, ten times as many where a fuzzer
# counts branches, and some more on a busy machine; what has none takes minutes.
MOST = 10.0


@contextmanager
def bounded(seconds: float = MOST) -> Iterator[None]:
    """What is done in here takes no longer than that."""
    # Not the processor's time: to ask for it may take longer than the check.
    begun = time.perf_counter()
    yield
    taken = time.perf_counter() - begun
    assert taken < seconds, f"{taken:.1f} s"
