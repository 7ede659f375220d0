"""Names under which uploads are stored."""

from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from tftpd.access import stored_names
from tftpd.access.client import ClientIdentity
from tftpd.access.mounts import Mount, Mounts, Root, parse_root, parse_serials
from tftpd.access.placeholders import InvalidPlaceholder
from tftpd.access.policy import ReadPolicy, WritePolicy
from tftpd.access.stored_names import parse_stored_name
from tftpd.protocol.errors import RequestRefused

MAC = bytes.fromhex("525400123456")
CLIENT = ClientIdentity(ip_address("10.0.0.7"), neighbour=lambda: MAC)
NOW = datetime(2026, 11, 28, 17, 3, 9, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _frozen_time(monkeypatch):
    class Frozen(datetime):
        @classmethod
        def now(cls, tz=None):
            assert tz is UTC
            return NOW

    monkeypatch.setattr(stored_names, "datetime", Frozen)


def _mounts(store_as, root="/srv", serials=None, **mount):
    store_as = parse_stored_name(store_as)
    first = Mount(
        (b"up",),
        (parse_root(root),),
        write=WritePolicy(),
        store_as=store_as,
        serials=parse_serials(serials) if serials else None,
        **mount,
    )
    return Mounts([first, Mount((b"up", b"10.0.0.7", b"private"), (Root(Path("/p")),))])


def _stored(store_as, filename, client=CLIENT, **mount):
    mounts = _mounts(store_as, **mount)
    (grant,) = mounts.authorize_write(filename, client)
    assert mounts.stored_name(filename, [grant], client) == b"/".join(
        (b"up", *grant.name[grant.own :])
    )
    return b"/".join(grant.name).decode()


@pytest.mark.parametrize(
    ("store_as", "expected"),
    [
        ("{ip}/{date}/{name}", "10.0.0.7/2026-11-28/cfg/sw1"),
        ("{mac:upper}/{date}T{time}Z-{name}", "52-54-00-12-34-56/2026-11-28T170309Z-cfg/sw1"),
        ("/{ip_hex}.cfg", "0A000007.cfg"),
        ("{{{name:upper}}}", "{CFG/SW1}"),
    ],
)
def test_placeholders_are_replaced(store_as, expected):
    assert _stored(store_as, b"up//cfg/sw1") == expected


def test_the_serial_number_is_removed_from_the_name():
    stored = _stored("{serial}-{name}", b"up/0123456789abcdef/x", root="/s/{serial}", serials=".+")
    assert stored == "0123456789abcdef/0123456789abcdef-x"


def test_reads_use_the_requested_name():
    mounts = _mounts("{ip}/{name}", read=ReadPolicy())
    (grant,) = mounts.authorize_read(b"up/x", CLIENT)
    assert grant.name == (b"x",)


@pytest.mark.parametrize(
    ("store_as", "filename", "reason"),
    [
        ("{mac}/{name}", b"up/x", "a value for store_as {mac}/{name} is unknown for this client"),
        ("{ip}.cfg", b"up/", "the request has no file name"),
        (".{name}", b"up/tftpd-upload-0", "the name is reserved for unfinished uploads"),
        (".{name:lower}", b"up/VERSIONS/x", "the name is reserved for versions of files"),
        ("{ip}/{name}", b"up/.versions/x", "the name is reserved for versions of files"),
        ("{ip}/{name}", b"up/../x", "the name leaves its directory"),
        ("{ip}/{name:lower}", b"up/PRIVATE/x",
         "store_as {ip}/{name:lower} leads to another directory"),
        ("{name}{name}", b"up/" + b"x" * 3000, "the name is too long"),
    ],
)  # fmt: skip
def test_a_result_that_is_no_valid_name_is_refused(store_as, filename, reason):
    with pytest.raises(RequestRefused) as refused:
        _stored(store_as, filename, ClientIdentity(ip_address("10.0.0.7")))
    assert str(refused.value) == reason


def test_the_stored_name_is_no_template():
    with pytest.raises(RequestRefused, match="templates cannot be written"):
        _stored("{name}.j2", b"up/x", read=ReadPolicy(templates=True))


@pytest.mark.parametrize(
    "text",
    ["{name}/", "", "../{name}", "{ip}/../{name}", "x/.", "a\\..\\{name}", ".versions/{name}",
     ".tftpd-upload-{name}", "{nothing}", "{name", "a\0"],
)  # fmt: skip
def test_a_bad_text_is_refused(text):
    with pytest.raises(InvalidPlaceholder):
        parse_stored_name(text)


def test_the_mac_address_is_looked_up_if_store_as_needs_it():
    assert _mounts("{mac}/{name}").needs_mac
    assert not _mounts("{ip}/{name}").needs_mac


@pytest.mark.parametrize("requested", [(b"..",), (b"a", b"..", b"b")])
def test_a_name_with_a_parent_directory_is_refused_after_expansion(requested):
    with pytest.raises(RequestRefused, match="gives no valid name"):
        parse_stored_name("{name}").expand_for(CLIENT, None, requested)


def test_without_store_as_an_upload_has_the_requested_name():
    mounts = Mounts([Mount((), (Root(Path("/srv")),), write=WritePolicy())])
    grants = mounts.authorize_write(b"//cfg/x", CLIENT)
    assert mounts.stored_name(b"//cfg/x", grants, CLIENT) == b"//cfg/x"
