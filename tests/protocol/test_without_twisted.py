"""The protocol package works alone: with the standard library, without Twisted and sockets."""

import subprocess
import sys
from pathlib import Path

import tftpd.protocol

ROOT = Path(__file__).resolve().parents[2]


def test_an_rrq_and_a_wrq_run_between_two_state_machines_without_twisted():
    command = [sys.executable, "-m", "tests.protocol.standalone"]  # this process has Twisted
    completed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert completed.stderr == ""
    assert completed.stdout == "read 5127\nwrite 5127\n"


def test_each_exported_name_exists_and_is_in_alphabetical_order():
    names = tftpd.protocol.__all__
    assert names == sorted(names)
    assert [name for name in names if not hasattr(tftpd.protocol, name)] == []
