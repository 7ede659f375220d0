"""First requests of real clients: each is recognised and gets the right profile.

The requests were captured from the programs and firmware; `tftpd/config/profiles.yaml`
names the source of each.
"""

from dataclasses import replace

import pytest

from tests.support.fakes import MemoryServer
from tftpd.access.profiles import DEFAULT_PROFILE, Profiles
from tftpd.config.profiles import load_shipped_profiles
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq

_SIZE = 100_000


@pytest.fixture
def server(offer, root):
    profiles = Profiles(
        name_of_profile.build_profile() for name_of_profile in load_shipped_profiles()
    )
    return MemoryServer(lambda report: replace(offer(report), profiles=profiles))


def _options(text):
    return tuple((name, value) for name, _, value in (o.partition(b"=") for o in text.split()))


def _request(server, root, request):
    """Return the first reply and the name of the profile."""
    if isinstance(request, Rrq):
        path = root / request.filename.decode().strip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(_SIZE))
    client = server.client()
    answer = client.request(request)
    client.send(ErrorPacket(0, ""))
    (report,) = server.reports
    assert server.idle
    return answer, report.profile


@pytest.mark.parametrize(
    ("profile", "name", "options", "oack"),
    [
        ("curl", b"f", b"tsize=0 blksize=512 timeout=6", b"tsize=100000 blksize=512 timeout=6"),
        ("curl", b"f", b"tsize=0 blksize=8192 timeout=6", b"tsize=100000 blksize=8192 timeout=6"),
        ("pxelinux", b"pxelinux.cfg/default", b"tsize=0 blksize=1408",
         b"tsize=100000 blksize=1408"),
        ("ipxe", b"boot.ipxe", b"blksize=1432 tsize=0", b"blksize=1432 tsize=100000"),
        ("ipxe", b"boot.ipxe", b"blksize=1432 tsize=0 multicast=", b"blksize=1432 tsize=100000"),
        ("grub", b"/grub/grub.cfg", b"blksize=1024 tsize=0", b"blksize=1024 tsize=100000"),
        ("tftpc", b"f", b"tsize=0 blksize=1468 windowsize=16",
         b"tsize=100000 blksize=1468 windowsize=16"),
        ("windows-bootmgr", b"Boot/x64/boot.sdi",
         b"tsize=0 blksize=1456 windowsize=4 msftwindow=31416",
         b"tsize=100000 blksize=1456 windowsize=4"),
        ("edk2", b"bootx64.efi", b"tsize=0 blksize=1468 windowsize=4",
         b"tsize=100000 blksize=1468 windowsize=4"),
        ("edk2", b"bootx64.efi", b"blksize=1468 windowsize=4", b"blksize=1468 windowsize=4"),
        ("edk2", b"bootx64.efi", b"tsize=0 blksize=1228 windowsize=4",
         b"tsize=100000 blksize=1228 windowsize=4"),
        ("edk2", b"bootx64.efi", b"tsize=0 blksize=1468", b"tsize=100000 blksize=1468"),
        ("shim", b"grubx64.efi", b"blksize=512 windowsize=4", b"blksize=512 windowsize=4"),
        ("u-boot", b"Image", b"timeout=5 tsize=0 blksize=1468",
         b"timeout=5 tsize=100000 blksize=1468"),
        ("u-boot", b"Image", b"timeout=5 blksize=1468", b"timeout=5 blksize=1468"),
        ("u-boot", b"Image", b"timeout=5 blksize=1468 windowsize=8",
         b"timeout=5 blksize=1468 windowsize=8"),
        ("raspberry-pi", b"ab5a4158/start4.elf", b"tsize=0 blksize=1024",
         b"tsize=100000 blksize=1024"),
        ("raspberry-pi-5", b"d905d499/boot.img", b"tsize=0 blksize=1468",
         b"tsize=100000 blksize=1468"),
        ("raspberry-pi-5", b"config.txt", b"tsize=0 blksize=1468", b"tsize=100000 blksize=1468"),
        ("raspberry-pi-bootcode", b"e1ffda08/start.elf", b"tsize=0", b"tsize=100000"),
        ("slof", b"core.elf", b"blksize=1428", b"blksize=1428"),
        ("pxe-rom-size", b"pxelinux.0", b"tsize=0", b"tsize=100000"),
        ("pxe-rom", b"pxelinux.0", b"blksize=1456", b"blksize=1456"),
        ("atftp", b"f", b"tsize=0 timeout=3 blksize=1428 windowsize=8",
         b"tsize=100000 timeout=3 blksize=1428 windowsize=8"),
        ("npm-tftp", b"f", b"blksize=1468 timeout=3000 windowsize=4 rollover=0 tsize=0",
         b"blksize=1468 windowsize=4 rollover=0 tsize=100000"),
        ("erlang-tftp", b"f", b"timeout=3 blksize=1024 tsize=0",
         b"timeout=3 blksize=1024 tsize=100000"),
        ("busybox", b"f", b"tsize=0", b"tsize=100000"),
        ("", b"f", b"blksize=8192 tsize=0", b"blksize=8192 tsize=100000"),
    ],
)  # fmt: skip
def test_a_client_is_recognised_by_its_first_read(server, root, profile, name, options, oack):
    answer, name_of_profile = _request(server, root, Rrq(name, b"octet", _options(options)))
    assert (answer, name_of_profile) == ([Oack(_options(oack))], profile)


@pytest.mark.parametrize(
    ("profile", "name", "mode"),
    [
        ("raspberry-pi-rom", b"bootcode.bin", b"octet"),
        ("no-options", b"f", b"octet"),
        ("no-options", b"router.cfg", b"netascii"),
    ],
)
def test_a_request_without_options_gets_data_at_once(server, root, profile, name, mode):
    answer, name_of_profile = _request(server, root, Rrq(name, mode))
    assert ([(type(one), one.block) for one in answer], name_of_profile) == ([(Data, 1)], profile)


@pytest.mark.parametrize(
    ("profile", "options"),
    [
        ("curl", b"tsize=2000 blksize=512 timeout=6"),
        ("u-boot", b"timeout=5 tsize=2000 blksize=1468"),
        ("busybox", b"tsize=2000"),
    ],
)
def test_a_client_is_recognised_by_its_first_write(server, root, profile, options):
    answer, name_of_profile = _request(server, root, Wrq(b"in/new", b"octet", _options(options)))
    assert (answer, name_of_profile) == ([Oack(_options(options))], profile)


def test_curl_gets_no_tsize_of_an_empty_file_and_others_do(server):
    client = server.client()
    request = Rrq(b"empty", b"octet", _options(b"tsize=0 blksize=512 timeout=6"))
    assert client.request(request) == [Oack(_options(b"blksize=512 timeout=6"))]
    assert client.send(Ack(0)) == [Data(1, b"")]
    client.send(Ack(1))
    other = server.client(port=2071)
    answer = other.request(Rrq(b"empty", b"octet", _options(b"tsize=0 blksize=1468 windowsize=4")))
    assert answer == [Oack(_options(b"tsize=0 blksize=1468 windowsize=4"))]
    other.send(ErrorPacket(8, "User aborted the transfer"))
    assert [report.profile for report in server.reports] == ["curl", "edk2"]


def test_requests_for_missing_files_have_the_profile_of_the_boot_loader(server):
    client = server.client(port=49153)
    for name in (b"01-52-54-00-12-34-56", b"C0000207", b"C000020", b"default"):
        request = Rrq(b"pxelinux.cfg/" + name, b"octet", _options(b"tsize=0 blksize=1408"))
        assert client.request(request) == [ErrorPacket(1, "File not found")]
    assert {report.profile for report in server.reports} == {"pxelinux"}


def test_shipped_profiles_never_raise_limits_and_match_options_or_names_only():
    """Such profiles work behind routers and cost no netlink query."""
    profiles = [name_of_profile.build_profile() for name_of_profile in load_shipped_profiles()]
    assert not Profiles(profiles).needs_mac
    assert not Profiles(profiles).answers_broadcasts
    assert {one.name for one in profiles if not one.empty_tsize} == {"curl"}
    slow_profiles = {one.name for one in profiles if one.min_interval is not None}
    assert slow_profiles == {one.name for one in profiles if one.name.startswith("raspberry-pi")}
    assert {one.min_interval for one in profiles} == {None, 1.0}
    for name in ("refuse", "blksize", "windowsize", "rollover", "idle_timeout", "packet_interval"):
        assert {getattr(one, name) for one in profiles} == {getattr(DEFAULT_PROFILE, name)}
    assert {one.duplicates for one in profiles} == {0}
