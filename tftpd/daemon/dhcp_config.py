"""`tftpd dhcp-config`: print the lines of a DHCP server that name the boot loaders."""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from tftpd.access.mounts import Mount
from tftpd.config.loader import load_settings
from tftpd.config.settings import Settings

SERVERS = ("dnsmasq", "kea", "isc")

_MAX_DEPTH = 3  # directories below a root
_MAX_DIRECTORIES = 10_000
_TEMPLATE = ".j2"
_PORT = 69  # DHCP has no option for another one
_PLAIN = re.compile(r"[A-Za-z0-9._/+-]{1,127}")  # RFC 2131: the field `file` has 128 bytes


@dataclass(frozen=True)
class _Platform:
    """A kind of firmware.

    Attributes:
        label: Name of the class in the configuration of the DHCP server.
        text: Name for people.
        numbers: Client architectures (DHCP option 93, RFC 4578, registry of IANA).
        loaders: Names of boot loaders in lower case, the preferred one first. A name with a
            directory is that of grub-mknetdir.
        http_number: Client architecture of the same machine in UEFI HTTP Boot; 0 if there is none.
    """

    label: str
    text: str
    numbers: tuple[int, ...]
    loaders: tuple[str, ...]
    http_number: int = 0


def _uefi(suffix: str, *more: str) -> tuple[str, ...]:
    """Return the names of loaders for UEFI; shim comes first, because it starts GRUB."""
    signed = (f"shim{suffix}.efi.signed", f"grubnet{suffix}.efi.signed")
    names = ("boot", "shim", "grub", "grubnet", "ipxe", "snponly")
    return (*(f"{name}{suffix}.efi" for name in names), *signed, *more)


_PLATFORMS = (
    _Platform(
        *("bios", "BIOS", (0,)),
        ("pxelinux.0", "lpxelinux.0", "undionly.kpxe", "ipxe.pxe", "i386-pc/core.0"),
    ),
    _Platform("ia32", "UEFI IA-32", (6,), _uefi("ia32", "ipxe-i386.efi", "i386-efi/core.efi"), 15),
    _Platform(
        # 9 is EFI byte code; x86-64 firmware of the first years sends it.
        *("x64", "UEFI x86-64", (7, 9)),
        _uefi("x64", "ipxe.efi", "snponly.efi", "ipxe-x86_64.efi", "x86_64-efi/core.efi"),
        16,
    ),
    _Platform("arm32", "UEFI ARM 32-bit", (10,), _uefi("arm", "ipxe-arm32.efi"), 18),
    _Platform(
        *("arm64", "UEFI ARM 64-bit", (11,)),
        _uefi("aa64", "ipxe-arm64.efi", "snponly-arm64.efi", "arm64-efi/core.efi"),
        19,
    ),
    _Platform("powerpc", "PowerPC Open Firmware", (12,), ("powerpc-ieee1275/core.elf",)),
    _Platform("riscv64", "UEFI RISC-V 64-bit", (27,), _uefi("riscv64", "ipxe-riscv64.efi"), 28),
    _Platform(
        *("loong64", "UEFI LoongArch 64-bit", (39,)),
        _uefi("loongarch64", "ipxe-loong64.efi"),
        40,
    ),
)
_SCRIPTS = ("boot.ipxe", "autoexec.ipxe", "menu.ipxe", "default.ipxe")  # for the user class iPXE
_IS_IPXE = re.compile(r"ipxe|undionly|snponly")


@dataclass
class _Boot:
    """Files that DHCP hands out.

    Attributes:
        address: IPv4 address of the TFTP server.
        files: Platforms with a loader, and the requested name.
        script: Requested name of the script for iPXE; empty if there is none.
        notes: Comments for the administrator.
        url: URL of the same files, with a slash at its end; empty if the server has no HTTP.
    """

    address: str
    files: list[tuple[_Platform, str]] = field(default_factory=list)
    script: str = ""
    notes: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def http_files(self) -> list[tuple[_Platform, int, str]]:
        """Platforms with UEFI HTTP Boot, their numbers, and the URLs of their loaders."""
        files = ((each, each.http_number, self.url + name) for each, name in self.files)
        return [file for file in files if self.url and file[1]]


class _NoBootError(Exception):
    """There is nothing to print. The text is one line."""


def dhcp_config(arguments: argparse.Namespace) -> int:
    """Print the configuration, or the reason why there is none; return the exit status."""
    settings = load_settings(Path(arguments.config))
    try:
        boot = _find_boot(settings, arguments.address)
    except _NoBootError as error:
        print(f"tftpd: {error}", file=sys.stderr)
        return 1
    print(_FORMATS[arguments.server](boot), end="")
    return 0


def _find_boot(settings: Settings, address: str | None) -> _Boot:
    boot = _Boot(address or _own_address(settings))
    boot.url = _http_url(settings, boot.address)
    if _PORT not in {listen.port for listen in settings.listen if listen.protocol == "tftp"}:
        boot.notes.append(f"The server does not listen on port {_PORT}, and DHCP names no port.")
    names = sorted(_served_names(settings), key=lambda name: (name.count("/"), len(name), name))
    for platform in _PLATFORMS:
        found = [name for loader in platform.loaders for name in _matching(names, loader)]
        if found:
            boot.files.append((platform, found[0]))
        if found[1:]:
            boot.notes.append(f"{platform.text} can also use {', '.join(found[1:])}.")
    if not boot.files:
        raise _NoBootError("no boot loader was found: see the names in tftpd(8), dhcp-config")
    scripts = [name for script in _SCRIPTS for name in _matching(names, script)]
    boot.script = scripts[0] if scripts else ""
    if not scripts and any(_IS_IPXE.search(name) for _, name in boot.files):
        boot.notes.append("iPXE would load itself again: write a script boot.ipxe for it.")
    return boot


def _own_address(settings: Settings) -> str:
    for listen in settings.listen:
        address = ip_address(listen.address)
        if address.version == 4 and not (address.is_unspecified or address.is_loopback):
            return listen.address
    raise _NoBootError("`listen` names no address of this server: use --address ADDRESS")


def _http_url(settings: Settings, address: str) -> str:
    """Return the URL of a server that listens on this address; plain HTTP is preferred."""
    listeners = [each for each in settings.listen if each.address in (address, "0.0.0.0", "::")]
    for protocol, port in (("http", 80), ("https", 443)):
        for listen in listeners:
            if listen.protocol == protocol:
                suffix = "" if listen.port == port else f":{listen.port}"
                return f"{protocol}://{address}{suffix}/"
    return ""


def _matching(names: Sequence[str], loader: str) -> list[str]:
    """Return the names of a loader in any directory and in any letter case."""
    return [name for name in names if f"/{name.lower()}".endswith(f"/{loader}")]


def _served_names(settings: Settings) -> set[str]:
    """Return the plain names of files that all clients may read from this host."""
    names: set[str] = set()
    for mount in settings.build_mounts():
        if mount.read is not None and not mount.per_client:
            prefix = "/".join(map(os.fsdecode, mount.prefix))
            for root in mount.local_roots:
                names.update(_names_below(root, f"{prefix}/" if prefix else "", mount))
    return {name for name in names if _PLAIN.fullmatch(name)}


def _names_below(root: Path, prefix: str, mount: Mount) -> Iterator[str]:
    for count, (directory, folders, files) in enumerate(os.walk(root), 1):
        below = Path(directory).relative_to(root)
        if len(below.parts) >= _MAX_DEPTH or count > _MAX_DIRECTORIES:
            folders.clear()
        folders.sort()
        for file in files:
            is_template = bool(mount.read and mount.read.templates) and file.endswith(_TEMPLATE)
            name = file.removesuffix(_TEMPLATE) if is_template else file
            yield prefix + (below / name).as_posix()


def _format_dnsmasq(boot: _Boot) -> str:
    unless = "tag:!ipxe," if boot.script else ""
    lines = _comments(boot, "#")
    lines.append("# Also needed: dhcp-range. Do not set enable-tftp.")
    for platform, _ in boot.files:
        lines += (
            f"dhcp-match=set:{platform.label},option:client-arch,{number}"
            for number in platform.numbers
        )
    if boot.script:
        lines.append("dhcp-userclass=set:ipxe,iPXE")
    for platform, name in boot.files:
        lines.append(f"# {platform.text}")
        lines.append(f"dhcp-boot=tag:{platform.label},{unless}{name},,{boot.address}")
    if boot.script:
        lines += ["# a machine that runs iPXE", f"dhcp-boot=tag:ipxe,{boot.script},,{boot.address}"]
    for platform, number, url in boot.http_files:
        tag = f"{platform.label}-http"
        lines += [
            f"# {platform.text}, HTTP Boot",
            f"dhcp-match=set:{tag},option:client-arch,{number}",
            f"dhcp-option-force=tag:{tag},option:vendor-class,HTTPClient",
            f"dhcp-boot=tag:{tag},{url}",
        ]
    return "\n".join(lines) + "\n"


def _format_isc(boot: _Boot) -> str:
    branches = [('option user-class = "iPXE"', boot.script, "iPXE")] if boot.script else []
    for platform, name in boot.files:
        tests = (f"option arch = 00:{number:02x}" for number in platform.numbers)
        branches.append((" or ".join(tests), name, platform.text))
    lines = _comments(boot, "#")
    lines += [
        "# Also needed: a subnet with a range.",
        "option arch code 93 = unsigned integer 16;",
        "",
        'class "pxe" {',
        '    match if substring(option vendor-class-identifier, 0, 9) = "PXEClient";',
        f"    next-server {boot.address};",
    ]
    for n, (test, name, text) in enumerate(branches):
        start = "} elsif" if n else "if"
        lines += [f"    {start} {test} {{  # {text}", f'        filename "{name}";']
    lines += ["    }", "}"]
    if boot.http_files:
        lines += [
            "",
            'class "http-boot" {',
            '    match if substring(option vendor-class-identifier, 0, 10) = "HTTPClient";',
            '    option vendor-class-identifier "HTTPClient";',
        ]
        for n, (platform, number, url) in enumerate(boot.http_files):
            start = "} elsif" if n else "if"
            lines.append(f"    {start} option arch = 00:{number:02x} {{  # {platform.text}")
            lines.append(f'        filename "{url}";')
        lines += ["    }", "}"]
    return "\n".join(lines) + "\n"


def _format_kea(boot: _Boot) -> str:
    server = {"next-server": boot.address}
    classes: list[dict[str, object]] = []
    unless = ""
    if boot.script:
        test = "substring(option[77].hex, 0, 4) == 'iPXE'"
        classes.append({"name": "ipxe", "test": test, **server, "boot-file-name": boot.script})
        unless = "not member('ipxe') and "
    for platform, name in boot.files:
        numbers = " or ".join(f"option[93].hex == 0x{number:04x}" for number in platform.numbers)
        test = f"{unless}({numbers})"
        classes.append({"name": platform.label, "test": test, **server, "boot-file-name": name})
    vendor_class = {
        "name": "vendor-class-identifier",
        "data": "HTTPClient",
        "always-send": True,
    }
    for platform, number, url in boot.http_files:
        test = f"option[93].hex == 0x{number:04x}"
        classes.append(
            {
                "name": f"{platform.label}-http",
                "test": test,
                "boot-file-name": url,
                "option-data": [vendor_class],
            }
        )
    document = json.dumps({"Dhcp4": {"client-classes": classes}}, indent=2)
    notes = [*_comments(boot, "//"), "// Also needed: interfaces-config and subnet4."]
    return "\n".join([*notes, document]) + "\n"


def _comments(boot: _Boot, sign: str) -> list[str]:
    lines = (f"Boot loaders of the TFTP server {boot.address}.", *boot.notes)
    return [f"{sign} {line}" for line in lines]


_FORMATS = {"dnsmasq": _format_dnsmasq, "kea": _format_kea, "isc": _format_isc}
