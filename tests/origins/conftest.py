import gc
from collections.abc import Iterator

import pytest

from tests.support.web_origin import WebOrigin, web_origin
from tftpd.origins import downloads


@pytest.fixture(autouse=True, scope="module")
def _closed_connections() -> Iterator[None]:
    """Close the connections of the libraries, for later tests that count descriptors."""
    yield
    gc.collect()


@pytest.fixture
def origin() -> Iterator[WebOrigin]:
    """Run a web server whose answers the test decides."""
    with web_origin() as running:
        yield running


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resume a broken download at once."""
    monkeypatch.setattr(downloads, "_PAUSES_SECONDS", (0.0,) * 3)
