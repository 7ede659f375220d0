"""The attacks, and a short measurement with one of them."""

import os
import socket

import pytest

from bench import hostile
from bench.servers import HOST, SERVERS


def test_the_udp_ports_of_a_process_are_found():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        assert sock.getsockname()[1] in hostile.udp_ports(os.getpid())


@pytest.mark.parametrize("attack", hostile.ATTACKS)
def test_an_attack_sends_datagrams_and_ends_at_its_limit(attack):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.settimeout(10)
        port = sock.getsockname()[1]
        # Unknown TIDs do not go to the well-known port, and this process has no other one.
        well_known = port + 1 if attack == "unknown_tids" else port
        hostile.ATTACKS[attack](well_known, os.getpid(), 0.1)
        assert sock.recv(2048)


@pytest.mark.check
def test_a_file_is_read_during_an_attack(monkeypatch):
    monkeypatch.setattr(hostile, "SIZES", {16: 40_000})
    monkeypatch.setattr(hostile, "WARM_UP_SECONDS", 0.1)
    monkeypatch.setattr(hostile, "RECOVERY_SECONDS", 0.0)
    table = hostile.measure_attacks(SERVERS["tftpd"], ["malformed"], 1, lambda line: None)
    _, _, alone, attacked = (line.split("|")[1:] for line in table.splitlines())
    assert [cell.split()[0] for cell in alone[:2]] == ["none", "1.0"]
    assert attacked[0].strip() == "malformed"
    assert float(attacked[1].split()[0]) > 0
    assert int(attacked[2]) > 1, "memory in MiB"
