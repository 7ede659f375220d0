"""`tftpd dhcp-config` prints lines that DHCP servers accept, and that name the loaders."""

import json
import re

import pytest
import yaml

from tests.docs.test_dhcp import PXE, SERVER, ask, check, discover, dnsmasq
from tftpd.daemon.cli import main
from tftpd.daemon.dhcp_config import SERVERS

FILES = (
    *("pxelinux.0", "undionly.kpxe", "efi/shimx64.efi", "efi/grubx64.efi", "ipxe-arm64.efi"),
    *("boot.ipxe.j2", "notes.txt", "grub/powerpc-ieee1275/core.elf", "EFI/BOOT/BOOTIA32.EFI"),
)
EXPECTED = {
    (0, b""): "pxelinux.0",
    (6, b""): "EFI/BOOT/BOOTIA32.EFI",
    (7, b""): "efi/shimx64.efi",
    (9, b""): "efi/shimx64.efi",
    (11, b""): "ipxe-arm64.efi",
    (12, b""): "grub/powerpc-ieee1275/core.elf",
    (7, b"iPXE"): "boot.ipxe",
}


@pytest.fixture
def run(tmp_path, capsys):
    """Return a function that prints a configuration for files below a root."""

    def run(server, files=FILES, arguments=(), status=0, read=True, path="/", **settings):
        root = tmp_path / "root"
        for name in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"x")
        root.mkdir(exist_ok=True)
        directories = [{"path": path, "root": str(root), "read": read}]
        listen = [{"address": SERVER}]
        config = tmp_path / "tftpd.yaml"
        config.write_text(yaml.safe_dump({"directories": directories, "listen": listen} | settings))
        assert main(["dhcp-config", server, str(config), *arguments]) == status
        output = capsys.readouterr()
        return output.err if status else output.out

    return run


TEMPLATES = {"templates": True}


def test_dnsmasq_has_a_line_for_each_platform(run):
    lines = run("dnsmasq", read=TEMPLATES).splitlines()
    assert f"dhcp-boot=tag:x64,tag:!ipxe,efi/shimx64.efi,,{SERVER}" in lines
    assert f"dhcp-boot=tag:ipxe,boot.ipxe,,{SERVER}" in lines
    assert "# BIOS can also use undionly.kpxe." in lines
    assert not any("notes" in line for line in lines)


def test_without_a_script_ipxe_gets_no_class_and_a_warning(run):
    text = run("dnsmasq", ["snponly.efi"])
    assert f"\ndhcp-boot=tag:x64,snponly.efi,,{SERVER}\n" in text
    assert "iPXE would load itself again" in text


def test_kea_has_a_class_for_each_loader(run):
    text = run("kea", read=TEMPLATES)
    classes = json.loads(re.sub("^//.*", "", text, flags=re.MULTILINE))["Dhcp4"]["client-classes"]
    assert {item["boot-file-name"] for item in classes} == set(EXPECTED.values())
    assert {item["next-server"] for item in classes} == {SERVER}


HTTP = [{"address": SERVER}, {"address": SERVER, "port": 80, "protocol": "http"}]
HTTP_EXPECTED = {
    15: f"http://{SERVER}/EFI/BOOT/BOOTIA32.EFI",
    16: f"http://{SERVER}/efi/shimx64.efi",
    19: f"http://{SERVER}/ipxe-arm64.efi",
}


def test_a_server_with_http_also_has_lines_for_http_boot(run):
    lines = run("dnsmasq", listen=HTTP).splitlines()
    assert f"dhcp-boot=tag:x64-http,http://{SERVER}/efi/shimx64.efi" in lines
    text = re.sub("^//.*", "", run("kea", listen=HTTP), flags=re.MULTILINE)
    classes = json.loads(text)["Dhcp4"]["client-classes"]
    urls = {item["boot-file-name"] for item in classes if item["name"].endswith("-http")}
    assert urls == set(HTTP_EXPECTED.values())
    assert all(f'filename "{url}";' in run("isc", listen=HTTP) for url in urls)


@pytest.mark.parametrize(
    ("port", "protocol", "address", "url"),
    [
        (80, "http", SERVER, f"http://{SERVER}/"),
        (8080, "http", "0.0.0.0", f"http://{SERVER}:8080/"),
        (80, "http", "::", f"http://{SERVER}/"),
        (80, "http", "192.0.2.99", ""),
    ],
)
def test_the_url_is_that_of_the_listener(run, port, protocol, address, url):
    listen = [{"address": SERVER}, {"address": address, "port": port, "protocol": protocol}]
    text = run("dnsmasq", ["bootx64.efi"], listen=listen)
    assert (f"dhcp-boot=tag:x64-http,{url}bootx64.efi" in text) == bool(url)


def test_bios_has_no_http_boot(run):
    assert "http" not in run("dnsmasq", ["pxelinux.0"], listen=HTTP)


def test_names_have_the_prefix_of_their_directory(run):
    assert ",boot/pxelinux.0,," in run("dnsmasq", ["pxelinux.0"], path="/boot")


def test_the_address_is_that_of_the_listener_or_of_the_option(run):
    arguments = ("--address", "192.0.2.9")
    assert run("dnsmasq", arguments=arguments).endswith(",,192.0.2.9\n")
    listen = [{"address": "0.0.0.0"}, {"address": "127.0.0.1", "port": 70}]
    assert "use --address ADDRESS" in run("isc", listen=listen, status=1)
    assert run("isc", arguments=arguments, listen=listen)


def test_an_address_of_ipv6_is_refused(run):
    with pytest.raises(SystemExit):
        run("isc", arguments=("--address", "2001:db8::1"))


def test_another_port_is_a_note(run):
    listen = [{"address": SERVER, "port": 6969}]
    assert "does not listen on port 69" in run("isc", listen=listen)


def test_the_port_of_http_does_not_count_as_that_of_tftp(run):
    listen = [{"address": SERVER, "port": 6969}, HTTP[1] | {"port": 69}]
    assert "does not listen on port 69" in run("isc", listen=listen)


@pytest.mark.parametrize("name", ["readme", "a b/pxelinux.0", "1/2/3/4/pxelinux.0"])
def test_no_loader_is_a_failure(run, name):
    assert "no boot loader was found" in run("kea", [name], status=1)


def test_directories_of_single_clients_are_left_out(run, tmp_path):
    (tmp_path / "root/{mac}").mkdir(parents=True)
    own = [{"path": "/", "root": str(tmp_path / "root/{mac}"), "read": True}]
    run("dnsmasq", ["pxelinux.0"], directories=own, status=1)


@pytest.mark.check
def test_dnsmasq_hands_out_the_loaders(run, tmp_path):
    lines = run("dnsmasq", read=TEMPLATES, listen=HTTP)
    check_file = tmp_path / "test.conf"
    check_file.write_text(lines)
    check("dnsmasq", "--test", f"--conf-file={check_file}")
    text = f"dhcp-range=192.0.2.100,192.0.2.200,12h\n{lines}"
    with dnsmasq(text, tmp_path) as client:
        for (number, user_class), file in EXPECTED.items():
            offer = ask(client, discover(number, user_class, PXE % number))
            assert (offer.server, offer.file) == (SERVER, file)
        for number, url in HTTP_EXPECTED.items():
            offer = ask(client, discover(number, b"", b"HTTPClient:Arch:%05d" % number))
            assert (offer.file, offer.options[60]) == (url, b"HTTPClient")


@pytest.mark.check
@pytest.mark.parametrize("files", [FILES, ["pxelinux.0"]])
@pytest.mark.parametrize("read", [True, TEMPLATES], ids=["plain", "templates"])
@pytest.mark.parametrize("listen", [HTTP[:1], HTTP], ids=["tftp", "http"])
def test_kea_and_dhcpd_accept_their_lines(run, tmp_path, files, read, listen):
    for server, command in {"kea": ("kea-dhcp4", "-t"), "isc": ("dhcpd", "-t", "-cf")}.items():
        file = tmp_path / server
        file.write_text(run(server, files, read=read, listen=listen))
        check(*command, str(file))


def test_all_servers_have_a_format(run):
    assert all(run(server) for server in SERVERS)
