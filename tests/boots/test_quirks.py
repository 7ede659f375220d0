"""Boots fail if a family does not get the behaviour that its profile sets."""

from dataclasses import replace

import pytest

from tests.boots.boot import Boot, create_tree
from tests.boots.client import HANGS, TIMED_OUT
from tests.boots.trace import FAMILIES, load_family, parse_line


@pytest.mark.parametrize(
    ("key", "changes", "failure"),
    [
        ("curl", {}, "OACK rejected: empty"),
        ("grub-pc", {"refuse_options": ["blksize", "tsize"]}, TIMED_OUT),
        ("raspberry-pi-3", {"duplicates": 1}, HANGS),
        ("raspberry-pi-4", {"duplicates": 1}, HANGS),
        ("raspberry-pi-5", {"duplicates": 1}, HANGS),
        ("sun-obp", {"broadcast": "ignore"}, TIMED_OUT),
        ("u-boot-put", {"refuse_options": ["blksize", "timeout", "tsize"]}, TIMED_OUT),
    ],
)
def test_a_boot_fails_without_its_profile(tmp_path, key, changes, failure):
    family = load_family(FAMILIES / f"{key}.yaml")
    profile = {"name": "wrong", "match": {"clients": ["192.0.2.7"]}, **changes}
    wrong = replace(family, settings={**family.settings, "profiles": [profile]})
    create_tree(wrong, tmp_path)
    boot = Boot(wrong, tmp_path)
    assert [transfer.failure for transfer in boot.failed] == [failure]
    assert boot.server.idle


@pytest.mark.parametrize("key", ["edk2-one-port", "windows"])
def test_a_boot_fails_without_its_name_fallbacks(tmp_path, key):
    family = load_family(FAMILIES / f"{key}.yaml")
    strict = replace(family, settings={})
    create_tree(strict, tmp_path)
    boot = Boot(strict, tmp_path)
    assert [transfer.failure for transfer in boot.failed] == ["ERROR 1 File not found"]


def test_shim_gets_no_second_stage_without_its_name_fallbacks(tmp_path):
    family = load_family(FAMILIES / "shim-wrong-names.yaml")
    strict = replace(family, settings={})
    create_tree(strict, tmp_path)
    boot = Boot(strict, tmp_path)
    assert [transfer.failure for transfer in boot.failed][:1] == ["ERROR 1 File not found"]


def test_an_invalid_line_of_a_trace_is_an_error():
    with pytest.raises(ValueError, match="invalid line of a trace: 69 = RRQ"):
        parse_line("69 = RRQ")
