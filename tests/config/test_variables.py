"""The section `variables`, and the limits of templates."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from tftpd.access.policy import RenderLimits
from tftpd.access.variables import VariableRule
from tftpd.config.errors import ConfigError
from tftpd.config.loader import load_settings


@pytest.fixture
def write_config(tmp_path, monkeypatch):
    """Return a function that writes a valid configuration with more sections."""
    (tmp_path / "srv").mkdir()
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        Path("t.yaml").write_text("directories: [{root: srv, read: true}]\n" + text)
        return Path("t.yaml")

    return write


def _problems(path):
    with pytest.raises(ConfigError) as error:
        load_settings(path)
    return str(error.value).splitlines()


def test_variables_keep_their_types(write_config):
    settings = load_settings(
        write_config(
            """
variables:
  - set: {domain: example.org, debug: no, mode: 0644, quiet: true, speed: 115200, part: 1.5}
  - clients: [10.0.0.0/8]
    macs: ["52:54:00", 52-54-00-12-34-56]
    set:
      disks: [sda, {name: sdb, raid: null}]
"""
        )
    )
    assert settings.build_variables().rules == [
        VariableRule(
            {
                "domain": "example.org",
                "debug": "no",
                "mode": "0644",
                "quiet": True,
                "speed": 115200,
                "part": 1.5,
            }
        ),
        VariableRule(
            {"disks": ["sda", {"name": "sdb", "raid": None}]},
            clients=(ip_network("10.0.0.0/8"),),
            macs=(b"RT\0", b"RT\0\x124V"),
        ),
    ]


def test_without_the_section_there_are_no_variables(write_config):
    settings = load_settings(write_config(""))
    assert settings.build_variables().rules == []
    assert settings.limits.render_limits() == RenderLimits(1 << 20, 2.0)


def test_problems_of_variables_are_reported_with_their_lines(write_config):
    assert _problems(
        write_config(
            """
variables:
  - {}
  - set: {}
  - set:
      two words: 1
      fine:
        - {a-b: 1}
  - {set: {a: 1}, client: 10.0.0.1}
  - {set: {a: 1}, clients: []}
  - {set: [1], macs: [x]}
"""
        )
    ) == [
        't.yaml:4: variables[0]: missing key "set"',
        "t.yaml:5: variables[1].set: expected at least one name",
        't.yaml:7: variables[2].set."two words": expected a name of letters, digits and '
        'underscores, got "two words"',
        "t.yaml:9: variables[2].set.fine[0].a-b: expected a name of letters, digits and "
        'underscores, got "a-b"',
        't.yaml:10: variables[3].client: unknown key, did you mean "clients"?',
        "t.yaml:11: variables[4].clients: expected at least one entry",
        "t.yaml:12: variables[5].macs[0]: expected a MAC address or its first bytes, such as "
        '"52:54:00", got "x"',
        "t.yaml:12: variables[5].set: expected a mapping of names and values, got a list",
    ]


def test_values_may_be_nested_eight_levels_deep(write_config):
    def nested(levels):
        return f"variables: [{{set: {{a: {'[' * levels}1{']' * levels}}}}}]"

    assert load_settings(write_config(nested(8))).build_variables().rules
    (problem,) = _problems(write_config(nested(9)))
    assert problem == (
        f"t.yaml:2: variables[0].set.a{'[0]' * 8}: expected at most 8 levels, got a list"
    )


def test_limits_of_templates_have_ranges(write_config):
    settings = load_settings(write_config("limits: {template_size: 16MiB, template_time: 0.1}"))
    assert settings.limits.render_limits() == RenderLimits(16 << 20, 0.1)
    assert _problems(write_config("limits: {template_size: 17MiB, template_time: 11}")) == [
        't.yaml:2: limits.template_size: expected at most 16MiB, got "17MiB"',
        "t.yaml:2: limits.template_time: expected seconds, from 0.1 up to 10, got 11",
    ]
    assert _problems(write_config("limits: {template_size: 1000, template_time: 0}")) == [
        "t.yaml:2: limits.template_size: expected at least 1KiB, got 1000",
        "t.yaml:2: limits.template_time: expected seconds, from 0.1 up to 10, got 0",
    ]
