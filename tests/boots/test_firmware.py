"""Real firmware, in an emulated machine without a disk, boots from the daemon.

    dnsmasq (DHCP), daemon - bridge - tap - machine (qemu)

DHCP has the lines that `tftpd dhcp-config` prints. As a ProxyDHCP server dnsmasq has the lines of
docs/how-to/boot-machines.md, and another server at the same bridge hands out the addresses.

The log of the daemon shows what the firmware has read. GRUB prints the content of files to the
serial line, which shows if a byte gets lost.
"""

import io
import json
import re
import shutil
import subprocess
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path

import pytest

from tests.docs.test_dhcp import configuration
from tests.support.daemons import daemon, until
from tests.support.hosts import host
from tests.support.programs import program
from tftpd.daemon.cli import main

pytestmark = pytest.mark.check

SERVER = "192.0.2.1"
BOOTS_WITHIN = 150  # seconds; an idle processor needs 10
TEXT = "".join(f"line {n} of a file that GRUB prints\n" for n in range(60))
GRUB_MODULES = ("normal", "efinet", "tftp", "http", "echo", "cat")
GRUB_CONFIG = f"""\
cat (http,{SERVER})/over-http.txt
cat (tftp,{SERVER})/over-tftp.txt
echo GRUB has read its files
"""
IPXE_SCRIPT = f"""\
#!ipxe
imgfetch http://{SERVER}/large.bin
imgfree
imgfetch tftp://{SERVER}/large.bin
imgfree
chain http://{SERVER}/faulty.ipxe ||
chain http://{SERVER}/second.ipxe
"""
PROXY = configuration("dnsmasq as ProxyDHCP")
SECOND_SCRIPT = "#!ipxe\nimgfetch relative.txt\nimgfetch done-${net0/mac:hexhyp}\n"


def _file(name: str) -> Path:
    """Return a file of a package, or skip the test."""
    path = Path("/usr/share" if name.startswith("OVMF") else "/usr/lib", name)
    if not path.exists():
        program(str(path))  # skips, or fails in CI
    return path


@pytest.fixture(scope="module")
def grub(tmp_path_factory):
    """A GRUB for UEFI that reads files over both protocols and prints them."""
    directory = tmp_path_factory.mktemp("grub")
    (directory / "embedded.cfg").write_text(GRUB_CONFIG)
    image, modules = directory / "grub.efi", _file("grub/x86_64-efi")
    subprocess.run(
        [
            *(program("grub-mkimage"), "--format=x86_64-efi", f"--directory={modules}"),
            *("--prefix=/", f"--config={directory}/embedded.cfg", f"--output={image}"),
            *GRUB_MODULES,
        ],
        check=True,
        timeout=60,
    )
    return image.read_bytes()


class Machine:
    """A machine in an emulator, and the server that it boots from."""

    def __init__(self, directory, log):
        self.console = directory / "console"
        self._log = log

    def text(self):
        """Return what the machine has printed, without the escape sequences of the terminal."""
        text = self.console.read_bytes().decode("latin-1").replace("\r", "")
        return re.sub(r"\x1b\[[0-9;=?]*[A-Za-z]", "", text)

    def transfers(self):
        """Return protocol, name and outcome of each request."""
        lines = self._log.read_text().rpartition("\n")[0].splitlines()
        events = (json.loads(line) for line in lines)
        return [
            (event["protocol"], event["file"].lstrip("/"), event["outcome"])
            for event in events
            if event.get("event") == "transfer"
        ]


@contextmanager
def _address_server(directory, network):
    """Run another DHCP server, which knows nothing of boots, at the bridge of a host."""
    with host() as other:
        for where, command in (
            (network, f"ip link add other type veth peer name eth0 netns {other.pid}"),
            (network, "ip link set other up master bridge0"),
            (other, "ip address add 192.0.2.2/24 dev eth0"),
            (other, "ip link set eth0 up"),
        ):
            where.run(*command.split())
        command = [
            *(program("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--port=0"),
            "--pid-file=",
            *("--dhcp-range=192.0.2.100,192.0.2.200,1h", "--user=root", "--dhcp-authoritative"),
            *(f"--dhcp-leasefile={directory}/other-leases", "--interface=eth0"),
            f"--log-facility={directory}/other.log",
        ]
        with subprocess.Popen(other.enter(*command)) as process:
            try:
                yield
            finally:
                process.kill()


@contextmanager
def booted(directory, files, *arguments, proxy=""):
    """Serve files, start a machine, and yield it. `proxy` is the configuration of a ProxyDHCP."""
    qemu, executable = program("qemu-system-x86_64"), program("dnsmasq")
    listen = [{"address": SERVER}, {"address": SERVER, "port": 80, "protocol": "http"}]
    root = directory / "root"
    root.mkdir()
    for name, content in files.items():
        (root / name).write_bytes(content)
    with host() as server:
        for command in (
            "ip link add bridge0 type bridge",
            "ip tuntap add dev tap0 mode tap",
            f"ip address add {SERVER}/24 dev bridge0",
            "ip link set bridge0 up",
            "ip link set tap0 up master bridge0",
        ):
            server.run(*command.split())
        directories = [{"path": "/", "root": str(root), "read": {"templates": True}}]
        with daemon(
            directory, within=server.enter(), listen=listen, directories=directories
        ) as running:
            lines = io.StringIO()
            with redirect_stdout(lines):
                assert main(["dhcp-config", "dnsmasq", str(running.config)]) == 0
            dhcp = directory / "dnsmasq.conf"
            own_range = "port=0\ndhcp-range=192.0.2.100,192.0.2.200,1h\n"
            text = proxy or own_range + lines.getvalue()
            dhcp.write_text("interface=bridge0\n" + text)
            machine = Machine(directory, running.log)
            commands = [
                [executable, "--keep-in-foreground", f"--conf-file={dhcp}", "--user=root",
                 "--dhcp-authoritative", f"--dhcp-leasefile={directory}/leases", "--pid-file=",
                 "--log-dhcp", f"--log-facility={directory}/dhcp.log"],
                # Software emulation: a virtual machine often has no KVM of its own.
                [qemu, "-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none",
                 "-serial", f"file:{machine.console}", "-no-reboot",
                 "-netdev", "tap,id=cable,ifname=tap0,script=no,downscript=no", *arguments],
            ]  # fmt: skip
            with ExitStack() as stack:
                if proxy:
                    stack.enter_context(_address_server(directory, server))
                for command in commands:
                    process = stack.enter_context(subprocess.Popen(server.enter(*command)))
                    stack.callback(process.kill)
                until(machine.console.exists)
                yield machine


def _uefi(directory, *arguments):
    """Return the arguments of a machine with UEFI and without PXE ROM."""
    code = _file("OVMF/OVMF_CODE_4M.fd")
    variables = directory / "variables.fd"
    shutil.copy(_file("OVMF/OVMF_VARS_4M.fd"), variables)
    return [
        *("-machine", "q35", "-device", "virtio-net-pci,netdev=cable,romfile="),
        *("-drive", f"if=pflash,format=raw,readonly=on,file={code}"),
        *("-drive", f"if=pflash,format=raw,file={variables}"),
        *arguments,
    ]


def _fw_cfg(name, text):
    return "-fw_cfg", f"name=opt/org.tianocore/{name},string={text}"


@pytest.mark.parametrize("protocol", ["http", "tftp"])
def test_uefi_boots_grub(tmp_path, grub, protocol):
    files = {
        "grubx64.efi": grub,
        "over-http.txt": TEXT.encode(),
        "over-tftp.txt": TEXT.upper().encode(),
    }
    # Without PXE, UEFI continues with HTTP Boot.
    no_pxe = [*_fw_cfg("IPv4PXESupport", "n"), *_fw_cfg("IPv6PXESupport", "n")]
    arguments = _uefi(tmp_path, *(no_pxe if protocol == "http" else ()))
    with booted(tmp_path, files, *arguments) as machine:
        until(lambda: "GRUB has read its files" in machine.text(), BOOTS_WITHIN)
        text, transfers = machine.text(), machine.transfers()
    assert TEXT in text
    assert TEXT.upper() in text
    # The firmware asks for the size first.
    assert transfers[:4] == [
        (protocol, "grubx64.efi", "probe"),
        (protocol, "grubx64.efi", "done"),
        ("http", "over-http.txt", "done"),
        ("tftp", "over-tftp.txt", "done"),
    ]


def test_uefi_boots_ipxe_that_a_proxy_dhcp_server_names(tmp_path):
    ipxe = _file("ipxe/snponly.efi").read_bytes()
    files = {"snponly.efi": ipxe, "boot.ipxe": b"#!ipxe\nimgfetch done\n"}
    with booted(tmp_path, files, *_uefi(tmp_path), proxy=PROXY) as machine:
        until(lambda: ("tftp", "done", "refused") in machine.transfers(), BOOTS_WITHIN)
        transfers = machine.transfers()
    assert ("tftp", "snponly.efi", "done") in transfers
    assert ("tftp", "boot.ipxe", "done") in transfers
    assert (tmp_path / "other-leases").read_text()  # the address is of the other server


def test_ipxe_boots_a_script_that_a_proxy_dhcp_server_names(tmp_path):
    files = {"ipxe.pxe": b"not read", "boot.ipxe": b"#!ipxe\nimgfetch done\n"}
    device = ("-device", "virtio-net-pci,netdev=cable", "-machine", "pc,graphics=off", "-boot", "n")
    _file("ipxe/qemu/efi-virtio.rom")
    with booted(tmp_path, files, *device, proxy=PROXY) as machine:
        until(lambda: len(machine.transfers()) >= 2, BOOTS_WITHIN)
        transfers = machine.transfers()
    assert transfers[:2] == [("tftp", "boot.ipxe", "done"), ("tftp", "done", "refused")]
    assert (tmp_path / "other-leases").read_text()


def test_ipxe_boots_a_script_with_files_over_both_protocols(tmp_path):
    files = {
        "ipxe.pxe": b"not read: the network card has iPXE in its ROM",
        "boot.ipxe": IPXE_SCRIPT.encode(),
        "faulty.ipxe.j2": b"{{ undefined_name }}",
        "second.ipxe": SECOND_SCRIPT.encode(),
        "relative.txt": b"relative",
        "large.bin": bytes(1_000_000),
    }
    _file("ipxe/qemu/efi-virtio.rom")  # the ROM of the network card, for BIOS, too
    device = "virtio-net-pci,netdev=cable,mac=52:54:00:12:34:56"
    bios = ("-machine", "pc,graphics=off", "-boot", "n")
    with booted(tmp_path, files, "-device", device, *bios) as machine:
        until(lambda: "done-52-54" in str(machine.transfers()), BOOTS_WITHIN)
        transfers = machine.transfers()
    assert transfers == [
        ("tftp", "boot.ipxe", "done"),
        ("http", "large.bin", "done"),
        ("tftp", "large.bin", "done"),
        ("http", "faulty.ipxe", "refused"),  # once: iPXE repeats a request that gets 503
        ("http", "second.ipxe", "done"),
        ("http", "relative.txt", "done"),
        ("http", "done-52-54-00-12-34-56", "refused"),
    ]
