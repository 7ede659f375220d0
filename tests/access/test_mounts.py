"""The mount of a name, and the decisions of its policies."""

import time
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.access.client import ClientIdentity
from tftpd.access.mounts import Mount, Mounts, Root, parse_root
from tftpd.access.paths import TEMPORARY
from tftpd.access.policy import Grant, ReadPolicy, Symlinks, WritePolicy, contains
from tftpd.access.rewrite import NameRules
from tftpd.protocol.errors import ErrorCode, RequestRefused

CLIENT = ClientIdentity(ip_address("192.0.2.7"))

TOP = Mount((), (Root(Path("/srv/tftp")),), read=ReadPolicy())
INCOMING = Mount((b"incoming",), (Root(Path("/srv/in")),), write=WritePolicy(max_size=9))
DEEP = Mount(
    (b"incoming", b"a", b"b"), (Root(Path("/srv/deep")),), ReadPolicy(), None, Symlinks.DENY
)
MOUNTS = Mounts([TOP, INCOMING, DEEP])


def _read(filename, mounts=MOUNTS, client=CLIENT):
    (grant,) = mounts.authorize_read(filename, client)
    return grant


def _refused(authorize, filename, client=CLIENT):
    with pytest.raises(RequestRefused) as refused:
        authorize(filename, client)
    return refused.value.code


@pytest.mark.parametrize(
    ("filename", "grant"),
    [
        (b"file", Grant(TOP.roots[0].path, (b"file",), ReadPolicy())),
        (b"/boot//x", Grant(TOP.roots[0].path, (b"boot", b"x"), ReadPolicy())),
        (b"incoming2/x", Grant(TOP.roots[0].path, (b"incoming2", b"x"), ReadPolicy())),
        (b"incoming/a/b/c", Grant(DEEP.roots[0].path, (b"c",), ReadPolicy(), Symlinks.DENY)),
        (b"\\incoming\\a\\b\\c", Grant(DEEP.roots[0].path, (b"c",), ReadPolicy(), Symlinks.DENY)),
        (b"a/../b", Grant(TOP.roots[0].path, (b"b",), ReadPolicy())),
        (b"a/b/../../c", Grant(TOP.roots[0].path, (b"c",), ReadPolicy())),
        (b"", Grant(TOP.roots[0].path, (), ReadPolicy())),
    ],
)
def test_the_mount_with_the_longest_prefix_is_used(filename, grant):
    assert _read(filename) == grant


def test_a_write_policy_gives_a_grant_to_write():
    (grant,) = MOUNTS.authorize_write(b"incoming/new", CLIENT)
    assert grant == Grant(INCOMING.roots[0].path, (b"new",), WritePolicy(max_size=9))


@pytest.mark.parametrize(
    "filename",
    [
        b"..",
        b"../x",
        b"a/../../x",
        b"\\..\\x",
        b"incoming/../x",
        b"incoming/a/b/../c",
        b"incoming/a/b/c/../../d",
        b"../" * 1000,
        b"a/" * 700 + b"../" * 701,
    ],
)
def test_parent_steps_do_not_leave_the_mount(filename):
    assert _refused(MOUNTS.authorize_read, filename) is ErrorCode.ACCESS_VIOLATION


def test_a_mount_without_a_policy_refuses():
    assert _refused(MOUNTS.authorize_write, b"file") is ErrorCode.ACCESS_VIOLATION
    assert _refused(MOUNTS.authorize_read, b"incoming/x") is ErrorCode.ACCESS_VIOLATION


def test_a_name_outside_all_mounts_is_refused():
    only = Mounts([INCOMING])
    assert _refused(only.authorize_read, b"file") is ErrorCode.ACCESS_VIOLATION
    assert _refused(Mounts([]).authorize_read, b"file") is ErrorCode.ACCESS_VIOLATION


def test_names_of_unfinished_uploads_are_reserved():
    for name in (TEMPORARY + b"0", b"dir/" + TEMPORARY + b"0", TEMPORARY + b"/x"):
        assert _refused(MOUNTS.authorize_read, name) is ErrorCode.ACCESS_VIOLATION
        refused = _refused(MOUNTS.authorize_write, b"incoming/" + name)
        assert refused is ErrorCode.ACCESS_VIOLATION


@pytest.mark.parametrize("name", [TEMPORARY.upper() + b"0", b"dir/.TFTPD-upload-0"])
def test_names_of_unfinished_uploads_are_reserved_in_any_letter_case(name):
    assert _refused(MOUNTS.authorize_read, name) is ErrorCode.ACCESS_VIOLATION
    assert _refused(MOUNTS.authorize_write, b"incoming/" + name) is ErrorCode.ACCESS_VIOLATION


@pytest.mark.parametrize("name", [b"x.j2", b"a/X.J2", b"x.j2.", b"x.j2 . ", b"x.J2::$DATA"])
def test_templates_cannot_be_written_in_a_directory_that_renders_them(name):
    both = Mount((), TOP.roots, ReadPolicy(templates=True), WritePolicy(overwrite=True))
    assert _refused(Mounts([both]).authorize_write, name) is ErrorCode.ACCESS_VIOLATION
    plain = Mount((), TOP.roots, ReadPolicy(), WritePolicy(overwrite=True))
    assert Mounts([plain]).authorize_write(name, CLIENT)


def test_many_parent_steps_take_linear_time():
    """A quadratic algorithm would copy all steps for each `..`; fallbacks try 64 such names."""

    def seconds(name):
        start = time.perf_counter()
        _read(name)
        return time.perf_counter() - start

    there, back = b"a/" * 1600, b"a/" * 1000 + b"../" * 600
    assert min(seconds(back) for _ in range(20)) < 2 * min(seconds(there) for _ in range(20))


def test_a_policy_admits_its_clients_only():
    networks = (ip_network("192.0.2.0/24"), ip_network("fe80::/10"))
    mounts = Mounts([Mount((), TOP.roots, ReadPolicy(clients=networks), WritePolicy())])
    assert _read(b"x", mounts, ClientIdentity(ip_address("192.0.2.255"))).name == (b"x",)
    assert _read(b"x", mounts, ClientIdentity(ip_address("fe80::7"))).name == (b"x",)
    refused = _refused(mounts.authorize_read, b"x", ClientIdentity(ip_address("198.51.100.1")))
    assert refused is ErrorCode.ACCESS_VIOLATION
    assert mounts.authorize_write(b"x", ClientIdentity(ip_address("198.51.100.1")))


@pytest.mark.parametrize("filename", [b"a/" * 30000, b"../" * 20000, b"/" * 60000, b"x" * 60000])
def test_a_name_of_60_kilobytes_is_refused(filename):
    assert _refused(MOUNTS.authorize_read, filename) in (
        ErrorCode.FILE_NOT_FOUND,
        ErrorCode.ACCESS_VIOLATION,
    )


@given(st.lists(st.sampled_from([b"..", b".", b"", b"a", b"b", b"incoming"])).map(b"/".join)
       | st.binary(max_size=60))  # fmt: skip
def test_a_grant_has_no_empty_or_dot_steps_for_any_name(filename):
    try:
        grant = _read(filename)
    except RequestRefused:
        return
    for step in grant.name:
        assert step not in (b"", b".", b"..")
        assert b"/" not in step
        assert b"\\" not in step


def _resolve_dots(filename):
    """Return the components of a name after `..`; None if it leads above the top."""
    components = []
    for component in filename.replace(b"\\", b"/").split(b"/"):
        if component == b"..":
            if not components:
                return None
            components.pop()
        elif component not in (b"", b"."):
            components.append(component)
    return tuple(components)


@given(
    st.lists(st.sampled_from([b"..", b".", b"", b"a", b"b", b"incoming", b"a\\b"])).map(b"/".join)
    | st.binary(max_size=60)
)
def test_a_name_belongs_to_the_longest_prefix_after_its_dots_are_resolved(filename):
    try:
        mount, name = MOUNTS.locate(filename, CLIENT)
    except RequestRefused:
        return
    components = _resolve_dots(filename)
    assert components == (*mount.prefix, *name)
    matching = [other for other in MOUNTS if components[: len(other.prefix)] == other.prefix]
    assert mount is max(matching, key=lambda other: len(other.prefix))


@given(st.binary(max_size=20), st.sampled_from([b"", b"incoming/", b"a/../"]))
def test_an_unfinished_upload_is_neither_read_nor_written(suffix, directory):
    mounts = Mounts([TOP, Mount((b"incoming",), TOP.roots, ReadPolicy(), WritePolicy())])
    name = directory + TEMPORARY + suffix.replace(b"/", b"").replace(b"\\", b"")
    for authorize in (mounts.authorize_read, mounts.authorize_write):
        with pytest.raises(RequestRefused):
            authorize(name, CLIENT)


def test_the_reason_says_that_templates_cannot_be_written():
    both = Mount((), TOP.roots, ReadPolicy(templates=True), WritePolicy(overwrite=True))
    with pytest.raises(RequestRefused, match=r"^templates cannot be written by clients$"):
        Mounts([both]).authorize_write(b"x.j2", CLIENT)


def test_mounts_can_be_listed():
    assert list(MOUNTS) == [TOP, INCOMING, DEEP]


OPEN = Mounts(
    [
        Mount((), (Root(Path("/srv")),), ReadPolicy()),
        Mount((b"a",), (Root(Path("/a")),), ReadPolicy()),
        Mount((b"a", b"b"), (Root(Path("/b")),), ReadPolicy()),
    ]
)


@pytest.mark.parametrize("filename", [b"a/../x", b"a/b/../x", b"a/b/c/../../x", b"a/c/../../x"])
def test_parent_steps_do_not_lead_to_another_readable_mount(filename):
    assert _refused(OPEN.authorize_read, filename) is ErrorCode.ACCESS_VIOLATION


@pytest.mark.parametrize(
    ("filename", "root", "name"),
    [
        (b"a/x/../y", "/a", (b"y",)),
        (b"a/b/x/../y", "/b", (b"y",)),
        (b"x/../y", "/srv", (b"y",)),
        (b"x/y/../../a/z", "/a", (b"z",)),
    ],
)
def test_a_parent_step_within_a_mount_is_resolved(filename, root, name):
    grant = _read(filename, OPEN)
    assert (str(grant.root), grant.name) == (root, name)


def test_a_refusal_has_its_reason_for_the_log():
    here = Mount(
        (b"here",), (Root(Path("/h")),), ReadPolicy(clients=(ip_network("10.0.0.0/8"),)), None
    )
    own = Mount((b"own",), (parse_root("/x/{mac}"), parse_root("/y/{mac}")), ReadPolicy())
    mounts = Mounts([here, own, INCOMING])
    for filename, reason in (
        (b"here/../x", "the name leaves its directory"),
        (b"elsewhere", "no directory is configured for the name"),
        (b"incoming/x", "the directory has no policy for this"),
        (b"here/x", "the policy does not admit this client"),
        (b"own/x", "the client has no directory in /x/{mac}, /y/{mac}"),
        (b"own/" + TEMPORARY + b"0", "the name is reserved for unfinished uploads"),
        (b"own/.Versions/x", "the name is reserved for versions of files"),
    ):
        with pytest.raises(RequestRefused) as refused:
            mounts.authorize_read(filename, CLIENT)
        assert str(refused.value) == reason


def test_mounts_report_if_they_render_templates_or_depend_on_the_client():
    assert (OPEN.renders, OPEN.per_client) == (False, False)
    assert Mounts([Mount((), (Root(Path("/a")),), ReadPolicy(templates=True))]).renders
    assert Mounts([Mount((), (parse_root("/a/{ip}"),), ReadPolicy())]).per_client
    some = (ip_network("10.0.0.0/8"),)
    assert Mounts([Mount((), (Root(Path("/a")),), ReadPolicy(clients=some))]).per_client
    assert Mounts([Mount((), (Root(Path("/a")),), None, WritePolicy(clients=some))]).per_client


LAN = ClientIdentity(ip_address("10.0.0.7"))
LAB = ClientIdentity(ip_address("2001:db8::7"))
LAN_NETWORKS = (ip_network("10.0.0.0/8"),)


def _for_clients(prefix, root, *networks):
    clients = {"clients": networks} if networks else {}
    return Mount(prefix, (Root(Path(root)),), ReadPolicy(), WritePolicy(), **clients)


BY_CLIENT = Mounts(
    [
        _for_clients((), "/srv/lan", *LAN_NETWORKS),
        _for_clients((), "/srv/lab", ip_network("2001:db8::/32"), ip_network("10.1.0.0/16")),
        _for_clients((b"sub",), "/srv/sub", ip_network("2001:db8::/32")),
        _for_clients((), "/srv/rest"),
    ]
)


@pytest.mark.parametrize(
    ("client", "filename", "root", "name"),
    [
        (LAN, b"x", "/srv/lan", (b"x",)),
        (LAB, b"x", "/srv/lab", (b"x",)),
        (CLIENT, b"x", "/srv/rest", (b"x",)),
        (ClientIdentity(ip_address("10.1.0.7")), b"x", "/srv/lan", (b"x",)),
        (LAB, b"sub/x", "/srv/sub", (b"x",)),
        (LAN, b"sub/x", "/srv/lan", (b"sub", b"x")),
        (LAN, b"sub/../x", "/srv/lan", (b"x",)),
    ],
)
def test_each_network_has_its_own_root_for_one_prefix(client, filename, root, name):
    for _ in range(2):  # not even from a cache
        for authorize in (BY_CLIENT.authorize_read, BY_CLIENT.authorize_write):
            (grant,) = authorize(filename, client)
            assert (grant.root, grant.name) == (Path(root), name)
    assert BY_CLIENT.per_client


def test_the_name_of_one_network_cannot_leave_its_directory_for_that_of_all():
    assert _refused(BY_CLIENT.authorize_read, b"sub/../x", LAB) is ErrorCode.ACCESS_VIOLATION


def test_a_client_of_no_network_has_no_directory():
    mounts = Mounts([_for_clients((), "/srv/lan", *LAN_NETWORKS)])
    assert _refused(mounts.authorize_read, b"x") is ErrorCode.ACCESS_VIOLATION
    assert mounts.authorize_read(b"x", LAN)


@pytest.mark.parametrize(
    ("networks", "others", "expected"),
    [
        (["10.0.0.0/8"], ["10.1.0.0/16"], True),
        (["10.1.0.0/16"], ["10.0.0.0/8"], False),
        (["10.0.0.0/8"], ["2001:db8::/32"], False),
        (["10.0.0.0/8", "::/0"], ["2001:db8::/32", "10.0.0.7/32"], True),
        (["10.0.0.0/8"], ["10.0.0.7/32", "192.0.2.7/32"], False),
    ],
)
def test_networks_contain_others_if_each_is_part_of_one(networks, others, expected):
    assert contains(list(map(ip_network, networks)), list(map(ip_network, others))) is expected


GB_18030 = NameRules(encodings=("gb18030",))


def test_a_name_in_another_encoding_has_the_grants_of_its_name_in_utf_8():
    mounts = Mounts([TOP, Mount(("启动".encode(),), (Root(Path("/b")),), ReadPolicy())], GB_18030)
    (grant,) = mounts.authorize_read("启动/王".encode("gb2312"), CLIENT)
    assert grant == Grant(Path("/b"), ("王".encode(),), ReadPolicy(), encodings=("gb18030",))
    (grant,) = mounts.authorize_read(b"boot/x", CLIENT)
    assert grant.encodings == ()


def test_a_name_that_could_be_the_prefix_of_a_directory_has_one_spelling():
    closed = "архив".encode()
    mounts = Mounts([TOP, Mount((closed,), (Root(Path("/b")),))], GB_18030)
    (grant,) = mounts.authorize_read(closed.decode("gb18030").encode() + b"/x", CLIENT)
    assert grant.encodings == ()


def test_a_mac_address_in_a_name_is_used_only_where_it_is_configured():
    mounts = Mounts(
        [
            Mount((b"boot",), (Root(Path("/b")),), ReadPolicy(), mac_from_name=True),
            Mount((b"other",), (Root(Path("/o")),), ReadPolicy()),
        ]
    )
    name, mac = b"pxelinux.cfg/01-52-54-00-12-34-56", bytes.fromhex("525400123456")
    unknown = ClientIdentity(ip_address("192.0.2.7"), neighbour=lambda: None)
    assert mounts.identify(b"boot/" + name, unknown).mac == mac
    assert mounts.identify(b"boot/default", unknown) is unknown
    assert mounts.identify(b"other/" + name, unknown) is unknown
    assert mounts.identify(b"none/" + name, unknown) is unknown
    known = ClientIdentity(ip_address("192.0.2.7"), neighbour=lambda: bytes(6))
    assert mounts.identify(b"boot/" + name, known) is known
