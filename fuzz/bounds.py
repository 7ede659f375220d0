"""What may be taken of time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds of the processor: a fuzzer counts branches, which makes all some ten
# times slower, and what has no bound takes minutes.
MOST = 3.0


@contextmanager
def bounded(seconds: float = MOST) -> Iterator[None]:
    """What is done in here takes no more of the processor's time than that."""
    begun = time.process_time()
    yield
    taken = time.process_time() - begun
    assert taken < seconds, f"{taken:.1f} s"
