"""What an honest client is told to bear: the attacks, and the table of what they cost."""

import os
import socket
import time

import pytest

from bench import hostile
from bench.attacks import ATTACKS, _ports
from bench.hostile import Read, Row, text
from bench.servers import HOST, SERVERS


def _row(attack, took, waited=0.001):
    return Row(attack, {1: Read(waited, took), 16: Read(waited, took)}, 30 << 20, 31 << 20)


def test_the_table_has_ratios_to_the_row_without_an_attack():
    said = text([_row("", 0.5), _row("half_open", 0.75, 1.5)])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines()]
    assert lines[2] == ["none", "1.0 (1 ms)", "1.0 (1 ms)", "30", "31"]
    assert lines[3] == ["half open", "1.5 (1500 ms)", "1.5 (1500 ms)", "30", "31"]


def test_the_ports_of_a_process_are_known():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        assert sock.getsockname()[1] in list(_ports(os.getpid()))


@pytest.mark.parametrize("attack", ["malformed", "missing", "requests", "strangers"])
def test_an_attack_says_something_and_ends(attack):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.settimeout(10)
        port = sock.getsockname()[1]
        # Strangers leave out the well-known port, and this is the only one here.
        known = port + 1 if attack == "strangers" else port
        ATTACKS[attack](known, os.getpid(), time.monotonic() + 0.2)
        assert sock.recv(2048)


def test_a_server_is_read_from_beside_an_attack(monkeypatch):
    monkeypatch.setattr(hostile, "_SIZES", {1: 3000, 16: 40_000})
    monkeypatch.setattr(hostile, "_WARMS_UP", 0.1)
    monkeypatch.setattr(hostile, "_CALMS_DOWN", 0.0)
    rows = hostile.measure(SERVERS["tftpd"], ["malformed"], 1, lambda line: None)
    assert [row.attack for row in rows] == ["", "malformed"]
    for row in rows:
        assert all(one.took < hostile._GIVES_UP for one in row.reads.values())
        assert row.memory > 1 << 20
