"""Fixtures: a world, and a server that runs as root or as an ordinary user."""

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from tests.confinement import links
from tests.confinement.world import World, as_nobody, by_anyone, world

T = TypeVar("T")

Serve = Callable[[Callable[[], T]], T]


@pytest.fixture
def confined() -> Iterator[World]:
    """A world; checks for leaked descriptors at the end."""
    before = os.listdir("/proc/self/fd")
    with world() as made:
        yield made
        links.let_go()
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.fixture(params=["as root", "as an ordinary user"])
def serve(request: pytest.FixtureRequest, confined: World) -> Serve:
    """Run a server as root, or as an ordinary user who owns the files in the root."""
    if os.geteuid() != 0:
        if request.param == "as root":
            pytest.skip("only root can be root")
        return lambda work: work()
    if request.param == "as root":
        return lambda work: work()

    given: list[None] = []

    def work_as_nobody(work: Callable[[], T]) -> T:
        if not given:
            given.append(by_anyone(confined))
        return as_nobody(work)

    return work_as_nobody
