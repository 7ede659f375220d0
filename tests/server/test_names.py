"""Rewritten names and fallbacks, through the listener."""

import errno
import os
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.support.fakes import MemoryServer
from tftpd.access.client import ClientIdentity
from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.mounts import Mount, Mounts, Root, parse_root
from tftpd.access.paths import RequestName
from tftpd.access.policy import ReadPolicy, WritePolicy
from tftpd.access.regex import pattern
from tftpd.access.rewrite import NameRules, RewriteRule, parse_template
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.server.request import resolve_read
from tftpd.storage.resolver import FileResolver
from tftpd.storage.source import read_whole

SEVEN = b"1234567"


def _rule(match, to, **how):
    found = pattern(match)
    return RewriteRule("rewrite[0]", found, parse_template(to, found), **how)


def _naming(offer, naming):
    def build(report):
        built = offer(report)
        return replace(built, mounts=Mounts(built.mounts, naming))

    return MemoryServer(build)


def test_a_rewritten_name_is_served_and_reported(offer):
    server = _naming(offer, NameRules((_rule("^old/", ""),)))
    client = server.client()
    assert client.request(Rrq(b"old/seven", b"octet")) == [Data(1, SEVEN)]
    client.send(Ack(1))
    (report,) = server.reports
    assert (report.filename, report.served_name, report.resolution_steps) == (
        b"old/seven",
        b"seven",
        ("rewrite[0]",),
    )
    assert server.idle


def test_a_name_that_no_rule_matches_is_reported_unchanged(offer):
    server = _naming(offer, NameRules((_rule("^old/", ""),)))
    client = server.client()
    client.request(Rrq(b"seven", b"octet"))
    client.send(Ack(1))
    (report,) = server.reports
    assert (report.served_name, report.resolution_steps) == (None, ())


def test_an_upload_is_stored_under_the_rewritten_name(offer, root):
    server = _naming(offer, NameRules((_rule("^", "in/{ip}-", reads=False),)))
    client = server.client()
    client.request(Wrq(b"config", b"octet"))
    client.send(Data(1, b"x"))
    assert (root / "in/192.0.2.7-config").read_bytes() == b"x"
    (report,) = server.reports
    assert (report.outcome, report.served_name) == (Outcome.DONE, b"in/192.0.2.7-config")
    server.advance(120)
    assert server.idle


def test_no_rewrite_rule_escapes_the_directory(offer):
    for to in ("../", "/../../etc/passwd", "in/../../", "\\..\\"):
        server = _naming(offer, NameRules((_rule("^out", to),)))
        (refused,) = server.client().request(Rrq(b"out", b"octet"))
        assert refused == ErrorPacket(2, "Access violation")
        (report,) = server.reports
        assert report.outcome is Outcome.REFUSED
        assert "by rewrite[0]" in report.detail


def test_the_reason_of_a_refusal_contains_the_rewritten_name(offer, root):
    server = _naming(offer, NameRules((_rule("^old/", "in/"),)))
    assert server.client().request(Rrq(b"old/x", b"octet")) == [ErrorPacket(1, "File not found")]
    (report,) = server.reports
    assert report.detail == f'No such file or directory: {root}/in/x ("in/x" by rewrite[0])'


def _with_fallbacks(offer, *fallbacks, **rules):
    rules = {"prefixes": ((b"boot",),)} | rules
    return _naming(offer, NameRules(fallbacks=FallbackChain(fallbacks, **rules)))


@pytest.mark.parametrize(
    ("asked", "by"),
    [
        (b"C:\\SEVEN", ("drive", "case")),
        (b"seven\xff", ("trailing",)),
        (b"\\boot\\seven", ("prefix",)),
        (b"D:/BOOT/Seven\xff\x01\x02", ("drive", "trailing", "case")),
    ],
)
def test_a_missing_name_is_served_by_a_fallback(offer, root, asked, by):
    if by[-1] == "case" and b"BOOT" in asked:
        (root / "Boot").mkdir()
        (root / "Boot" / "sEVEN").write_bytes(SEVEN)
    server = _with_fallbacks(
        offer, Fallback.DRIVE, Fallback.TRAILING, Fallback.PREFIX, Fallback.CASE
    )
    client = server.client()
    assert client.request(Rrq(asked, b"octet")) == [Data(1, SEVEN)]
    client.send(Ack(1))
    (report,) = server.reports
    assert (report.filename, report.resolution_steps) == (asked, by)
    assert report.served_name.lower().lstrip(b"/\\").endswith(b"seven")


def test_a_name_in_another_encoding_is_found(offer, root):
    (root / "启动.cfg").write_bytes(SEVEN)
    server = _naming(offer, NameRules(encodings=("gb18030",)))
    client = server.client()
    assert client.request(Rrq("启动.cfg".encode("gbk"), b"octet")) == [Data(1, SEVEN)]
    client.send(Ack(1))
    assert server.reports[0].served_name == "启动.cfg".encode()


def test_the_requested_name_is_tried_first(offer, root):
    (root / "SEVEN").write_bytes(b"LARGE")
    server = _with_fallbacks(offer, Fallback.CASE)
    for asked, content in ((b"seven", SEVEN), (b"SEVEN", b"LARGE"), (b"Seven", b"LARGE")):
        client = server.client()
        assert client.request(Rrq(asked, b"octet")) == [Data(1, content)]
        client.send(Ack(1))
    by = [report.resolution_steps for report in server.reports]
    assert by == [(), (), ("case", "the first of 2")]


def test_without_fallbacks_no_other_name_is_tried(server):
    for asked in (b"SEVEN", b"C:\\seven", b"seven\xff", b"boot/seven"):
        assert server.client().request(Rrq(asked, b"octet")) == [ErrorPacket(1, "File not found")]


def test_an_upload_uses_no_fallbacks(offer, root):
    (root / "in" / "old").write_bytes(b"old")
    server = _with_fallbacks(offer, *Fallback)
    client = server.client()
    client.request(Wrq(b"in/OLD", b"octet"))
    client.send(Data(1, b"new"))
    assert (root / "in" / "old").read_bytes() == b"old"
    assert (root / "in" / "OLD").read_bytes() == b"new"
    assert server.client().request(Wrq(b"C:in/OLDER\xff", b"octet")) == [
        ErrorPacket(2, "Access violation")
    ]
    server.advance(120)


def test_the_reason_of_a_miss_lists_the_path_and_the_names_tried(offer, root):
    server = _with_fallbacks(offer, *Fallback)
    assert server.client().request(Rrq(b"C:x\xff", b"octet")) == [ErrorPacket(1, "File not found")]
    detail = server.reports[0].detail
    path = f"{root}/C:x\\xff"
    assert detail.startswith(f'No such file or directory: {path}; also tried "x\\xff" (drive), ')
    assert detail.endswith(" more")


def test_a_name_that_case_folding_did_not_find_is_listed_once(offer, root):
    server = _with_fallbacks(offer, Fallback.CASE)
    server.client().request(Rrq(b"x", b"octet"))
    os.mkfifo(root / "Seven pipes")
    server.client().request(Rrq(b"seven PIPES", b"octet"))
    missing, pipes = (report.detail for report in server.reports)
    assert missing == f"No such file or directory: {root}/x"
    assert pipes == (
        f"No such file or directory: {root}/seven PIPES; "
        f'also tried "seven PIPES" (case: not a regular file: {root}/Seven pipes)'
    )


def test_a_file_without_read_permission_causes_no_fallback(offer, root):
    (root / "Twin").write_bytes(b"")
    os.mkfifo(root / "twin")
    server = _with_fallbacks(offer, Fallback.CASE)
    assert server.client().request(Rrq(b"twin", b"octet")) == [ErrorPacket(2, "Access violation")]
    assert server.client().request(Rrq(b"in/../../seven", b"octet")) == [
        ErrorPacket(2, "Access violation")
    ]


def test_no_fallback_circumvents_the_policy_of_another_directory(root):
    (root / "in" / "secret").write_bytes(b"secret")
    (root / ".tftpd-upload-1").write_bytes(b"half")
    mounts = Mounts(
        [
            Mount((), (Root(root),), read=ReadPolicy()),
            Mount((b"in",), (Root(root / "in"),), write=WritePolicy()),
        ],
        NameRules((), FallbackChain(tuple(Fallback), ((b"boot",), (b"in",))), ("gbk",)),
    )
    client = ClientIdentity(ip_address("192.0.2.7"))
    for asked in (b"IN/secret", b"In\\SECRET", b"C:/iN/Secret\xff", b"secret", b"boot/in/secret"):
        with pytest.raises(RequestRefused):
            FileResolver(mounts).resolve(RequestName(asked), client, None, blocking=True)
    for asked in (b".TFTPD-UPLOAD-1", b"c:.Tftpd-Upload-1\xff"):
        with pytest.raises(RequestRefused):
            FileResolver(mounts).resolve(RequestName(asked), client, None, blocking=True)


def test_a_directory_may_have_its_own_fallbacks(root):
    chain = FallbackChain((Fallback.TRAILING,))
    mounts = Mounts(
        [
            Mount((), (Root(root),), read=ReadPolicy()),
            Mount((b"strict",), (Root(root),), read=ReadPolicy(), fallbacks=()),
            Mount((b"loose",), (Root(root),), read=ReadPolicy(), fallbacks=(Fallback.CASE,)),
        ],
        NameRules(fallbacks=chain),
    )
    served = []
    for asked in (b"seven\xff", b"SEVEN", b"strict/seven\xff", b"loose/seven\xff", b"LOOSE/SEVEN"):
        try:
            found = FileResolver(mounts).resolve(
                RequestName(asked), ClientIdentity(ip_address("192.0.2.7")), None, blocking=True
            )
        except RequestRefused:
            continue
        found.source.close()
        served.append((asked, found.name.name))
    assert served == [(b"seven\xff", b"seven"), (b"LOOSE/SEVEN", b"loose/seven")]


def test_a_name_without_its_directory_is_found_beside_the_last_read(offer, root):
    (root / "in" / "shim").write_bytes(b"shim")
    (root / "in" / "second").write_bytes(b"second")
    server = _with_fallbacks(offer, Fallback.SIBLING)
    refused = [ErrorPacket(1, "File not found")]
    first = server.client("192.0.2.7")
    assert first.request(Rrq(b"second", b"octet")) == refused
    assert first.request(Rrq(b"in/shim", b"octet")) == [Data(1, b"shim")]
    first.send(Ack(1))
    # The refusal of the same name was kept for another last read.
    again = server.client("192.0.2.7")
    assert again.request(Rrq(b"second", b"octet")) == [Data(1, b"second")]
    again.send(Ack(1))
    assert server.client("192.0.2.8").request(Rrq(b"second", b"octet")) == refused
    assert server.reports[2].resolution_steps == ("sibling",)


def test_no_read_is_kept_without_the_fallback():
    assert FileResolver(Mounts([])).last_reads is None


def test_a_name_that_is_not_printable_gets_the_default_loader(offer, root):
    (root / "in" / "grubx64.efi").write_bytes(b"grub")
    chain = FallbackChain((Fallback.DEFAULT_LOADER,), (), ((b"grubx64.efi",),))
    server = _naming(offer, NameRules(fallbacks=chain))
    client = server.client()
    assert client.request(Rrq(b"in/\xffOnboard", b"octet")) == [Data(1, b"grub")]
    client.send(Ack(1))
    assert server.reports[0].resolution_steps == ("default_loader",)
    assert server.client().request(Rrq(b"in/Onboard", b"octet")) == [
        ErrorPacket(1, "File not found")
    ]


def test_a_sibling_in_a_directory_without_the_fallback_is_not_served(root):
    (root / "in" / "second").write_bytes(b"second")
    mounts = Mounts(
        [
            Mount((), (Root(root),), read=ReadPolicy(), fallbacks=(Fallback.SIBLING,)),
            Mount((b"in",), (Root(root / "in"),), read=ReadPolicy(), fallbacks=()),
        ],
    )
    resolver = FileResolver(mounts)
    client = ClientIdentity(ip_address("192.0.2.7"))
    resolver.last_reads.note(client.address, b"in/shim")
    with pytest.raises(RequestRefused):
        resolver.resolve(RequestName(b"second"), client, None, blocking=True)


def test_a_name_that_is_found_causes_no_other_lookup(offer, root, monkeypatch):
    def never(*_):
        raise AssertionError("a fallback was tried")

    monkeypatch.setattr(FallbackChain, "candidates", never)
    server = _with_fallbacks(offer, *Fallback)
    client = server.client()
    assert client.request(Rrq(b"seven", b"octet")) == [Data(1, SEVEN)]
    client.send(Ack(1))


def test_a_request_is_dropped_if_a_fallback_has_no_free_descriptor(offer, monkeypatch):
    server = _naming(offer, NameRules(fallbacks=FallbackChain((Fallback.DRIVE,))))
    really = os.open

    def scarce(path, flags, *more, **where):
        if path == b"seven":
            raise OSError(errno.EMFILE, "Too many open files")
        return really(path, flags, *more, **where)

    monkeypatch.setattr(os, "open", scarce)
    client = server.client()
    assert client.request(Rrq(b"C:/seven", b"octet")) == []
    assert [report.outcome for report in server.reports] == [Outcome.DROPPED]
    monkeypatch.undo()
    assert client.request(Rrq(b"C:/seven", b"octet")) == [Data(1, SEVEN)]
    client.send(Ack(1))
    assert server.idle


def test_a_mac_address_in_a_name_selects_the_root_where_it_is_enabled(root):
    name = b"pxelinux.cfg/01-52-54-00-12-34-56"
    own, plain = parse_root(f"{root}/{{mac}}"), Root(root / "in")
    for parent in ("52-54-00-12-34-56", "52-54-00-00-00-99", "in"):
        directory = root / parent / "pxelinux.cfg"
        directory.mkdir(parents=True)
        (directory / os.fsdecode(name).rpartition("/")[2]).write_text(parent)
    resolver = FileResolver(
        Mounts(
            [
                Mount((), (own, plain), read=ReadPolicy(), mac_from_name=True),
                Mount((b"strict",), (own, plain), read=ReadPolicy()),
            ]
        )
    )
    known = ClientIdentity(ip_address("192.0.2.8"), lambda: bytes.fromhex("525400000099"))
    unknown = ClientIdentity(ip_address("192.0.2.7"))

    def read(name, client):
        request = Rrq(name, b"octet")
        file = resolve_read(request, client, resolver, OptionLimits(), None, blocking=True)
        with closing(file.source):
            return read_whole(file.source)

    assert read(name, unknown) == b"52-54-00-12-34-56"
    assert read(name, known) == b"52-54-00-00-00-99"
    assert read(b"strict/" + name, unknown) == b"in"
