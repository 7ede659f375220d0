"""A tree of files for each family, made once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.boots.playing import make_tree
from tests.boots.trace import Family


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Path]:
    """The directory of a family: its configuration, and its files in `srv`."""
    made: dict[str, Path] = {}

    def make(family: Family) -> Path:
        if family.key not in made:
            made[family.key] = tmp_path_factory.mktemp(family.key)
            make_tree(family, made[family.key])
        return made[family.key]

    return make
