"""Who asks."""

from ipaddress import ip_address

from tftpd.access.client import Client

ADDRESS = ip_address("192.0.2.7")


def test_a_client_is_an_address_and_the_one_that_it_asked():
    client = Client(ADDRESS, server="192.0.2.1")
    assert (client.address, client.server, client.mac) == (ADDRESS, "192.0.2.1", None)
    assert Client(ADDRESS).server == ""


def test_its_mac_address_is_asked_for_once_even_where_nobody_knows():
    for said in (None, b"\x52\x54\0\x12\x34\x56"):
        asked = []

        def neighbour(said=said, asked=asked):
            asked.append(said)
            return said

        client = Client(ADDRESS, neighbour)
        assert (client.mac, client.mac, len(asked)) == (said, said, 1)
