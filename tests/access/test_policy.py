"""Policies as values, and the clients they admit."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from tftpd.access.policy import ANYWHERE, Grant, ReadPolicy, WritePolicy, admits

LAN = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"), ip_network("fe80::/10"))


@pytest.mark.parametrize("client", ["0.0.0.0", "255.255.255.255", "::", "fe80::7", "2001:db8::1"])
def test_anywhere_admits_every_address_of_both_families(client):
    assert admits(ANYWHERE, ip_address(client))


@pytest.mark.parametrize(
    ("client", "admitted"),
    [
        ("192.0.2.0", True),
        ("192.0.2.255", True),
        ("192.0.1.255", False),
        ("192.0.3.0", False),
        ("2001:db8::", True),
        ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", True),
        ("2001:db9::", False),
        ("fe80::7", True),
        ("fec0::7", False),
    ],
)
def test_a_network_admits_its_first_and_last_address(client, admitted):
    assert admits(LAN, ip_address(client)) is admitted


def test_an_empty_list_of_networks_admits_no_client():
    assert not admits((), ip_address("192.0.2.7"))


def test_a_network_admits_no_address_of_the_other_family():
    assert not admits((ip_network("0.0.0.0/0"),), ip_address("::1"))
    assert not admits((ip_network("::/0"),), ip_address("127.0.0.1"))


def test_the_default_write_policy_creates_files_and_overwrites_none():
    assert WritePolicy() == WritePolicy(
        create=True, overwrite=False, max_size=None, mode=0o644, world_writable=False
    )


def test_policies_with_equal_fields_are_equal():
    assert ReadPolicy(clients=LAN) == ReadPolicy(world_readable=False, clients=LAN)
    assert {ReadPolicy(), ReadPolicy(world_readable=True), ReadPolicy()} == {
        ReadPolicy(),
        ReadPolicy(world_readable=True),
    }


@pytest.mark.parametrize(
    ("policy", "measured"),
    [
        (WritePolicy(), False),
        (WritePolicy(max_size=1, min_free=1), False),
        (WritePolicy(quota=0), True),
        (WritePolicy(max_files=0), True),
    ],
)
def test_usage_is_needed_with_a_quota_or_a_limit_of_files(policy, measured):
    assert policy.needs_usage is measured


def test_the_path_of_a_grant_is_printable():
    grant = Grant(Path("/srv/tftp"), ("王".encode(), b"a\n\xff"), ReadPolicy())
    assert grant.printable_path == "/srv/tftp/王/a\\n\\xff"
