"""The client and the lookup of its MAC address."""

from ipaddress import ip_address

import pytest

from tftpd.access.client import ClientIdentity, find_mac

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


@pytest.mark.parametrize(
    "name",
    [
        b"pxelinux.cfg/01-52-54-00-12-34-56",
        b"/grub/grub.cfg-01-52-54-00-12-34-56",
        b"MAC-525400123456.ipxe",
        b"ipxe/52:54:00:12:34:56.ipxe",
        b"mac-52-54-00-12-34-56.cfg",
        b"a\\525400123456\\x",
        b"SEP525400123456.cnf.xml",
    ],
)
def test_a_name_has_the_mac_address_that_boot_loaders_write(name):
    assert find_mac(name) == find_mac(name.lower()) == bytes.fromhex("525400123456")


@pytest.mark.parametrize(
    "name",
    [
        b"pxelinux.cfg/b8945908-d6a6-41a9-611d-74a6ab80b83d",  # a UUID
        b"pxelinux.cfg/20-52-54-00-12-34-56",  # not the type of Ethernet
        b"01-52-54-00-12-34-56-78",
        b"5254001234567",
        b"x525400123456",
        b"C0A80105",
        b"",
    ],
)
def test_other_numbers_are_no_mac_address(name):
    assert find_mac(name) is None
