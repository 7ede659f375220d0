"""Files at an origin: local roots come first, and the resolver asks an origin for a key."""

from ipaddress import ip_address

import pytest

from tftpd.access.client import ClientIdentity
from tftpd.access.mounts import Mount, Mounts, parse_root
from tftpd.access.origin_roots import OriginRoot
from tftpd.access.paths import RequestName
from tftpd.access.policy import ReadPolicy, WritePolicy
from tftpd.protocol.errors import ErrorCode, HostFault, RequestRefused
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.packets import Wrq
from tftpd.server.request import resolve_write
from tftpd.storage.origin_files import AnswerNeeded
from tftpd.storage.resolver import FileResolver
from tftpd.storage.source import MemorySource

CLIENT = ClientIdentity(ip_address("192.0.2.7"), lambda: None)
BOOT = OriginRoot("fleet", (b"boot",))


class Origins:
    """Origins with the objects of a mapping: bytes, or an exception."""

    def __init__(self, **objects):
        self.objects = objects
        self.asked = []

    def open(self, root, key, whole=False):
        self.asked.append((root, key))
        found = self.objects.get(key.rpartition("/")[2])
        if found is None:
            raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "the origin has no such object")
        if isinstance(found, Exception):
            raise found
        return MemorySource(found)

    def open_upload(self, root, key, grant, size, netascii):
        self.asked.append((root, key))
        return grant, size, netascii


def _resolver(tmp_path, origins=None, roots=None, **policy):
    texts = roots or (str(tmp_path), "origin:fleet/boot")
    roots = tuple(map(parse_root, texts))
    mount = Mount((), roots, read=ReadPolicy(**policy), write=WritePolicy(max_size=10))
    return FileResolver(Mounts([mount]), origins)


def _resolve(resolver, name, blocking=True):
    return resolver.resolve(RequestName(name), CLIENT, _render, blocking)


def _render(template, name, opened):
    return MemorySource(b"rendered")


def _read(file):
    buffer = memoryview(bytearray(100))
    return bytes(buffer[: file.source.read([buffer], 0, True)])


def test_a_local_file_comes_before_the_object(tmp_path):
    origins = Origins(both=b"origin")
    (tmp_path / "both").write_bytes(b"local")
    file = _resolve(_resolver(tmp_path, origins), b"both")
    assert _read(file) == b"local"
    file.source.close()
    assert origins.asked == []


@pytest.mark.parametrize("blocking", [True, False])
def test_an_object_is_opened_by_its_key(tmp_path, blocking):
    origins = Origins(kernel=b"object")
    resolver = _resolver(tmp_path, origins, ["origin:fleet/boot"])
    file = _resolve(resolver, b"x86//./kernel", blocking)
    assert _read(file) == b"object"
    assert file.grant.root == BOOT
    assert origins.asked == [(BOOT, "boot/x86/kernel")]


def test_a_missing_object_is_asked_for_again(tmp_path):
    """The negative cache of directories has no times for objects; `origins` has its own."""
    origins = Origins()
    resolver = _resolver(tmp_path, origins)
    for _ in range(2):
        with pytest.raises(RequestRefused) as refused:
            _resolve(resolver, b"absent")
        assert refused.value.code is ErrorCode.FILE_NOT_FOUND
    assert len(origins.asked) == 2


def test_a_failed_origin_ends_the_search(tmp_path):
    failed = HostFault(ErrorCode.NOT_DEFINED, "no route to host")
    resolver = _resolver(tmp_path, Origins(x=failed), ["origin:fleet", str(tmp_path)])
    (tmp_path / "x").write_bytes(b"older")
    with pytest.raises(HostFault, match=r"no route to host: origin:fleet/x"):
        _resolve(resolver, b"x")


def test_the_search_stops_until_the_origin_has_answered(tmp_path):
    resolver = _resolver(tmp_path, Origins(x=AnswerNeeded(BOOT, "boot/x")))
    with pytest.raises(AnswerNeeded) as needed:
        _resolve(resolver, b"x")
    assert (needed.value.root, needed.value.key) == (BOOT, "boot/x")


def test_a_template_may_be_at_an_origin(tmp_path):
    origins = Origins(**{"menu.j2": b"{{ name }}"})
    file = _resolve(_resolver(tmp_path, origins, templates=True), b"menu")
    assert (_read(file), file.grant.root) == (b"rendered", BOOT)
    assert [key for _, key in origins.asked] == ["boot/menu", "boot/menu.j2"]


def test_no_origin_is_asked_for_a_key_that_it_cannot_have(tmp_path):
    origins = Origins()
    with pytest.raises(RequestRefused) as refused:
        _resolve(_resolver(tmp_path, origins, ["origin:fleet"]), b"a\nb")
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION
    assert origins.asked == []


def test_without_a_fetcher_a_request_is_refused_as_a_fault_of_this_host(tmp_path):
    resolver = _resolver(tmp_path)
    with pytest.raises(HostFault, match="no process that fetches from origins is running"):
        _resolve(resolver, b"x")
    write = resolve_write(
        Wrq(b"x", b"octet"),
        CLIENT,
        _resolver(tmp_path, roots=["origin:fleet"]).mounts,
        OptionLimits(),
    )
    with pytest.raises(HostFault, match="no process that fetches from origins is running"):
        write.open({}, resolver, blocking=False)


def test_an_upload_goes_to_the_key(tmp_path):
    origins = Origins()
    resolver = _resolver(tmp_path, origins, ["origin:fleet/boot"])
    request = Wrq(b"sub/x", b"octet", ((b"tsize", b"9"),))
    write = resolve_write(request, CLIENT, resolver.mounts, OptionLimits())
    write.check()
    grant, size, netascii = write.open({}, resolver, blocking=False)
    assert (grant.root, size, netascii) == (BOOT, 9, False)
    assert origins.asked == [(BOOT, "boot/sub/x")]


@pytest.mark.parametrize(("name", "tsize"), [(b"x", b"11"), (b"a\x7f", b"1")])
def test_a_dry_run_of_an_upload_checks_name_and_size(tmp_path, name, tsize):
    resolver = _resolver(tmp_path, Origins(), ["origin:fleet/boot"])
    request = Wrq(name, b"octet", ((b"tsize", tsize),))
    write = resolve_write(request, CLIENT, resolver.mounts, OptionLimits())
    with pytest.raises(RequestRefused):
        write.check()
