"""Fixtures: a served tree, and a server that runs as root or as an ordinary user."""

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from tests.confinement import attacks
from tests.confinement.served_tree import ServedTree, as_nobody, give_to_nobody, served_tree

T = TypeVar("T")

Serve = Callable[[Callable[[], T]], T]


@pytest.fixture
def tree() -> Iterator[ServedTree]:
    """Create a tree; check for leaked descriptors at the end."""
    before = os.listdir("/proc/self/fd")
    with served_tree() as created:
        yield created
        attacks.close_held_descriptors()
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.fixture(params=["as root", "as an ordinary user"])
def serve(request: pytest.FixtureRequest, tree: ServedTree) -> Serve:
    """Run a server as root, or as an ordinary user who owns the files in the root."""
    if os.geteuid() != 0:
        if request.param == "as root":
            pytest.skip("the tests do not run as root")
        return lambda work: work()
    if request.param == "as root":
        return lambda work: work()

    owner_changed = False

    def work_as_nobody(work: Callable[[], T]) -> T:
        nonlocal owner_changed
        if not owner_changed:
            give_to_nobody(tree)
            owner_changed = True
        return as_nobody(work)

    return work_as_nobody
