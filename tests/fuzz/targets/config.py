"""Configuration: any file gives settings, or problems that each have a line number."""

from pathlib import Path

from tests.fuzz.harness import scratch_directory, time_limit
from tftpd.config.errors import ConfigError
from tftpd.config.loader import load_settings_and_document


def check(data: bytes) -> None:
    """Load a file with these bytes."""
    path = scratch_directory() / "fuzzed.yaml"
    path.write_bytes(data)
    with time_limit(15.0):
        _check_file(path, data)


def _check_file(path: Path, data: bytes) -> None:
    try:
        settings, document = load_settings_and_document(path)
    except ConfigError as error:
        problems = error.problems
    else:
        settings.build_mounts()
        settings.build_name_rules()
        settings.limits.option_limits()
        settings.retransmit.build_policy()
        assert all(entry.build_profile() for entry in settings.active_profiles())
        assert document.line(("listen",)) >= 1
        return
    assert problems, "an error without a problem"
    lines = 1 + len(data.decode("utf-8", "replace").splitlines())
    for problem in problems:
        assert 1 <= problem.line <= lines, f"{problem} has no line of the file"
        text = problem.format("file")
        assert all(line.isprintable() for line in text.split("\n")), f"{text!r} is not printable"
        text.encode()
