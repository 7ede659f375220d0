"""Template variables of a client."""

from ipaddress import ip_address, ip_network

from tftpd.access.client import ClientIdentity
from tftpd.access.variables import (
    ClientValue,
    ClientVariables,
    VariableRule,
    VariableTable,
    is_mac_key,
)

MAC = bytes.fromhex("525400123456")
NET = (ip_network("10.0.0.0/8"),)
ELSEWHERE = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))


def _client(neighbour):
    return ClientIdentity(ip_address("10.0.0.7"), neighbour)


def _unexpected_lookup():
    raise AssertionError("no rule needs the MAC address")


CLIENT = _client(_unexpected_lookup)


def test_without_rules_a_client_has_no_variables():
    assert VariableTable().values_for(CLIENT) == {}
    assert not VariableTable().needs_mac


def test_matching_rules_are_merged_and_the_later_value_is_used():
    table = VariableTable(
        [
            VariableRule({"disk": "sda", "console": {"port": "ttyS0"}}),
            VariableRule({"disk": "vda"}, clients=ELSEWHERE),
            VariableRule({"console": {"speed": 9600}, "menu": True}, clients=NET),
        ]
    )
    assert table.values_for(CLIENT) == {
        "disk": "sda",
        "console": {"speed": 9600},  # replaces the whole value of the previous rule
        "menu": True,
    }


def test_a_mac_address_matches_completely_or_by_prefix():
    table = VariableTable(
        [
            VariableRule({"vendor": "qemu"}, macs=[MAC[:3]]),
            VariableRule({"host": "a"}, macs=[b"\0" * 6, MAC]),
            VariableRule({"host": "b"}, macs=[b"\0" * 6]),
        ]
    )
    assert table.needs_mac
    assert table.values_for(_client(lambda: MAC)) == {"vendor": "qemu", "host": "a"}
    assert table.values_for(_client(lambda: None)) == {}


def test_both_conditions_must_match():
    table = VariableTable([VariableRule({"a": 1}, clients=NET, macs=[MAC])])
    assert table.values_for(_client(lambda: MAC)) == {"a": 1}
    assert table.values_for(_client(lambda: b"\1" * 6)) == {}


def test_the_mac_address_is_looked_up_once_and_only_if_it_matters():
    lookups = []

    def neighbour():
        lookups.append(1)

    VariableTable(
        [VariableRule({"a": 1}, macs=[MAC]), VariableRule({"a": 1}, macs=[MAC])]
    ).values_for(_client(neighbour))
    assert lookups == [1]
    VariableTable([VariableRule({"a": 1}, clients=ELSEWHERE, macs=[MAC])]).values_for(CLIENT)


def test_changes_to_the_values_of_a_client_do_not_affect_others():
    table = VariableTable([VariableRule({"a": 1})])
    table.values_for(CLIENT)["a"] = 2
    assert table.values_for(CLIENT) == {"a": 1}


def test_a_rule_for_other_clients_does_not_affect_later_rules():
    table = VariableTable(
        [
            VariableRule({"a": 1}, macs=[b"\0" * 6]),
            VariableRule({"b": 2}),
            VariableRule({"c": 3}, ELSEWHERE),
        ]
    )
    assert table.values_for(_client(lambda: MAC)) == {"b": 2}
    assert table.values_for(_client(lambda: None)) == {"b": 2}


def test_values_of_the_mac_address_override_those_of_the_address():
    variables = ClientVariables()
    assert variables.values_for(CLIENT, 100.0) == {}  # without a lookup of the MAC address
    variables.update(
        {
            "10.0.0.7": {"boot": ClientValue("disk"), "site": ClientValue(7)},
            MAC.hex(":"): {"boot": ClientValue("installer", once=True)},
            "10.0.0.8": {"boot": ClientValue("rescue", once=True)},
        }
    )
    client = _client(lambda: MAC)
    assert variables.values_for(client, 100.0) == {"boot": "installer", "site": 7}
    assert variables.find_single_use(client, 100.0) == [MAC.hex(":")]
    unknown = _client(lambda: None)
    assert variables.values_for(unknown, 100.0) == {"boot": "disk", "site": 7}
    assert variables.find_single_use(unknown, 100.0) == []


def test_a_value_ends_at_its_time_and_a_client_without_values_is_removed():
    variables = ClientVariables()
    variables.update({"10.0.0.7": {"boot": ClientValue("installer", expires=100.0)}})
    client = _client(lambda: None)
    assert variables.values_for(client, 99.9) == {"boot": "installer"}
    assert variables.values_for(client, 100.0) == {}
    variables.update({"10.0.0.7": {"boot": ClientValue("installer", expires=100.0, once=True)}})
    assert variables.find_single_use(client, 99.9) == ["10.0.0.7"]
    assert variables.find_single_use(client, 100.0) == []  # it was not used
    variables.update({"10.0.0.7": {}, "10.0.0.9": {}})
    assert variables.clients == {}


def test_a_client_is_named_by_its_mac_or_its_ip_address():
    assert is_mac_key("52:54:00:12:34:56")
    assert not is_mac_key("::1")
    assert not is_mac_key("52:54:00:12:34:56:78")
