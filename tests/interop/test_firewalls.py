"""Transfers through the nftables rules of docs/how-to/firewalls.md, also through NAT.

Client, router and server have their own network namespaces.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.daemons import CHECKOUT, twistd, until
from tests.support.hosts import ENVIRONMENT, LIMIT, Host, host
from tests.support.programs import program

pytestmark = pytest.mark.check

CONTENT = os.urandom(3_000_000)
SERVER = "10.0.2.10"
ROUTER = "10.0.1.1"

# Links of the router: its interface, its address, and the address of the other end.
LINKS = (("clients", ROUTER, "10.0.1.10"), ("servers", "10.0.2.1", SERVER))


def rules(title: str) -> str:
    """Return a block of rules of the page; `title` is its first comment."""
    page = (CHECKOUT / "docs/how-to/firewalls.md").read_text()
    found = re.search(rf"^```text\n# {title}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found, f"the page has no rules called {title!r}"
    return found[1]


def load_rules(host: Host, *titles: str) -> None:
    """Load rules of the page on a host."""
    for title in titles:
        host.run("nft", "-f", "-", input=rules(title).encode())


@dataclass(frozen=True, slots=True)
class Network:
    """Hosts of the client, the router and the server, and the root of the server."""

    client: Host
    router: Host
    server: Host
    root: Path

    def get(
        self, address: str = SERVER, max_seconds: int = 10
    ) -> "subprocess.CompletedProcess[bytes]":
        """Read a file with windows of large blocks."""
        return self.client.attempt(
            *("curl", "--silent", "--max-time", str(max_seconds), "--tftp-blksize", "1428"),
            f"tftp://{address}/big",
        )

    def put(self, data: bytes, address: str = SERVER) -> "subprocess.CompletedProcess[bytes]":
        """Write a file."""
        url = f"tftp://{address}/new"
        return self.client.attempt("curl", "--silent", "-m", "10", "-T", "-", url, input=data)

    def check_transfers(self, address: str = SERVER) -> None:
        """Check that a read and a write arrive intact."""
        assert self.get(address).stdout == CONTENT
        assert self.put(CONTENT[:100_000], address).returncode == 0
        until(lambda: (self.root / "new").read_bytes() == CONTENT[:100_000])


ALL = "address: 0.0.0.0"
SINGLE_PORT = pytest.mark.parametrize("network", [f"{ALL}, mode: single-port"], indirect=True)


@pytest.fixture
def network(tmp_path, request):
    """Create the three hosts, and a daemon on port 69 of the server.

    The parameter is the entry of `listen` in the configuration.
    """
    for name in ("nft", "curl"):
        program(name)
    with ExitStack() as stack:
        client, router, server = (stack.enter_context(host()) for _ in range(3))
        for (name, near, far), end in zip(LINKS, (client, server), strict=True):
            router.run(*f"ip link add {name} type veth peer eth0 netns {end.pid}".split())
            for place, device, address in ((router, name, near), (end, "eth0", far)):
                place.run("ip", "address", "add", f"{address}/24", "dev", device)
                place.run("ip", "link", "set", device, "up")
            end.run("ip", "route", "add", "default", "via", near)
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        root = tmp_path / "root"
        root.mkdir()
        (root / "big").write_bytes(CONTENT)
        stack.enter_context(_daemon(server, tmp_path, getattr(request, "param", ALL)))
        yield Network(client, router, server, root)


@contextmanager
def _daemon(server: Host, tmp_path: Path, listen: str) -> Iterator[None]:
    config, log = tmp_path / "tftpd.yaml", tmp_path / "log"
    write = "write: {overwrite: true}"
    config.write_text(
        f"listen: [{{{listen}}}]\n"
        f"directories: [{{root: root, read: true, {write}}}]\ndrain_timeout: 0\n"
    )
    with log.open("wb") as out:
        command = server.enter(*twistd("tftp", "--config", str(config)))
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=out, stderr=out)
    try:
        until(lambda: process.poll() is not None or b"serving on" in log.read_bytes())
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(LIMIT)


def test_transfers_pass_filters_on_client_router_and_server(network):
    load_rules(network.server, "server")
    load_rules(network.router, "router")
    load_rules(network.client, "client")
    network.check_transfers()


def test_a_router_without_the_helper_drops_replies(network):
    load_rules(network.router, "router")
    network.router.run("nft", "flush", "chain", "inet", "filter", "helper")
    assert network.get(max_seconds=2).stdout == b""


def test_clients_behind_nat_can_transfer_files(network):
    load_rules(network.router, "router", "masquerade")
    network.server.run("ip", "route", "del", "default")  # the server can reach the router only
    network.check_transfers()


def test_a_server_behind_nat_serves_files(network):
    load_rules(network.router, "router", "forwarded port")
    network.client.run("ip", "route", "del", "default")
    network.check_transfers(ROUTER)


@pytest.mark.parametrize("network", [f"{ALL}, session_ports: 40000-44999"], indirect=True)
def test_a_stateless_filter_needs_session_ports(network):
    page = (CHECKOUT / "docs/how-to/firewalls.md").read_text()
    assert "`listen[].session_ports: 40000-44999`" in page
    load_rules(network.server, "stateless server")
    network.check_transfers()


def _rewrite_ports(network):
    """Load NAT rules that change the ports of clients, without the helper for TFTP."""
    changed = rules("masquerade").replace("masquerade\n", "masquerade random\n")
    assert "random" in changed
    network.router.run("nft", "-f", "-", input=changed.encode())
    network.server.run("ip", "route", "del", "default")


def test_nat_without_the_helper_drops_replies(network):
    _rewrite_ports(network)
    assert network.get(max_seconds=2).stdout == b""


@SINGLE_PORT
def test_single_port_mode_needs_no_helper_for_clients_behind_nat(network, tmp_path):
    _rewrite_ports(network)
    network.check_transfers()
    tftpc = (sys.executable, "-m", "tftpd.client.cli", "get", "--windowsize", "16")
    network.client.run(*tftpc, f"tftp://{SERVER}/big", cwd=tmp_path)
    assert (tmp_path / "big").read_bytes() == CONTENT
    log = (tmp_path / "log").read_text()
    assert log.count("by 10.0.2.1:") == 3  # the server sees the address of the router


@SINGLE_PORT
def test_single_port_mode_needs_no_helper_for_a_forwarded_port(network):
    load_rules(network.router, "forwarded port")
    network.client.run("ip", "route", "del", "default")
    network.check_transfers(ROUTER)
