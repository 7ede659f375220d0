"""Files are classified by their names."""

import time

import pytest

from tftpd.protocol.negotiation import Direction
from tftpd.status.file_kinds import FileKind, classify

NAMES = {
    FileKind.LOADER: "pxelinux.0 lpxelinux.0 undionly.kpxe ipxe.pxe bootx64.efi "
    "EFI\\BOOT\\grubx64.efi shimx64.efi bootmgfw.efi wdsnbp.com pxeboot.n12 bootmgr.exe "
    "bootcode.bin abc123/start4.elf "
    "u-boot.bin grub/i386-pc/core.img ldlinux.e64",
    FileKind.MODULE: "ldlinux.c32 grub/x86_64-efi/normal.mod grub/x86_64-efi/moddep.lst "
    "boot/grub/fonts/unicode.pf2",
    FileKind.CONFIG: "pxelinux.cfg/default pxelinux.cfg/01-88-99-aa-bb-cc-dd /grub/grub.cfg "
    "grub.cfg-01-52-54-00-12-34-56 boot.ipxe config.txt cmdline.txt boot.scr.uimg "
    "Boot/BCD preseed.cfg",
    FileKind.KERNEL: "vmlinuz debian/amd64/vmlinuz-6.1.0 bzImage zImage uImage Image kernel8.img "
    "linux memdisk fitImage.itb ipxe.lkrn",
    FileKind.INITRD: "initrd.gz initrd.img-6.1 casper/initrd initramfs-linux.img rootfs.cpio "
    "rootfs.cpio.gz live.squashfs uInitrd",
    FileKind.IMAGE: "debian.iso boot.wim boot.sdi firmware.bin disk.img.xz",
    FileKind.FILE: "readme bcm2711-rpi-4-b.dtb",
}


@pytest.mark.parametrize(
    ("name", "expected"), [(name, kind) for kind in NAMES for name in NAMES[kind].split()]
)
def test_a_name_is_classified(name, expected):
    assert classify(name.encode(), Direction.READ) is expected


def test_a_written_file_is_an_upload():
    assert classify(b"pxelinux.0", Direction.WRITE) is FileKind.UPLOAD


@pytest.mark.parametrize("name", [b"a/" * 2000, b"initrd" * 700, b"." * 4000, b"\xff\0" * 2000])
def test_long_names_are_classified_fast(name):
    before = time.process_time()
    for _ in range(100):
        classify(name, Direction.READ)
    assert time.process_time() - before < 1.0
