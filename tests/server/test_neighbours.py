"""MAC addresses from the kernel's neighbour table, in a network namespace."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tftpd.server.neighbours import Neighbours

# A pair of interfaces, neighbours on one of them, and a router.
_NETWORK = """
ip link set lo up
ip link add here type veth peer name there
ip addr add 192.0.2.1/24 dev here
ip -6 addr add 2001:db8::1/64 dev here nodad
ip link set here up
ip link set there up
ip neigh add 192.0.2.7 lladdr 52:54:00:00:00:07 dev here nud stale
ip neigh add 192.0.2.254 lladdr 52:54:00:00:00:fe dev here
ip neigh add 2001:db8::7 lladdr 52:54:00:00:00:08 dev here nud stale
ip neigh add fe80::7 lladdr 52:54:00:00:00:09 dev here nud stale
ip route add 198.51.100.0/24 via 192.0.2.254
"""

_LOOK_UP = """
import json, socket
from tftpd.server.neighbours import Neighbours
neighbours = Neighbours()
scope = socket.if_nametoindex("here")
macs = []
for peer in (
    ("192.0.2.7", 2070),
    ("::ffff:192.0.2.7", 2070, 0, 0),
    ("2001:db8::7", 2070, 0, 0),
    ("fe80::7%here", 2070, 0, scope),
    ("192.0.2.8", 2070),
    ("198.51.100.7", 2070),
    ("203.0.113.7", 2070),
    ("192.0.2.1", 2070),
    ("127.0.0.1", 2070),
    ("::1", 2070, 0, 0),
):
    mac = neighbours.mac(peer)
    macs.append(mac and mac.hex(":"))
neighbours.close()
print(json.dumps(macs))
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2")
def test_the_mac_address_of_a_neighbour_is_found_and_not_that_of_a_routed_host():
    commands = f"set -e\n{_NETWORK}\nexec {sys.executable} -c '{_LOOK_UP}'"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", commands],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        "52:54:00:00:00:07",
        "52:54:00:00:00:07",
        "52:54:00:00:00:08",
        "52:54:00:00:00:09",
        None,  # no host has this address
        None,  # behind a router
        None,  # no route
        None,  # this host
        None,
        None,
    ]


def test_a_host_has_no_mac_address_of_itself():
    neighbours = Neighbours()
    assert neighbours.mac(("127.0.0.1", 2070)) is None
    neighbours.close()
    assert neighbours.mac(("::1", 2070, 0, 0)) is None
    neighbours.close()
