"""Template variables of a client."""

from ipaddress import ip_address, ip_network

from tftpd.access.client import ClientIdentity
from tftpd.access.variables import VariableRule, VariableTable

MAC = bytes.fromhex("525400123456")
NET = (ip_network("10.0.0.0/8"),)
ELSEWHERE = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))


def _client(neighbour):
    return ClientIdentity(ip_address("10.0.0.7"), neighbour)


def _nobody_asks():
    raise AssertionError("the MAC address does not matter")


CLIENT = _client(_nobody_asks)


def test_without_facts_nothing_is_known():
    assert VariableTable().values_for(CLIENT) == {}
    assert not VariableTable().needs_mac


def test_what_fits_is_merged_and_the_later_holds():
    facts = VariableTable(
        [
            VariableRule({"disk": "sda", "console": {"port": "ttyS0"}}),
            VariableRule({"disk": "vda"}, clients=ELSEWHERE),
            VariableRule({"console": {"speed": 9600}, "menu": True}, clients=NET),
        ]
    )
    assert facts.values_for(CLIENT) == {
        "disk": "sda",
        "console": {"speed": 9600},  # whole: not merged with the one before
        "menu": True,
    }


def test_a_mac_fits_whole_or_by_how_it_begins():
    facts = VariableTable(
        [
            VariableRule({"vendor": "qemu"}, macs=[MAC[:3]]),
            VariableRule({"host": "a"}, macs=[b"\0" * 6, MAC]),
            VariableRule({"host": "b"}, macs=[b"\0" * 6]),
        ]
    )
    assert facts.needs_mac
    assert facts.values_for(_client(lambda: MAC)) == {"vendor": "qemu", "host": "a"}
    assert facts.values_for(_client(lambda: None)) == {}


def test_both_conditions_must_fit():
    facts = VariableTable([VariableRule({"a": 1}, clients=NET, macs=[MAC])])
    assert facts.values_for(_client(lambda: MAC)) == {"a": 1}
    assert facts.values_for(_client(lambda: b"\1" * 6)) == {}


def test_the_mac_is_asked_for_once_and_only_where_it_decides():
    asked = []

    def neighbour():
        asked.append(1)

    VariableTable(
        [VariableRule({"a": 1}, macs=[MAC]), VariableRule({"a": 1}, macs=[MAC])]
    ).values_for(_client(neighbour))
    assert asked == [1]
    VariableTable([VariableRule({"a": 1}, clients=ELSEWHERE, macs=[MAC])]).values_for(CLIENT)


def test_what_one_client_gets_changes_nothing_for_the_next():
    facts = VariableTable([VariableRule({"a": 1})])
    facts.values_for(CLIENT)["a"] = 2
    assert facts.values_for(CLIENT) == {"a": 1}


def test_a_fact_of_another_hides_none_that_comes_after_it():
    facts = VariableTable(
        [
            VariableRule({"a": 1}, macs=[b"\0" * 6]),
            VariableRule({"b": 2}),
            VariableRule({"c": 3}, ELSEWHERE),
        ]
    )
    assert facts.values_for(_client(lambda: MAC)) == {"b": 2}
    assert facts.values_for(_client(lambda: None)) == {"b": 2}
