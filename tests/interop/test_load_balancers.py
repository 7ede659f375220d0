"""Transfers through the load balancers of docs/how-to/load-balancers.md.

Client, router and two servers have their own network namespaces. Each server listens on port 69
in single-port mode and on port 70 with a port for each transfer.
"""

import os
import re
import socket
import subprocess
from contextlib import ExitStack

import pytest

from tests.support.daemons import CHECKOUT, twistd, until
from tests.support.hosts import ENVIRONMENT, host
from tests.support.plain import request
from tests.support.programs import program

pytestmark = pytest.mark.check

ADDRESS = "192.0.2.69"
SERVERS = {"10.0.2.10": "10.0.2.1", "10.0.3.10": "10.0.3.1"}
CONTENT = os.urandom(100_000)
N_CLIENTS = 16
SINGLE_PORT, PER_SESSION = 69, 70
STARTS_WITHIN = 60  # seconds; two daemons start at once


def rules(title):
    page = (CHECKOUT / "docs/how-to/load-balancers.md").read_text()
    found = re.search(rf"^```text\n# {re.escape(title)}\n(.*?)^```$", page, re.M | re.S)
    assert found, f"the page has no rules called {title!r}"
    return found[1].encode()


class Network:
    """Hosts and daemons by the address of the server."""

    def __init__(self, client, router):
        self.client, self.router = client, router
        self.servers = {}
        self.daemons = {}

    def get(self, port, client="10.0.1.10", max_time="20"):
        """Return True if a client reads the file."""
        done = self.client.attempt(
            *("curl", "--silent", "--max-time", max_time, "--tftp-blksize", "1428"),
            *("--interface", client, f"tftp://{ADDRESS}:{port}/file"),
        )
        return done.stdout == CONTENT

    def count_transfers(self):
        """Return the number of transfers of each server."""
        return [daemon.log.read_text().count(" done") for daemon in self.daemons.values()]


def _connect(router, other, interface, near, far):
    router.run(*f"ip link add {interface} type veth peer eth0 netns {other.pid}".split())
    for place, device, address in ((router, interface, near), (other, "eth0", far)):
        place.run("ip", "address", "add", f"{address}/24", "dev", device)
        place.run("ip", "link", "set", device, "up")
    other.run("ip", "route", "add", "default", "via", near)


@pytest.fixture
def network(tmp_path):
    for name in ("nft", "curl", "conntrack"):
        program(name)
    with ExitStack() as stack:
        client, router = stack.enter_context(host()), stack.enter_context(host())
        network = Network(client, router)
        _connect(router, client, "clients", "10.0.1.1", "10.0.1.10")
        for n in range(1, N_CLIENTS):
            client.run("ip", "address", "add", f"10.0.1.{10 + n}/24", "dev", "eth0")
        (tmp_path / "file").write_bytes(CONTENT)
        config = tmp_path / "tftpd.yaml"
        config.write_text(
            f"listen: [{{address: 0.0.0.0, mode: single-port}},\n"
            f"         {{address: 0.0.0.0, port: {PER_SESSION}}}]\n"
            f"directories: [{{root: {tmp_path}, read: true}}]\ndrain_timeout: 0\n"
        )
        for n, (address, gateway) in enumerate(SERVERS.items()):
            server = network.servers[address] = stack.enter_context(host())
            _connect(router, server, f"server{n}", gateway, address)
            server.run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
            log = tmp_path / f"{n}.log"
            with log.open("wb") as out:
                command = server.enter(*twistd("tftp", "--config", str(config)))
                daemon = subprocess.Popen(command, stdout=out, stderr=out, env=ENVIRONMENT)
            daemon.log = log
            network.daemons[address] = daemon
            stack.callback(daemon.wait)
            stack.callback(daemon.kill)
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        for daemon in network.daemons.values():
            until(lambda daemon=daemon: b"serving on" in daemon.log.read_bytes(), STARTS_WITHIN)
        yield network


def test_the_rules_spread_clients_over_both_servers(network):
    network.router.run("nft", "-f", "-", input=rules("nftables load balancer"))
    assert all(network.get(SINGLE_PORT) for _ in range(12))
    until(lambda: sum(network.count_transfers()) >= 12)
    assert all(network.count_transfers())
    network.router.run("nft", "-f", "-", input=rules("nftables without 10.0.3.10"))
    before = network.count_transfers()
    assert all(network.get(SINGLE_PORT) for _ in range(6))
    until(lambda: network.count_transfers()[0] >= before[0] + 6)
    assert network.count_transfers()[1] == before[1]


def _answers(sock):
    sock.sendto(request(1, b"file"), (ADDRESS, SINGLE_PORT))
    try:
        return sock.recv(600)[:4] == b"\0\3\0\1"
    except OSError:  # silence, or an ICMP error of the dead server
        return False


def test_a_repeated_request_reaches_the_other_server_once_the_flow_is_deleted(network):
    dead = "10.0.3.10"
    text = rules("nftables without 10.0.3.10").replace(b"10.0.2.10", dead.encode())
    network.router.run("nft", "-f", "-", input=text)
    with network.client.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        assert _answers(sock)
        network.daemons[dead].kill()
        network.daemons[dead].wait()
        network.router.run("nft", "-f", "-", input=rules("nftables without 10.0.3.10"))
        assert not _answers(sock)
        network.router.run("conntrack", "-D", "-p", "udp", "--reply-src", dead)
        until(lambda: _answers(sock))


@pytest.mark.parametrize(
    ("policy", "port", "all_arrive"),
    [
        (0, SINGLE_PORT, True),
        (0, PER_SESSION, True),
        (1, SINGLE_PORT, True),
        (1, PER_SESSION, False),
    ],
    ids=["addresses-single", "addresses-own", "ports-single", "ports-own"],
)
def test_ecmp_by_ports_breaks_transfers_with_own_ports_only(network, policy, port, all_arrive):
    hops = " ".join(f"nexthop via {address}" for address in SERVERS)
    network.router.run(*f"ip route add {ADDRESS}/32 {hops}".split())
    network.router.run("sysctl", "-qw", f"net.ipv4.fib_multipath_hash_policy={policy}")
    count = N_CLIENTS if all_arrive else 8
    max_time = "20" if all_arrive else "3"
    arrived = [network.get(port, f"10.0.1.{10 + n}", max_time) for n in range(count)]
    assert all(arrived) == all_arrive
    if all_arrive:
        until(lambda: sum(network.count_transfers()) >= N_CLIENTS)
        assert all(network.count_transfers())
