import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _closed_connections() -> Iterator[None]:
    """Close the connections of the libraries, for later tests that count descriptors."""
    yield
    gc.collect()
