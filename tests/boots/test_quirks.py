"""Boots fail if a family does not get what it needs: the traces would notice it."""

from dataclasses import replace

import pytest

from tests.boots.client import CONFUSED, SILENCE
from tests.boots.playing import Boot, make_tree
from tests.boots.trace import FAMILIES, parsed, read


@pytest.mark.parametrize(
    ("key", "changes", "failed"),
    [
        ("curl", {}, "refuses the OACK: empty"),
        ("grub-pc", {"refuse_options": ["blksize", "tsize"]}, SILENCE),
        ("raspberry-pi-3", {"duplicates": 1}, CONFUSED),
        ("raspberry-pi-4", {"duplicates": 1}, CONFUSED),
        ("raspberry-pi-5", {"duplicates": 1}, CONFUSED),
        ("sun-obp", {"broadcast": "ignore"}, SILENCE),
        ("u-boot-put", {"refuse_options": ["blksize", "timeout", "tsize"]}, SILENCE),
    ],
)
def test_a_boot_fails_without_its_quirk(tmp_path, key, changes, failed):
    family = read(FAMILIES / f"{key}.yaml")
    profile = {"name": "wrong", "match": {"clients": ["192.0.2.7"]}, **changes}
    wrong = replace(family, settings={**family.settings, "profiles": [profile]})
    make_tree(wrong, tmp_path)
    boot = Boot(wrong, tmp_path)
    assert [one.failed for one in boot.failed] == [failed]
    assert boot.server.idle


@pytest.mark.parametrize("key", ["edk2-one-port", "windows"])
def test_a_boot_fails_without_its_names(tmp_path, key):
    family = read(FAMILIES / f"{key}.yaml")
    strict = replace(family, settings={})
    make_tree(strict, tmp_path)
    assert [one.failed for one in Boot(strict, tmp_path).failed] == ["ERROR 1 File not found"]


def test_a_line_that_is_none_is_told():
    with pytest.raises(ValueError, match="no line of a trace: 69 = RRQ"):
        parsed("69 = RRQ")
