"""Profiles in a configuration, and the messages for problems."""

from ipaddress import ip_network
from typing import get_args

import pytest

from tftpd.access.profiles import Profile, ProfileMatch, compile_globs, fingerprint
from tftpd.config.errors import ConfigError
from tftpd.config.loader import load_settings
from tftpd.config.profiles import OptionName, load_shipped_profiles
from tftpd.protocol.options import NAMES
from tftpd.protocol.packets import Wrq

MINIMAL = "directories: [{root: ., read: true}]\n"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that loads a configuration with these profiles."""
    monkeypatch.chdir(tmp_path)

    def load_with(text):
        path = tmp_path / "t.yaml"
        path.write_text(MINIMAL + text)
        return load_settings(path)

    return load_with


def test_every_key_of_a_profile_can_be_configured(load):
    settings = load(
        """
shipped_profiles: false
profiles:
  - name: star64
    match:
      clients: [10.0.7.0/24]
      macs: [6C-CF-39, "52:54:00:12:34:56"]
      options: [timeout=5, "tsize=0?", "blksize=1468|512"]
      direction: write
      mode: netascii
      files: ["*.img"]
    refuse_options: [tsize, windowsize]
    blksize: 1428
    windowsize: 8
    empty_tsize: false
    rollover: 1
    idle_timeout: 60
    min_interval: 1
    packet_interval: 0.001
    duplicates: 1
    broadcast: answer
    source: seen here
"""
    )
    (section,) = settings.active_profiles()
    assert section.build_profile() == Profile(
        "star64",
        ProfileMatch(
            options=fingerprint(["timeout=5", "tsize=0?", "blksize=1468|512"]),
            request=Wrq,
            mode=b"netascii",
            files=compile_globs(["*.img"]),
            clients=(ip_network("10.0.7.0/24"),),
            macs=(bytes.fromhex("6ccf39"), bytes.fromhex("525400123456")),
        ),
        refuse=frozenset({b"tsize", b"windowsize"}),
        blksize=1428,
        windowsize=8,
        empty_tsize=False,
        rollover=1,
        idle_timeout=60.0,
        min_interval=1.0,
        packet_interval=0.001,
        duplicates=1,
        broadcast=True,
    )


def test_a_profile_without_settings_has_defaults(load):
    settings = load("profiles: [{name: lab, match: {options: []}}]")
    assert settings.active_profiles()[0].build_profile() == Profile(
        "lab", ProfileMatch(options=fingerprint([]))
    )


def test_configured_profiles_come_before_shipped_ones(load):
    names = [profile.name for profile in load("").active_profiles()]
    assert names == [profile.name for profile in load_shipped_profiles()]
    settings = load("profiles: [{name: lab, match: {mode: octet}}]")
    assert [profile.name for profile in settings.active_profiles()] == ["lab", *names]


def test_a_profile_replaces_the_shipped_one_of_the_same_name(load):
    settings = load("profiles: [{name: u-boot, match: {mode: octet}, duplicates: 1}]")
    names = [profile.name for profile in settings.active_profiles()]
    assert names.count("u-boot") == 1
    assert settings.active_profiles()[0].duplicates == 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{name: lab}", 'profiles[0]: missing key "match"'),
        ("{name: lab, match: {}}", "profiles[0].match: expected clients, macs, options, "
         "direction, mode or files"),
        ("{match: {mode: octet}}", 'profiles[0]: missing key "name"'),
        ("{name: My Lab, match: {mode: octet}}", "profiles[0].name: expected a name of lower-case "
         'letters, digits, dots and dashes, got "My Lab"'),
        ("{name: none, match: {mode: octet}}", "profiles[0].name: expected a name of lower-case "
         'letters, digits, dots and dashes, got "none"'),
        ("{name: lab, match: {macs: [52:54:0]}}", "profiles[0].match.macs[0]: expected a MAC "
         'address or its first bytes, such as "52:54:00", got "52:54:0"'),
        ("{name: lab, match: {macs: []}}", "profiles[0].match.macs: expected at least one entry"),
        ("{name: lab, match: {options: [blk size]}}", "profiles[0].match.options[0]: expected an "
         'option such as blksize, tsize=0 or windowsize=4|8?, got "blk size"'),
        ("{name: lab, match: {options: [4]}}", "profiles[0].match.options[0]: expected an "
         "option such as blksize, tsize=0 or windowsize=4|8?, got 4"),
        ("{name: lab, match: {files: ['']}}", "profiles[0].match.files[0]: expected a pattern "
         'such as *.efi, got ""'),
        ("{name: lab, match: {mode: mail}}", "profiles[0].match.mode: expected one of octet, "
         'netascii, got "mail"'),
        ("{name: lab, match: {mode: octet}, refuse_options: [tsiz]}",
         "profiles[0].refuse_options[0]: expected one of blksize, blksize2, timeout, utimeout, "
         'tsize, windowsize, rollover, got "tsiz", did you mean "tsize"?'),
        ("{name: lab, match: {mode: octet}, duplicates: 9}",
         "profiles[0].duplicates: expected a number from 0 to 3, got 9"),
        ("{name: lab, match: {mode: octet}, packet_interval: 2}",
         "profiles[0].packet_interval: expected seconds, from 0 up to 1, got 2"),
        ("{name: lab, match: {mode: octet}, blocksize: 9}",
         'profiles[0].blocksize: unknown key, did you mean "blksize"?'),
        ("{name: a, match: {mode: octet}}\n  - {name: a, match: {mode: octet}}",
         'profiles[1].name: "a" is already the name of profiles[0] on line 3'),
    ],
)  # fmt: skip
def test_a_problem_of_a_profile_is_reported_with_its_line(load, line, problem):
    with pytest.raises(ConfigError) as error:
        load(f"profiles:\n  - {line}\n")
    number = 4 if "\n" in line else 3
    assert str(error.value).endswith(f"t.yaml:{number}: {problem}")


def test_every_known_option_can_be_refused():
    assert get_args(OptionName) == tuple(map(bytes.decode, NAMES))


def test_profiles_without_a_name_are_not_duplicates(load):
    with pytest.raises(ConfigError) as error:
        load("profiles: [{match: {mode: octet}}, {match: {mode: octet}}]")
    assert [str(problem.path) for problem in error.value.problems] == [
        "('profiles', 0)",
        "('profiles', 1)",
    ]


def test_every_shipped_profile_has_a_source_and_a_unique_name():
    assert all(profile.source for profile in load_shipped_profiles())
    assert len({profile.name for profile in load_shipped_profiles()}) == len(
        load_shipped_profiles()
    )
