"""A client behind a NAT that rewrites ports and knows nothing of TFTP.

    client 10.77.1.2 --- 10.77.1.1 NAT 10.77.2.1 --- 10.77.2.2 server

Each is a network namespace, which lives as long as a process of ours in it.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.daemons import CHECKOUT, daemon

PROGRAMS = ["nft", "ip", "unshare", "nsenter", "curl"]
SERVER, NAT = "10.77.2.2", "10.77.2.1"
WAIT = 3  # seconds that curl waits where nothing comes
CONTENT = bytes(range(250)) * 400

RULES = """
table ip nat {
    chain out { type nat hook postrouting priority 100; oifname "outside" masquerade random; }
}
"""


class Namespace:
    """A network namespace, and what is run in it."""

    def __init__(self, held: ExitStack) -> None:
        ready = "ip link set lo up && echo ready && exec cat"
        process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", ready], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        held.callback(process.wait)
        held.callback(process.stdin.close)
        if process.stdout.readline() != b"ready\n":
            raise OSError("no network namespace can be had")
        self.pid = process.pid
        self.prefix = ["nsenter", "--target", str(self.pid), "--net"]

    def run(self, *command: str, **how: object) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run([*self.prefix, *command], capture_output=True, timeout=60, **how)

    def must(self, *command: str, **how: object) -> None:
        done = self.run(*command, **how)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.decode()}")

    def enter(self) -> None:
        """Have this process be in it, as a daemon that is to be started."""
        with open(f"/proc/{self.pid}/ns/net") as namespace:
            # os.setns is of Python 3.12.
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")


def _connect(one, two, names, addresses):
    """A cable between two namespaces, with the names of its ends."""
    one.must(
        *("ip", "link", "add", "name", names[0], "type", "veth"),
        *("peer", "name", names[1], "netns", str(two.pid)),
    )
    for end, name, address in zip((one, two), names, addresses, strict=True):
        end.must("ip", "address", "add", f"{address}/24", "dev", name)
        end.must("ip", "link", "set", name, "up")


@contextmanager
def _network() -> Iterator[tuple[Namespace, Namespace]]:
    with ExitStack() as held:
        client, nat, server = (Namespace(held) for _ in range(3))
        _connect(client, nat, ("uplink", "inside"), ("10.77.1.2", "10.77.1.1"))
        _connect(nat, server, ("outside", "downlink"), (NAT, SERVER))
        client.must("ip", "route", "add", "default", "via", "10.77.1.1")
        nat.must("sysctl", "-qw", "net.ipv4.ip_forward=1")
        nat.must("nft", "-f", "-", input=RULES.encode())
        yield client, server


@pytest.fixture(scope="module")
def network():
    required = os.environ.get("TFTPD_INTEROP") == "required"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing and not required:
        pytest.skip(f"{', '.join(missing)} not installed")
    try:
        with _network() as made:
            yield made
    except OSError as error:
        if required:
            raise
        pytest.skip(str(error))


@contextmanager
def _serving(network, tmp_path, mode):
    """A daemon on port 69 of the server; a function that runs what the client does."""
    client, server = network
    listen = [{"address": SERVER, "mode": mode}]
    with daemon(tmp_path, preexec=server.enter, listen=listen) as running:
        (running.root / "file").write_bytes(CONTENT)
        yield running, client


def _curl(client, *arguments):
    return client.run("curl", "-sS", "--max-time", str(WAIT), *arguments)


def test_on_ports_of_their_own_nothing_comes_through(network, tmp_path):
    with _serving(network, tmp_path, "per-session") as (_, client):
        done = _curl(client, f"tftp://{SERVER}/file")
        assert (done.returncode, done.stdout) == (28, b"")  # CURLE_OPERATION_TIMEDOUT


def test_on_the_listening_port_all_does(network, tmp_path):
    with _serving(network, tmp_path, "single-port") as (running, client):
        # Not curl's --local-port, which it does not have for TFTP.
        for options in ([], ["--tftp-no-options"], ["--tftp-blksize", "1400"]):
            done = _curl(client, *options, f"tftp://{SERVER}/file")
            assert (done.returncode, done.stdout) == (0, CONTENT), done.stderr
        (tmp_path / "local").write_bytes(CONTENT)
        done = _curl(client, "-T", str(tmp_path / "local"), f"tftp://{SERVER}/new")
        assert done.returncode == 0, done.stderr
        assert (running.root / "new").read_bytes() == CONTENT
        transfers = running.awaited(4)
        assert {event["client"] for event in transfers} == {NAT}


def test_windows_go_through_both_ways(network, tmp_path):
    with _serving(network, tmp_path, "single-port") as (running, client):
        (tmp_path / "local").write_bytes(CONTENT)
        tftpc = [sys.executable, "-m", "tftpd.client.cli"]
        how = {"cwd": tmp_path, "env": dict(os.environ, PYTHONPATH=str(CHECKOUT))}
        for command in (
            ["get", "--windowsize", "16", f"tftp://{SERVER}/file"],
            ["put", "--windowsize", "16", "local", f"tftp://{SERVER}/windows"],
        ):
            done = client.run(*tftpc, *command, **how)
            assert done.returncode == 0, done.stderr
        assert (tmp_path / "file").read_bytes() == CONTENT
        assert (running.root / "windows").read_bytes() == CONTENT
        assert {event["windowsize"] for event in running.awaited(2)} == {16}
