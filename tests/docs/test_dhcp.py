"""The DHCP configurations in docs/how-to hand out the file for each client.

dnsmasq is asked as firmware asks it. The other programs check the syntax, if they are installed.
"""

import itertools
import json
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.blocks import BLOCKS
from tests.support.daemons import until
from tests.support.hosts import Host, host
from tests.support.programs import program

PAGE = [block for block in BLOCKS if block.page.stem == "boot-machines"]
PI_PAGE = [block for block in BLOCKS if block.page.stem == "raspberry-pi"]
SERVER = "192.0.2.1"
CLIENT = "192.0.2.50"  # from another DHCP server
MAC = bytes.fromhex("525400123456")
PXE = b"PXEClient:Arch:%05d:UNDI:003016"

# Number of the client and its user class, and the file that it gets.
CLIENTS = {
    (0, b""): "pxelinux.0",
    (7, b""): "bootx64.efi",
    (9, b""): "bootx64.efi",
    (11, b""): "bootaa64.efi",
    (0, b"iPXE"): "boot.ipxe",
    (7, b"iPXE"): "boot.ipxe",
}

# UEFI gets iPXE: after ProxyDHCP, GRUB asks the server that hands out the addresses.
PROXY_CLIENTS = {
    (0, b""): "pxelinux.0",
    (7, b""): "snponly.efi",
    (9, b""): "snponly.efi",
    (0, b"iPXE"): "boot.ipxe",
    (7, b"iPXE"): "boot.ipxe",
}


def configuration(title: str) -> str:
    """Return the configuration whose first line is a comment with the title."""
    (found,) = (b.text for b in [*PAGE, *PI_PAGE] if b.text.startswith(f"# {title}\n"))
    return found


_transactions = itertools.count(1)


def discover(number: int, user_class: bytes, vendor: bytes, *, kind: int = 1) -> bytes:
    """Return a DHCPDISCOVER of firmware (RFC 2131, RFC 4578); `kind` 3 is a DHCPREQUEST."""
    options = (
        b"\x35\x01" + bytes([kind]) + b"\x5d\x02" + struct.pack("!H", number) + b"\x5e\x03\1\3\x10"
    )
    options += b"\x61\x11\0" + bytes(16) + b"\x3c" + bytes([len(vendor)]) + vendor
    if user_class:
        options += b"\x4d" + bytes([len(user_class)]) + user_class
    options += b"\x37\x07\1\3\x2b\x36\x3c\x42\x43\xff"
    header = struct.pack("!4BIHH", 1, 1, 6, 0, next(_transactions), 0, 0x8000)
    header += socket.inet_aton("0.0.0.0" if kind == 1 else CLIENT) + bytes(12)
    return header + MAC + bytes(10 + 64 + 128) + b"\x63\x82\x53\x63" + options


@dataclass(frozen=True)
class Offer:
    """Server, file and menu of a DHCPOFFER."""

    server: str
    file: str
    options: dict[int, bytes]


def parse_options(rest: bytes) -> dict[int, bytes]:
    """Return the options, or the options of PXE that option 43 contains."""
    options = {}
    while rest and rest[0] != 255:
        options[rest[0]] = rest[2 : 2 + rest[1]]
        rest = rest[2 + rest[1] :]
    return options


def parse_offer(packet: bytes) -> Offer:
    """Parse a DHCPOFFER."""
    options = parse_options(packet[240:])
    file = options.get(67) or packet[108:236]
    return Offer(socket.inet_ntoa(packet[20:24]), file.rstrip(b"\0").decode(), options)


@contextmanager
def dnsmasq(configuration: str, directory: Path) -> Iterator[Host]:
    """Run dnsmasq at the end of a cable, and yield the host at the other end."""
    executable = program("dnsmasq")
    file = directory / "dnsmasq.conf"
    file.write_text(configuration)
    with host() as server, host() as client:
        cable = ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0"]
        server.run(*cable, "netns", str(client.pid))
        server.run("ip", "address", "add", f"{SERVER}/24", "dev", "eth0")
        server.run("ip", "link", "set", "eth0", "up")
        client.run("ip", "link", "set", "eth0", "up")
        log = directory / "log"
        command = [
            *(executable, "--no-daemon", f"--conf-file={file}", "--user=root", "--log-dhcp"),
            *("--no-resolv", "--no-hosts", f"--dhcp-leasefile={directory}/leases"),
        ]
        with log.open("wb") as out:
            process = subprocess.Popen(server.enter(*command), stdout=out, stderr=out)
        try:
            until(lambda: process.poll() is not None or b"DHCP," in log.read_bytes())
            assert process.poll() is None, log.read_text()
            yield client
        finally:
            process.kill()
            process.wait()


def ask(client: Host, request: bytes, to: tuple[str, int] = ("255.255.255.255", 67)) -> Offer:
    """Send a DHCP request and return the answer.

    A server that first tests whether an address is free may answer an earlier request again.
    """
    with client.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        sock.bind(("", 68))
        sock.settimeout(2)
        for _ in range(5):  # an interface may need a moment after it is up
            sock.sendto(request, to)
            try:
                while (answer := sock.recv(2000))[4:8] != request[4:8]:
                    pass
                return parse_offer(answer)
            except TimeoutError:
                continue
    raise AssertionError("no answer")


@pytest.mark.check
def test_dnsmasq_hands_out_the_file_for_each_client(tmp_path):
    with dnsmasq(configuration("dnsmasq"), tmp_path) as client:
        for (number, user_class), file in CLIENTS.items():
            offer = ask(client, discover(number, user_class, PXE % number))
            assert (offer.server, offer.file) == (SERVER, file)


def test_proxy_dhcp_hands_out_the_file_for_each_client(tmp_path):
    with dnsmasq(configuration("dnsmasq as ProxyDHCP"), tmp_path) as client:
        client.run("ip", "address", "add", f"{CLIENT}/24", "dev", "eth0")
        for (number, user_class), file in PROXY_CLIENTS.items():
            offer = ask(client, discover(number, user_class, PXE % number))
            if not offer.file:  # firmware then asks the boot server on port 4011
                request = discover(number, user_class, PXE % number, kind=3)
                if number == 0:  # the first item of the menu: type and layer
                    menu = parse_options(offer.options[43])
                    item = b"\x47\x04" + menu[9][:2] + b"\0\0"
                    request = request[:-1] + b"\x2b" + bytes([len(item)]) + item + b"\xff"
                offer = ask(client, request, (SERVER, 4011))
            assert (offer.server, offer.file) == (SERVER, file)


@pytest.mark.check
@pytest.mark.parametrize(
    "title", ["dnsmasq for Raspberry Pi", "dnsmasq as ProxyDHCP for Raspberry Pi"]
)
def test_a_raspberry_pi_gets_the_menu_that_it_expects(tmp_path, title):
    with dnsmasq(configuration(title), tmp_path) as client:
        client.run("ip", "address", "add", f"{CLIENT}/24", "dev", "eth0")
        offer = ask(client, discover(0, b"", b"PXEClient:Arch:00000:UNDI:002001"))
    assert b"Raspberry Pi Boot" in parse_options(offer.options[43])[9]
    assert offer.options[54] == socket.inet_aton(SERVER)


@pytest.mark.check
def test_dnsmasq_hands_out_a_url_for_http_boot(tmp_path):
    text = configuration("dnsmasq") + configuration("dnsmasq for UEFI HTTP boot")
    with dnsmasq(text, tmp_path) as client:
        offer = ask(client, discover(16, b"", b"HTTPClient:Arch:00016:UNDI:003016"))
    assert offer.file == f"http://{SERVER}/snponly.efi"


def test_the_page_names_the_files_that_dhcp_hands_out():
    page = PAGE[0].page.read_text()
    table = page.partition("| client | number")[2].partition("\n\n")[0]
    assert set(CLIENTS.values()) == set(re.findall(r"\| `([\w.]+)` \|", table))


def test_kea_has_a_class_for_each_file():
    (text,) = (block.text for block in PAGE if block.language == "json")
    dhcp = json.loads(text)["Dhcp4"]
    files = {item["name"]: item["boot-file-name"] for item in dhcp["client-classes"]}
    assert set(files.values()) == set(CLIENTS.values())
    assert {item["next-server"] for item in dhcp["client-classes"]} == {SERVER}


def check(name: str, *arguments: str) -> None:
    """Let a program check a configuration, if it is installed."""
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.check
def test_kea_accepts_its_configuration(tmp_path):
    (text,) = (block.text for block in PAGE if block.language == "json")
    file = tmp_path / "kea.json"
    file.write_text(text.replace('"eth0"', '"lo"'))
    check("kea-dhcp4", "-t", str(file))


@pytest.mark.check
def test_dhcpd_accepts_its_configuration(tmp_path):
    file = tmp_path / "dhcpd.conf"
    file.write_text(configuration("dhcpd"))
    check("dhcpd", "-t", "-cf", str(file))
