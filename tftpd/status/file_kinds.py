"""What a file is to a booting machine, by its name."""

import re
from enum import Enum

from tftpd.protocol.negotiation import Direction


class FileKind(Enum):
    """The part that a file has in a boot. The value is the word for people and JSON."""

    LOADER = "loader"
    MODULE = "module"
    CONFIG = "config"
    KERNEL = "kernel"
    INITRD = "initrd"
    IMAGE = "image"
    FILE = "file"
    UPLOAD = "upload"


def kind(filename: bytes, direction: Direction) -> FileKind:
    """What `filename` is by the habits of pxelinux, GRUB, iPXE, U-Boot, EDK2, Windows and others.

    The first pattern that is found decides.
    """
    if direction is Direction.WRITE:
        return FileKind.UPLOAD
    name = filename.lower().replace(b"\\", b"/")[-512:]
    return next((kind for kind, pattern in _PATTERNS if pattern.search(name)), FileKind.FILE)


def _any(*patterns: bytes) -> re.Pattern[bytes]:
    return re.compile(b"|".join(patterns))


# Patterns without repetition inside repetition: the names are the peer's.
_PATTERNS = (
    (
        FileKind.CONFIG,
        _any(
            rb"(^|/)pxelinux\.cfg/",
            rb"\.(cfg|conf|config|ipxe|ini|ks|preseed|yaml|yml|json|txt|scr|uimg)$",
            rb"(^|/)grub\.cfg",
            rb"(^|/)(bcd|cmdline|menu|default)$",
            rb"(^|/)config\.",
        ),
    ),
    (FileKind.MODULE, _any(rb"\.(mod|lst|c32|pf2|mui)$", rb"(^|/)(locale|fonts)/")),
    (
        FileKind.INITRD,
        _any(
            rb"(^|/)(initrd|initramfs|uinitrd|ramdisk|rootfs|modloop)[^/]*$",
            rb"\.(cpio|cpio\.gz|squashfs)$",
        ),
    ),
    (
        FileKind.KERNEL,
        _any(
            rb"(^|/)(vmlinu[xz]|bzimage|zimage|uimage|linux|kernel|xen|memdisk|mboot)[^/]*$",
            rb"(^|/)image(\.gz)?$",
            rb"\.(fit|itb|krn|lkrn)$",
        ),
    ),
    (
        FileKind.LOADER,
        _any(
            rb"\.(0|efi|k?k?pxe|n12|com|elf|bios)$",
            rb"(^|/)(bootcode|u-boot|bootmgr|loader|ldlinux)[^/]*$",
            rb"(^|/)core\.img$",
        ),
    ),
    (FileKind.IMAGE, _any(rb"\.(iso|img|wim|vhd|vhdx|sdi|bin|dsk|raw|qcow2)(\.gz|\.xz)?$")),
)
