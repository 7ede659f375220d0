"""Roots at an origin, and the keys of objects."""

from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.access.client import ClientIdentity
from tftpd.access.mounts import SERIALS, Mount, Mounts, parse_root, parse_serials
from tftpd.access.origin_roots import MAX_KEY_BYTES, OriginRoot, object_key
from tftpd.access.placeholders import InvalidPlaceholder
from tftpd.access.policy import Grant, ReadPolicy, WritePolicy
from tftpd.protocol.errors import ErrorCode, RequestRefused

MAC = bytes.fromhex("525400abcdef")
CLIENT = ClientIdentity(ip_address("192.0.2.7"), lambda: MAC)
BOOT = OriginRoot("fleet", (b"boot",))


def _mount(*texts):
    serials = parse_serials(SERIALS) if any("{serial" in text for text in texts) else None
    roots = tuple(map(parse_root, texts))
    return Mount((), roots, read=ReadPolicy(), write=WritePolicy(), serials=serials)


@pytest.mark.parametrize(
    ("text", "root", "own"),
    [
        ("origin:fleet", OriginRoot("fleet"), ()),
        ("origin:fleet/", OriginRoot("fleet"), ()),
        ("origin:a-B_9/boot/x86", OriginRoot("a-B_9", (b"boot", b"x86")), ()),
        ("origin:fleet/boot/", BOOT, ()),
        ("origin:fleet/{{mac}}", OriginRoot("fleet", (b"{mac}",)), ()),
        ("origin:fleet/b\u00f6\u00f6t", OriginRoot("fleet", ("b\u00f6\u00f6t".encode(),)), ()),
        ("origin:fleet/boot/{mac}/x", BOOT, (b"52-54-00-ab-cd-ef", b"x")),
        ("origin:fleet/{ip_hex:lower}", OriginRoot("fleet"), (b"c0000207",)),
    ],
)
def test_a_root_names_an_origin_and_a_prefix(text, root, own):
    parsed = parse_root(text)
    assert parsed.path == root
    assert parsed.expand_for(CLIENT, None) == own
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text",
    [
        *("origin:", "origin:/boot", "origin:-x", "origin:a.b", "origin:a b", "origin:{mac}/x"),
        *("origin:fleet//x", "origin:fleet/boot//", "origin:fleet/../x", "origin:fleet/./x"),
        *("origin:fleet/a\\b", "origin:fleet/a\nb", "origin:fleet/a\x7f", "origin:fleet\n"),
    ],
)
def test_an_invalid_origin_is_an_error_that_tells_the_form(text):
    with pytest.raises(ValueError, match="expected origin:NAME or origin:NAME/PREFIX"):
        parse_root(text)


def test_an_invalid_placeholder_in_a_prefix_is_an_error():
    with pytest.raises(InvalidPlaceholder, match=r"{nic} is not one of ip, ip_hex, mac, serial"):
        parse_root("origin:fleet/{nic}")


def test_a_directory_may_have_a_name_that_looks_like_an_origin():
    assert parse_root("./origin:fleet").path == Path("origin:fleet")


def test_an_origin_root_is_printed_as_it_is_written():
    assert str(OriginRoot("fleet", (b"boot", "\u00e4".encode()))) == "origin:fleet/boot/\u00e4"


def test_local_roots_and_origins_are_told_apart():
    mount = _mount("/srv/tftp", "origin:fleet/boot", "/srv/{mac}")
    assert mount.local_roots == (Path("/srv/tftp"), Path("/srv"))
    assert mount.origin_roots == (BOOT,)


def test_the_grants_have_the_order_of_the_roots():
    mounts = Mounts([_mount("/srv/tftp", "origin:fleet/boot/{mac}", "origin:spare/{serial}")])
    grants = mounts.authorize_read(b"10000000/../12345678/start.elf", CLIENT)
    assert [(grant.root, grant.name, grant.own) for grant in grants] == [
        (Path("/srv/tftp"), (b"start.elf",), 0),
        (BOOT, (b"52-54-00-ab-cd-ef", b"start.elf"), 1),
        (OriginRoot("spare"), (b"12345678", b"start.elf"), 1),
    ]


def test_a_grant_shows_its_name_at_the_origin_and_has_no_directory():
    grant = Grant(BOOT, (b"x\n", b"y"), ReadPolicy())
    assert grant.printable_path == "origin:fleet/boot/x\\n/y"
    with pytest.raises(TypeError, match="origin:fleet/boot is not a directory"):
        _ = grant.directory
    assert Grant(Path("/srv"), (b"x",), ReadPolicy()).directory == Path("/srv")


def test_a_key_is_the_prefix_and_the_name():
    assert object_key(BOOT, (b"x86", "gr\u00fcn %2e?#".encode())) == "boot/x86/gr\u00fcn %2e?#"
    assert object_key(OriginRoot("fleet"), (b"a",)) == "a"


@pytest.mark.parametrize(
    "name",
    [
        (),
        *((b"",), (b".",), (b"..",), (b"a", b"..", b"b"), (b"a/b",), (b"a\\b",), (b"\\..",)),
        *((b"a\0",), (b"a\nb",), (b"\x7f",), ("\x85".encode(),), (b"\xff",), (b"\xc0\xae",)),
        (b"\xed\xa0\x80",),
    ],
)
def test_a_name_that_no_object_can_have_is_refused(name):
    with pytest.raises(RequestRefused) as refused:
        object_key(BOOT, name)
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION


def test_a_key_has_at_most_1024_bytes():
    longest = MAX_KEY_BYTES - len("boot/")
    assert len(object_key(BOOT, (b"x" * longest,))) == MAX_KEY_BYTES
    for name in (b"x" * (longest + 1), "\u00e4".encode() * (longest // 2 + 1)):
        with pytest.raises(RequestRefused, match="at most 1024 bytes"):
            object_key(BOOT, (name,))


@given(st.binary(max_size=60), st.sampled_from([b"/", b"\\", b"/../", b"%2e%2e/", b"\0"]))
def test_no_requested_name_leaves_the_prefix(name, separator):
    mounts = Mounts([_mount("origin:fleet/boot/{mac}")])
    try:
        (grant,) = mounts.authorize_read(name + separator + name, CLIENT)
        key = object_key(grant.root, grant.name)
    except RequestRefused:
        return
    components = key.split("/")
    assert components[:2] == ["boot", "52-54-00-ab-cd-ef"]
    assert not {"", ".", ".."} & set(components)
    assert key.isprintable() or not any(c < " " or "\x7f" <= c < "\xa0" for c in key)
