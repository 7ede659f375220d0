"""Names that fallbacks derive from a requested name."""

from ipaddress import ip_address
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tftpd.access.client import ClientIdentity
from tftpd.access.fallbacks import (
    MAX_CANDIDATES,
    MAX_REPAIRED_BYTES,
    Candidate,
    Fallback,
    FallbackChain,
    LastReads,
    fold,
)
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.paths import PARENT, RequestName, split_name
from tftpd.access.rewrite import NameRules
from tftpd.config.names import Encoding, NamesSection
from tftpd.protocol.errors import RequestRefused

ANY = ClientIdentity(ip_address("192.0.2.7"))

DRIVE, TRAILING, PREFIX, CASE, SIBLING, DEFAULT_LOADER = Fallback
CHAIN = FallbackChain((), ((b"boot",), (b"srv", b"tftp")), ((b"grubx64.efi",), (b"l", b"e")))


def candidate_names(name, *fallbacks):
    return [candidate.name for candidate in CHAIN.candidates(name, fallbacks)]


@pytest.mark.parametrize(
    ("fallback", "name", "derived"),
    [
        (DRIVE, b"C:\\Boot\\x", [b"\\Boot\\x"]),
        (DRIVE, b"/c:/x", [b"/x"]),
        (DRIVE, b"c:", []),
        (DRIVE, b"cc:/x", []),
        (DRIVE, b"1:/x", []),
        (DRIVE, b"Xc:/x", []),
        (TRAILING, b"pxelinux.0\xff", [b"pxelinux.0"]),
        (TRAILING, b"x.0\xff\x12a", [b"x.0"]),
        (TRAILING, b"x \r\n", [b"x", b"x "]),
        (TRAILING, b"a b", []),
        (TRAILING, b"a\x01b\xff", [b"a\x01b", b"a"]),
        (TRAILING, b"\xff\xff", []),
        (PREFIX, b"/boot/x", [b"x", b"srv/tftp/boot/x"]),
        (PREFIX, b"\\srv\\tftp\\x", [b"x", b"boot/srv/tftp/x"]),
        (PREFIX, b"/boot/x/y", [b"x/y", b"srv/tftp/boot/x/y"]),
        (PREFIX, b"x", [b"boot/x", b"srv/tftp/x"]),
        (PREFIX, b"bootx", [b"boot/bootx", b"srv/tftp/bootx"]),
    ],
)  # fmt: skip
def test_a_fallback_derives_names(fallback, name, derived):
    assert candidate_names(name, fallback) == derived


@pytest.mark.parametrize(
    ("name", "last_read", "derived"),
    [
        (b"grubx64.efi", b"/X\\BOOTX64.EFI", [b"X/grubx64.efi"]),
        (b"\\grubx64.efi", b"efi/debian/shimx64.efi", [b"efi/debian/grubx64.efi"]),
        (b"oader/revocations.efi", b"loader/shimx64.efi", [b"loader/revocations.efi"]),
        (b"debian/grubx64.efi", b"efi/debian/shimx64.efi", [b"efi/debian/grubx64.efi"]),
        (b"loader/x", b"loader/shimx64.efi", []),
        (b"other/x", b"loader/shimx64.efi", []),
        (b"x", b"shimx64.efi", []),
        (b"x", b"", []),
        (b"/", b"X/BOOTX64.EFI", []),
    ],
)
def test_a_name_is_searched_beside_the_last_read(name, last_read, derived):
    found = CHAIN.candidates(name, (SIBLING,), last_read)
    assert [candidate.name for candidate in found] == derived


@pytest.mark.parametrize(
    ("name", "derived"),
    [
        (b"dir/\xffOnboard", [b"dir/grubx64.efi", b"dir/l/e"]),
        (b"\xffa/b", [b"grubx64.efi", b"l/e"]),
        (b"a/\x01", [b"a/grubx64.efi", b"a/l/e"]),
        ("目录/文件".encode(), []),
        (b"dir/a b", []),
        (b"", []),
    ],
)
def test_the_default_loader_replaces_what_is_not_printable(name, derived):
    assert candidate_names(name, DEFAULT_LOADER) == derived


def test_a_name_without_directory_and_text_gives_the_loader_beside_the_last_read():
    found = CHAIN.candidates(b"\xffOnboard", (SIBLING, DEFAULT_LOADER), b"X/BOOTX64.EFI")
    assert b"X/grubx64.efi" in [candidate.name for candidate in found]


def test_last_reads_are_forgotten():
    now = 1.0
    reads = LastReads(lambda: now)
    assert reads.find(ANY.address) == b""
    reads.note(ANY.address, b"X/a")
    reads.note(ANY.address, b"X/" + b"a" * MAX_REPAIRED_BYTES)
    now += LastReads.MAX_AGE_SECONDS - 1
    assert reads.find(ANY.address) == b"X/a"
    now += 1
    assert reads.find(ANY.address) == b""
    reads.note(ANY.address, b"X/b")
    for number in range(LastReads.MAX_CLIENTS - 1):
        reads.note(ip_address(number), b"a")
    assert reads.find(ANY.address) == b"X/b"
    reads.note(ip_address("192.0.2.8"), b"a")
    assert reads.find(ANY.address) == b""


def test_a_name_longer_than_the_maximum_has_no_candidates():
    longest = b"C:" + b"x" * (MAX_REPAIRED_BYTES - 2)
    assert candidate_names(longest, *Fallback) != []
    assert candidate_names(longest + b"x", *Fallback) == []


def test_each_fallback_also_applies_to_earlier_results():
    requested = b"D:\\boot\\X\xff"
    candidates = [
        (
            candidate.name,
            [fallback.value for fallback in candidate.fallbacks],
            candidate.ignores_case,
        )
        for candidate in CHAIN.candidates(requested, (DRIVE, TRAILING, CASE))
    ]
    assert candidates == [
        (b"\\boot\\X\xff", ["drive"], False),
        (b"D:\\boot\\X", ["trailing"], False),
        (b"\\boot\\X", ["drive", "trailing"], False),
        (requested, ["case"], True),
        (b"\\boot\\X\xff", ["drive", "case"], True),
        (b"D:\\boot\\X", ["trailing", "case"], True),
        (b"\\boot\\X", ["drive", "trailing", "case"], True),
    ]


def test_without_fallbacks_no_name_is_tried():
    assert candidate_names(b"C:\\x\xff") == []


_HOSTILE = st.lists(
    st.one_of(
        st.sampled_from([b"..", b"/", b"\\", b".", b"C:", b"\xff", b"boot", b"in", b"\xd5\x5c"]),
        st.binary(max_size=6),
        st.text(max_size=3).map(lambda text: text.encode("utf-8", "replace")),
    ),
    max_size=9,
).map(b"".join)
_EVERY = FallbackChain(
    tuple(Fallback), ((b"boot",), (b"in", b"deep")), ((b"loader",), (b"in", b"loader"))
)


_NAMES = _HOSTILE.filter(lambda name: b"\0" not in name)


@pytest.mark.check
@settings(deadline=None)  # the first example loads encodings
@given(_NAMES, _NAMES)
def test_no_candidate_leaves_its_mount_or_has_a_nul(name, last_read):
    root = Mounts(
        [Mount((b"in",), (Root(Path("/srv/in")),))], NameRules((), _EVERY, get_args(Encoding))
    )
    candidates = list(_EVERY.candidates(name, root.fallbacks, last_read))
    assert len(candidates) <= MAX_CANDIDATES
    assert name not in [candidate.name for candidate in candidates if not candidate.ignores_case]
    assert len({(candidate.name, candidate.ignores_case) for candidate in candidates}) == len(
        candidates
    )
    for candidate in candidates:
        assert candidate.name
        assert b"\0" not in candidate.name
        for filename in (candidate.name, root.normalize_prefix(candidate.name)):
            try:
                mount, beneath = root.locate(filename, ANY)
            except RequestRefused:
                continue
            assert mount.prefix == (b"in",)
            assert PARENT not in beneath
            assert all(step and b"/" not in step and b"\\" not in step for step in beneath)
            assert split_name(b"/".join(beneath)) == beneath


def test_the_number_of_candidates_is_limited():
    prefixes = tuple((b"%d" % number,) for number in range(100))
    chain = FallbackChain((PREFIX,), prefixes)
    assert len(list(chain.candidates(b"x", (PREFIX, CASE)))) == MAX_CANDIDATES


@pytest.mark.parametrize(
    ("first", "second"),
    [(b"BCD", b"bcd"), ("ÄÖ".encode(), "äö".encode()), (b"\xff\xc4A", b"\xff\xc4a")],
)
def test_names_that_differ_in_case_fold_to_the_same(first, second):
    assert fold(first) == fold(second)


def test_a_prefix_gets_the_spelling_of_the_configuration():
    mounts = Mounts(
        [
            Mount((), (Root(Path("/a")),)),
            Mount((b"Boot",), (Root(Path("/b")),)),
            Mount((b"Boot", b"x"), (Root(Path("/c")),)),
        ]
    )
    assert mounts.normalize_prefix(b"/BOOT\\X/File") == b"Boot/x/File"
    assert mounts.normalize_prefix(b"bOOt/y") == b"Boot/y"
    assert mounts.normalize_prefix(b"other/Y") == b"other/Y"


def test_a_directory_may_replace_the_fallbacks_of_the_server():
    chain = FallbackChain((DRIVE,))
    here, there = (
        Mount((), (Root(Path("/a")),)),
        Mount((b"in",), (Root(Path("/b")),), fallbacks=(CASE,)),
    )
    both = Mounts([here, there], NameRules(fallbacks=chain))
    assert both.fallbacks == (DRIVE, CASE)
    drive, case = Candidate(b"x", (DRIVE,)), Candidate(b"x", (CASE,))
    assert both.allows(drive, b"x", ANY)
    assert not both.allows(case, b"x", ANY)
    assert both.allows(case, b"in/x", ANY)
    assert not both.allows(drive, b"in/x", ANY)
    assert Mounts([there], NameRules(fallbacks=chain)).fallbacks == (CASE,)
    assert (
        Mounts([Mount((), (Root(Path("/a")),), fallbacks=())], NameRules(fallbacks=chain)).fallbacks
        == ()
    )


def test_the_defaults_have_no_fallbacks_two_prefixes_and_two_loaders():
    rules = NamesSection().build_rules([])
    loaders = ((b"grubx64.efi",), (b"grubaa64.efi",))
    assert rules == NameRules((), FallbackChain((), ((b"boot",), (b"tftpboot",)), loaders), ())


def test_a_candidate_records_the_fallbacks_for_the_log():
    requested = RequestName(b"C:\\x\xff", ("rule",), {"model": b"x86"})
    *_, last = CHAIN.candidates(requested.name, (DRIVE, TRAILING))
    candidates = last.to_request_name(requested)
    assert (candidates.name, candidates.steps) == (b"\\x", ("rule", "drive", "trailing"))
    assert candidates.groups == {"model": b"x86"}


def test_a_name_that_is_too_long_keeps_its_prefix():
    assert candidate_names(b"/boot/" + b"x" * 4096, PREFIX) == []


def test_the_part_of_a_name_below_its_mount_gets_the_spelling_on_disk():
    mounts = Mounts([Mount((), (Root(Path("/a")),)), Mount((b"in",), (Root(Path("/b")),))])
    assert mounts.replace_tail(b"/in/d/File", (b"D", b"file"), ANY) == b"in/D/file"
    assert mounts.replace_tail(b"in/d/File", (b"file",), ANY) == b"in/d/file"
    assert mounts.replace_tail(b"d/File", (b"D", b"FILE"), ANY) == b"D/FILE"


def test_later_fallbacks_keep_ignoring_letter_case():
    candidates = [
        (first.name, first.ignores_case) for first in CHAIN.candidates(b"C:\\x", (CASE, DRIVE))
    ]
    assert candidates == [(b"C:\\x", True), (b"\\x", False), (b"\\x", True)]


def test_a_directory_may_replace_the_loaders_of_the_server():
    chain = FallbackChain((DEFAULT_LOADER,), (), ((b"grubx64.efi",),))
    arm = ((b"efi", b"grubaa64.efi"), (b"shim.efi",))
    mounts = Mounts(
        [
            Mount((), (Root(Path("/a")),)),
            Mount((b"arm",), (Root(Path("/b")),), default_loaders=arm),
            Mount((b"none",), (Root(Path("/c")),), fallbacks=(DRIVE,)),
        ],
        NameRules(fallbacks=chain),
    )
    assert mounts.fallback_chain.loaders == ((b"grubx64.efi",), *arm)

    def allowed(name):
        found = mounts.fallback_chain.candidates(name, mounts.fallbacks)
        return [each.name for each in found if mounts.allows(each, each.name, ANY)]

    assert allowed(b"\xff") == [b"grubx64.efi"]
    assert allowed(b"arm/\xff") == [b"arm/efi/grubaa64.efi", b"arm/shim.efi"]
    assert allowed(b"none/\xff") == []


def test_reads_of_this_process_are_reported_to_other_workers():
    reads, reported = LastReads(), []
    reads.on_note = lambda client, name: reported.append((client, name))
    here, there = ip_address("192.0.2.7"), ip_address("2001:db8::7")
    reads.note(here, b"X/shim.efi")
    reads.keep(there, b"Y/shim.efi")  # from another worker
    reads.note(here, b"x" * (MAX_REPAIRED_BYTES + 1))
    assert reported == [(here, b"X/shim.efi")]
    assert (reads.find(here), reads.find(there)) == (b"X/shim.efi", b"Y/shim.efi")
