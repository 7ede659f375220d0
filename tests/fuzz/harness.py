"""Shared parts of the fuzz targets: load a target, read its corpus, and bound what it may do."""

import atexit
import inspect
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.internet import reactor  # noqa: F401, opens its descriptors before they are counted
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import provider

Check = Callable[[bytes], object]

TESTS = Path(__file__).parents[1]
CORPUS = Path(__file__).parent / "corpus"

TARGETS = ("client", "config", "dataplane", "server", "templates")
"""The targets with a corpus. Every module with Hypothesis tests is a target, too."""

MAX_INPUT_BYTES = 2048  # longer input takes more time and finds nothing new


def all_targets() -> list[str]:
    """Return the targets, among them modules with Hypothesis tests, such as `access.test_paths`."""
    # The tests of `storage` need directories of pytest.
    modules = sorted({*TESTS.glob("*/test_*.py")} - {*TESTS.glob("storage/*")})
    properties = [path for path in modules if "\n@given(" in path.read_text()]
    return [*TARGETS, *(f"{path.parent.name}.{path.stem}" for path in properties)]


def load_target(target: str) -> Check:
    """Import one target and return its check, which raises an exception if an invariant fails."""
    if target in TARGETS:
        check: Check = import_module(f"tests.fuzz.targets.{target}").check
        return check
    values = vars(import_module(f"tests.{target}")).values()
    functions = [value for value in values if hasattr(value, "hypothesis")]
    # A test with fixtures needs pytest.
    tests = [test for test in functions if not inspect.signature(test).parameters]

    def check_property(data: bytes) -> None:
        if data:
            tests[data[0] % len(tests)].hypothesis.fuzz_one_input(data[1:])

    return check_property


def read_corpus(target: str) -> list[bytes]:
    """Return the inputs of a corpus in the order of the names of their files."""
    return [path.read_bytes() for path in sorted((CORPUS / target).glob("[!.]*"))]


def mutations(target: str, count: int, seed: int) -> Iterator[bytes]:
    """Generate mutated corpus files; the same ones for the same seed."""
    generator = random.Random(f"{target} {seed}")
    samples = read_corpus(target)
    for _ in range(count):
        data = generator.choice(samples)
        for _ in range(generator.randint(1, 6)):
            start = generator.randint(0, len(data))
            end = start + generator.randint(0, 8)
            other = generator.choice(samples)
            replacement = generator.choice(
                (b"", generator.randbytes(end - start), data[start:end] * 3, other[start:])
            )
            data = data[:start] + replacement + data[end:]
        yield data[:MAX_INPUT_BYTES]


@contextmanager
def time_limit(seconds: float = 10.0) -> Iterator[None]:
    """Fail if the block takes longer.

    Bounded work takes milliseconds, ten times as long while atheris counts branches.
    Unbounded work takes minutes.
    """
    start = time.perf_counter()
    yield
    duration = time.perf_counter() - start
    assert duration < seconds, f"took {duration:.1f} s"


@contextmanager
def no_hidden_faults() -> Iterator[None]:
    """Raise the first exception that the block logs, and fail if it leaves a descriptor open."""
    failures: list[BaseException] = []

    @provider(ILogObserver)
    def observe(event: dict[str, Any]) -> None:
        if "log_failure" in event:
            failures.append(event["log_failure"].value)

    descriptors = len(os.listdir("/proc/self/fd"))
    globalLogPublisher.addObserver(observe)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observe)
    if failures:
        raise failures[0]
    after = len(os.listdir("/proc/self/fd"))
    assert after == descriptors, f"{after} descriptors are open, {descriptors} were open before"


def memory_directory() -> str | None:
    """Return a directory in memory, None if the system has none; uploads call fsync often."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None


@cache
def scratch_directory() -> Path:
    """Return a temporary directory that is removed when the process ends."""
    parent = os.environ.get("TMPDIR") or memory_directory()
    directory = Path(tempfile.mkdtemp(prefix="tftpd-fuzz-", dir=parent))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
