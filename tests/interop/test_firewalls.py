"""The nftables rules of docs/how-to/firewalls.md: transfers pass, through NAT too.

A client, a router and a server, each in a network namespace of its own.
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

# Of one to each side of the router: its interface there, its address, and the other end's.
CABLES = (("clients", ROUTER, "10.0.1.10"), ("servers", "10.0.2.1", SERVER))


def rules(title: str) -> str:
    """A block of the page, by the comment that it begins with."""
    page = (CHECKOUT / "docs/how-to/firewalls.md").read_text()
    found = re.search(rf"^```text\n# {title}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found, f"the page has no rules called {title!r}"
    return found[1]


def load(host: Host, *titles: str) -> None:
    """Have rules of the page hold there."""
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
        self, address: str = SERVER, patience: int = 10
    ) -> "subprocess.CompletedProcess[bytes]":
        """Read a file, by windows of large blocks."""
        return self.client.attempt(
            *("curl", "--silent", "--max-time", str(patience), "--tftp-blksize", "1428"),
            f"tftp://{address}/big",
        )

    def put(self, data: bytes, address: str = SERVER) -> "subprocess.CompletedProcess[bytes]":
        """Write one."""
        url = f"tftp://{address}/new"
        return self.client.attempt("curl", "--silent", "-m", "10", "-T", "-", url, input=data)

    def passes(self, address: str = SERVER) -> None:
        """Both ways, whole."""
        assert self.get(address).stdout == CONTENT
        assert self.put(CONTENT[:100_000], address).returncode == 0
        until(lambda: (self.root / "new").read_bytes() == CONTENT[:100_000])


ALL = "address: 0.0.0.0"
SINGLE_PORT = pytest.mark.parametrize("network", [f"{ALL}, mode: single-port"], indirect=True)


@pytest.fixture
def network(tmp_path, request):
    """The three hosts with cables, and a daemon on port 69 of the server.

    Its parameter is the entry that it listens by.
    """
    for name in ("nft", "curl"):
        program(name)
    with ExitStack() as stack:
        client, router, server = (stack.enter_context(host()) for _ in range(3))
        for (name, near, far), end in zip(CABLES, (client, server), strict=True):
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


def test_through_a_router_and_filters_on_both_ends(network):
    load(network.server, "server")
    load(network.router, "router")
    load(network.client, "client")
    network.passes()


def test_without_its_helper_the_router_lets_no_answer_through(network):
    load(network.router, "router")
    network.router.run("nft", "flush", "chain", "inet", "filter", "helper")
    assert network.get(patience=2).stdout == b""


def test_clients_behind_nat(network):
    load(network.router, "router", "masquerade")
    network.server.run("ip", "route", "del", "default")  # it knows the router only
    network.passes()


def test_a_server_behind_nat(network):
    load(network.router, "router", "forwarded port")
    network.client.run("ip", "route", "del", "default")
    network.passes(ROUTER)


@pytest.mark.parametrize("network", [f"{ALL}, session_ports: 40000-44999"], indirect=True)
def test_a_server_whose_filter_follows_no_connections(network):
    page = (CHECKOUT / "docs/how-to/firewalls.md").read_text()
    assert "`listen[].session_ports: 40000-44999`" in page
    load(network.server, "stateless server")
    network.passes()


def _rewrite_ports(network):
    """NAT whose clients have other ports beyond it, without a helper that knows TFTP."""
    changed = rules("masquerade").replace("masquerade\n", "masquerade random\n")
    assert "random" in changed
    network.router.run("nft", "-f", "-", input=changed.encode())
    network.server.run("ip", "route", "del", "default")


def test_nat_without_its_helper_lets_no_answer_through(network):
    _rewrite_ports(network)
    assert network.get(patience=2).stdout == b""


@SINGLE_PORT
def test_a_single_port_needs_no_helper_behind_nat(network, tmp_path):
    _rewrite_ports(network)
    network.passes()
    tftpc = (sys.executable, "-m", "tftpd.client.cli", "get", "--windowsize", "16")
    network.client.run(*tftpc, f"tftp://{SERVER}/big", cwd=tmp_path)
    assert (tmp_path / "big").read_bytes() == CONTENT
    log = (tmp_path / "log").read_text()
    assert log.count("by 10.0.2.1:") == 3  # all of them by the router's address


@SINGLE_PORT
def test_a_single_port_needs_no_helper_where_it_is_forwarded(network):
    load(network.router, "forwarded port")
    network.client.run("ip", "route", "del", "default")
    network.passes(ROUTER)
