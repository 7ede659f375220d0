"""Configuration: any file gives settings, or problems that each have a line number."""

from pathlib import Path

from tests.fuzz.harness import scratch_directory, time_limit
from tftpd.config.errors import ConfigError
from tftpd.config.loader import load_with_lines


def check(data: bytes) -> None:
    """Load a file with these bytes."""
    path = scratch_directory() / "fuzzed.yaml"
    path.write_bytes(data)
    with time_limit(15.0):
        _check_file(path, data)


def _check_file(path: Path, data: bytes) -> None:
    try:
        settings, document = load_with_lines(path)
    except ConfigError as error:
        problems = error.problems
    else:
        settings.mounts()
        settings.naming()
        settings.limits.granted()
        settings.retransmit.timing()
        assert all(entry.profile() for entry in settings.known_profiles())
        assert document.line(("listen",)) >= 1
        return
    assert problems, "an error without a problem"
    lines = 1 + len(data.decode("utf-8", "replace").splitlines())
    for problem in problems:
        assert 1 <= problem.line <= lines, f"{problem} has no line of the file"
        text = problem.format("file")
        assert text.isprintable(), f"{text!r} is not one line"
        text.encode()
