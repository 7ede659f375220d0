"""The client and the lookup of its MAC address."""

from ipaddress import ip_address

import pytest

from tftpd.access.client import ClientIdentity

ADDRESS = ip_address("192.0.2.7")


def test_a_client_has_its_address_and_the_address_of_the_request():
    client = ClientIdentity(ADDRESS, server="192.0.2.1")
    assert (client.address, client.server, client.mac) == (ADDRESS, "192.0.2.1", None)
    assert ClientIdentity(ADDRESS).server == ""


@pytest.mark.parametrize("mac", [None, b"\x52\x54\0\x12\x34\x56"])
def test_the_mac_address_is_looked_up_once_also_if_it_is_unknown(mac):
    lookups = []

    def neighbour():
        lookups.append(mac)
        return mac

    client = ClientIdentity(ADDRESS, neighbour)
    assert (client.query_mac(), client.query_mac(), client.mac) == (mac, mac, mac)
    assert len(lookups) == 1
