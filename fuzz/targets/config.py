"""The configuration: any octets are settings, or problems that each name a line."""

from pathlib import Path

from fuzz.bounds import bounded
from fuzz.places import place
from tftpd.config.errors import ConfigError, Problem
from tftpd.config.loader import load_settings_and_document
from tftpd.config.settings import Settings

_MOST = 15.0  # seconds; each rewrite rule may take its part


def check(octets: bytes) -> None:
    """Load a file of `octets`; what a server asks of the settings raises nothing either."""
    path = place() / "fuzzed.yaml"
    path.write_bytes(octets)
    with bounded(_MOST):
        loaded(path, octets)


def loaded(path: Path, octets: bytes) -> Settings | None:
    """The settings in `path`, None where it has problems, all of which name a line."""
    problems: list[Problem] = []
    try:
        settings, document = load_settings_and_document(path)
    except ConfigError as error:
        problems = error.problems
        settings = None
    if settings is None:
        assert problems, "it has no problem"
        lines = 1 + len(octets.decode("utf-8", "replace").splitlines())
        for problem in problems:
            assert 1 <= problem.line <= lines, f"{problem} is on no line"
            told = problem.format("file")
            assert told.isprintable(), f"{told!r} is more than a line"
            told.encode()
        return None
    settings.build_mounts()
    settings.build_name_rules()
    settings.limits.option_limits()
    settings.retransmit.build_policy()
    assert all(one.build_profile() for one in settings.active_profiles())
    assert document.line(("listen",)) >= 1
    return settings
