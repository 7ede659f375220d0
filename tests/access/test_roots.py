"""Roots with placeholders, which depend on the client."""

from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.access.client import ClientIdentity
from tftpd.access.mounts import SERIALS, Mount, Mounts, Root, parse_root, parse_serials
from tftpd.access.paths import PARENT, SELF, TEMPORARY, split_name
from tftpd.access.placeholders import InvalidPlaceholder, Placeholder
from tftpd.access.policy import Grant, ReadPolicy
from tftpd.protocol.errors import ErrorCode, RequestRefused

MAC = bytes.fromhex("525400abcdef")
CLIENT = ClientIdentity(ip_address("192.0.2.7"), lambda: MAC)
OTHER_CLIENT = ClientIdentity(ip_address("2001:db8::7"))


def _candidates(mount, filename, client=CLIENT):
    grants = Mounts([mount]).authorize_read(filename, client)
    return [(str(grant.root), b"/".join(grant.name)) for grant in grants]


def _mount(*texts, serial=SERIALS):
    lookups = any("{serial" in text for text in texts)
    roots = tuple(map(parse_root, texts))
    return Mount((), roots, read=ReadPolicy(), serials=parse_serials(serial) if lookups else None)


@pytest.mark.parametrize(
    ("text", "path", "own"),
    [
        ("/srv/tftp", "/srv/tftp", ()),
        ("/srv/{{tftp}}", "/srv/{tftp}", ()),
        ("/srv/{mac}", "/srv", (b"52-54-00-ab-cd-ef",)),
        ("/srv/{mac:upper}/boot", "/srv", (b"52-54-00-AB-CD-EF", b"boot")),
        ("/srv/of-{ip}.d", "/srv", (b"of-192.0.2.7.d",)),
        ("/srv/x/{ip_hex:lower}", "/srv/x", (b"c0000207",)),
        ("/{ip}", "/", (b"192.0.2.7",)),
    ],
)
def test_placeholders_of_a_root_become_steps_of_its_path(text, path, own):
    root = parse_root(text)
    assert root.path == Path(path)
    assert root.expand_for(CLIENT, None) == own


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/srv/{nic}", "{nic} is not one of ip, ip_hex, mac, serial"),
        ("/srv/{0}", "{0} is not one of ip, ip_hex, mac, serial"),
        ("/srv/{mac:title}", "{mac:title}: expected :upper or :lower after the key"),
        ("/srv/{", 'a single "{": write it twice for a literal brace'),
    ],
)
def test_an_invalid_root_is_an_error_with_its_reason(text, reason):
    with pytest.raises(InvalidPlaceholder) as bad:
        parse_root(text)
    assert str(bad.value) == reason


def test_a_root_is_printed_as_it_was_written():
    for text in ("/", "/srv/{mac:upper}/x-{ip}", "/srv/tftp"):
        assert str(parse_root(text)).rstrip("/") == text.rstrip("/")


def test_the_roots_of_a_client_are_tried_in_their_order():
    mount = _mount("/srv/{mac}", "/srv/{ip}", "/srv/default")
    assert _candidates(mount, b"boot/x") == [
        ("/srv", b"52-54-00-ab-cd-ef/boot/x"),
        ("/srv", b"192.0.2.7/boot/x"),
        ("/srv/default", b"boot/x"),
    ]


def test_a_client_with_an_unknown_mac_address_skips_roots_with_mac():
    assert _candidates(_mount("/srv/{mac}", "/srv/default"), b"x", OTHER_CLIENT) == [
        ("/srv/default", b"x")
    ]
    with pytest.raises(RequestRefused) as refused:
        _candidates(_mount("/srv/{mac}"), b"x", OTHER_CLIENT)
    assert refused.value.code is ErrorCode.FILE_NOT_FOUND
    assert str(refused.value) == "the client has no directory in /srv/{mac}"


@pytest.mark.parametrize("serial", [b"10000000", b"dc-a6-32-01-02-03", b"0123456789abcdef"])
def test_a_serial_number_is_removed_from_the_name_for_other_roots(serial):
    mount = _mount("/srv/{serial}", "/srv/default")
    name = serial + b"/start4.elf"
    assert _candidates(mount, name) == [("/srv", name), ("/srv/default", b"start4.elf")]


@pytest.mark.parametrize("name", [b"start4.elf", b"overlays/x.dtbo", b"10000000", b"1234567/x"])
def test_a_name_without_a_serial_number_is_unchanged(name):
    mount = _mount("/srv/{serial}", "/srv/default")
    assert _candidates(mount, name) == [("/srv/default", name)]


def test_serial_numbers_match_the_configured_expression():
    mount = _mount("/srv/{serial:upper}", serial="foc[0-9]+")
    assert _candidates(mount, b"foc77/config") == [("/srv", b"FOC77/config")]
    with pytest.raises(RequestRefused):
        _candidates(mount, b"foc77x/config")
    with pytest.raises(RequestRefused):
        _candidates(mount, b"xfoc77/config")


@given(st.binary(max_size=300), st.booleans())
def test_any_serial_number_is_a_single_clean_step(filename, below):
    mount = _mount("/srv/a-{serial}" if below else "/srv/{serial}", serial=".*")
    try:
        grants = Mounts([mount]).authorize_read(filename, CLIENT)
    except RequestRefused:
        return
    for grant in grants:
        assert grant.root == Path("/srv")
        for step in grant.name:
            assert step not in (b"", SELF, PARENT)
            assert b"/" not in step
            assert not step.startswith(TEMPORARY)
        assert len(grant.name) == len(split_name(filename))


def test_a_serial_number_that_is_not_a_plain_step_is_rejected():
    root = Root(Path("/srv"), ((Placeholder("serial"),),))
    for serial in (b"..", b".", b"", b"a/b", TEMPORARY + b"1"):
        assert root.expand_for(CLIENT, serial) is None


def test_the_mac_address_is_looked_up_once_per_client():
    lookups = []

    def neighbour():
        lookups.append(1)
        return MAC

    client = ClientIdentity(ip_address("192.0.2.7"), neighbour)
    mounts = Mounts([_mount("/srv/{mac}", "/srv/{mac:upper}")])
    assert lookups == []
    assert mounts.needs_mac
    mounts.authorize_read(b"x", client)
    mounts.authorize_read(b"y", client)
    assert lookups == [1]


def test_a_grant_has_the_number_of_steps_from_the_configuration():
    (grant,) = Mounts([_mount("/srv/{mac}/boot")]).authorize_read(b"a/b", CLIENT)
    name = (b"52-54-00-ab-cd-ef", b"boot", b"a", b"b")
    assert grant == Grant(Path("/srv"), name, ReadPolicy(), own=2)


@pytest.mark.parametrize(
    "text",
    [
        "/srv/tftp",
        "/srv/{mac:upper}/boot",
        "/{ip}",
        "/srv/of-{ip}.d",
        "/srv/{serial}",
        "/srv/XX/{ip}",
    ],
)
def test_each_form_of_a_root_is_printed_as_it_was_written(text):
    assert str(parse_root(text)) == text


def test_a_path_need_not_be_utf_8():
    text = b"/srv/\xff\xe4".decode("utf-8", "surrogateescape")
    assert parse_root(text).path == Path(text)
    own = parse_root(f"/srv/{text[5:]}-{{ip}}")
    assert own.expand_for(CLIENT, None) == (b"\xff\xe4-192.0.2.7",)
    assert str(own) == "/srv/\\udcff\\udce4-{ip}"
    behind = parse_root(f"/srv/{{ip}}-{text[5:]}")
    assert behind.expand_for(CLIENT, None) == (b"192.0.2.7-\xff\xe4",)


def test_a_first_step_of_more_than_256_bytes_is_not_a_serial_number():
    mount = Mount((), (parse_root("/srv/{serial}"),), serials=parse_serials(".*"))
    for size, found in ((256, [(Path("/srv"), (b"a" * 256,), (b"x",))]), (257, [])):
        assert list(mount.roots_for((b"a" * size, b"x"), CLIENT)) == found
