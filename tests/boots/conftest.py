"""Directory of files for each client family, created once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.boots.boot import create_tree
from tests.boots.trace import Family


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Path]:
    """Return the directory of a family: its configuration, and its files in `srv`."""
    created: dict[str, Path] = {}

    def create(family: Family) -> Path:
        if family.key not in created:
            created[family.key] = tmp_path_factory.mktemp(family.key)
            create_tree(family, created[family.key])
        return created[family.key]

    return create
