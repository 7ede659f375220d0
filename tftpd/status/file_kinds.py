"""Classify files by their names: loader, kernel, configuration and so on."""

import re
from enum import Enum

from tftpd.protocol.negotiation import Direction

_MAX_NAME_BYTES = 512  # of the end of a name


class FileKind(Enum):
    """Purpose of a file in a boot. The value appears on the status page and in JSON."""

    LOADER = "loader"
    MODULE = "module"
    CONFIG = "config"
    KERNEL = "kernel"
    INITRD = "initrd"
    IMAGE = "image"
    FILE = "file"
    UPLOAD = "upload"


def classify(filename: bytes, direction: Direction) -> FileKind:
    """Return the kind of a file by the names that common boot loaders use.

    The first pattern that matches decides. The patterns cover pxelinux, GRUB, iPXE, U-Boot,
    EDK2, Windows and others.
    """
    if direction is Direction.WRITE:
        return FileKind.UPLOAD
    name = filename.lower().replace(b"\\", b"/")[-_MAX_NAME_BYTES:]
    return next((kind for kind, pattern in _PATTERNS if re.search(pattern, name)), FileKind.FILE)


# No nested repetition: peers choose the names, and matching must stay fast.
_PATTERNS = (
    (FileKind.CONFIG, rb"(^|/)pxelinux\.cfg/"),
    (FileKind.CONFIG, rb"\.(cfg|conf|config|ipxe|ini|ks|preseed|yaml|yml|json|txt|scr|uimg)$"),
    (FileKind.CONFIG, rb"(^|/)(grub\.cfg|config\.)"),
    (FileKind.CONFIG, rb"(^|/)(bcd|cmdline|menu|default)$"),
    (FileKind.MODULE, rb"\.(mod|lst|c32|pf2|mui)$"),
    (FileKind.MODULE, rb"(^|/)(locale|fonts)/"),
    (FileKind.INITRD, rb"(^|/)(initrd|initramfs|uinitrd|ramdisk|rootfs|modloop)[^/]*$"),
    (FileKind.INITRD, rb"\.(cpio|cpio\.gz|squashfs)$"),
    (FileKind.KERNEL, rb"(^|/)(vmlinu[xz]|bzimage|zimage|uimage|linux|kernel)[^/]*$"),
    (FileKind.KERNEL, rb"(^|/)(xen|memdisk|mboot)[^/]*$"),
    (FileKind.KERNEL, rb"(^|/)image(\.gz)?$"),
    (FileKind.KERNEL, rb"\.(fit|itb|krn|lkrn)$"),
    (FileKind.LOADER, rb"\.(0|efi|k?k?pxe|n12|com|elf|bios)$"),
    (FileKind.LOADER, rb"(^|/)(bootcode|u-boot|bootmgr|loader|ldlinux)[^/]*$"),
    (FileKind.LOADER, rb"(^|/)core\.img$"),
    (FileKind.IMAGE, rb"\.(iso|img|wim|vhd|vhdx|sdi|bin|dsk|raw|qcow2)(\.gz|\.xz)?$"),
)
