"""Names in several encodings, through the listener."""

import os
from dataclasses import replace

import pytest
from twisted.logger import LogLevel, globalLogPublisher

from tests.support.fakes import MemoryServer
from tests.support.programs import needs_linux
from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import ReadPolicy, Symlinks, WritePolicy
from tftpd.access.regex import pattern
from tftpd.access.rewrite import NameRules, RewriteRule, parse_template
from tftpd.daemon.access_log import AccessLog
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Rrq, Wrq
from tftpd.protocol.result import Outcome

DIRECTORY, FILE = "启动", "王诚.cfg"
UTF_8, GB, LATIN_1 = "utf-8", "gb18030", "latin-1"
MISSING, VIOLATION = ErrorPacket(1, "File not found"), ErrorPacket(2, "Access violation")


def _name(*parts):
    """Return a name whose parts have an encoding each."""
    return b"/".join(text.encode(encoding) for text, encoding in parts)


@pytest.fixture
def serve(offer, root):
    """Return a function that builds a server with names in UTF-8 and GB 18030."""

    def build(*mounts, rules=None, **policy):
        write = WritePolicy(overwrite=True)
        chosen = mounts or (Mount((), (Root(root),), ReadPolicy(), write, **policy),)
        naming = rules or NameRules(encodings=(GB,))
        return MemoryServer(lambda report: replace(offer(report), mounts=Mounts(chosen, naming)))

    return build


def _store(root, name, content=b"content"):
    path = os.path.join(os.fsencode(root), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def _read(server, name):
    client = server.client()
    (answer,) = client.request(Rrq(name, b"octet"))
    if isinstance(answer, Data):
        client.send(Ack(1))
    return answer


def _write(server, name, content=b"new"):
    client = server.client()
    (answer,) = client.request(Wrq(name, b"octet"))
    if answer == Ack(0):
        client.send(Data(1, content))
    return answer


def _tree(root):
    return {
        os.path.relpath(os.path.join(directory, file), os.fsencode(root))
        for directory, _, files in os.walk(os.fsencode(root))
        for file in files
        if not file.isascii()
    }


@pytest.mark.parametrize("asked", [UTF_8, GB])
@pytest.mark.parametrize("file", [UTF_8, GB])
@pytest.mark.parametrize("directory", [UTF_8, GB])
@pytest.mark.parametrize("title", [DIRECTORY, "目录"])  # the second one in GB is valid UTF-8
def test_a_file_is_found_by_its_characters(serve, root, title, directory, file, asked):
    _store(root, _name((title, directory), (FILE, file)))
    server = serve()
    assert _read(server, _name((title, asked), (FILE, asked))) == Data(1, b"content")
    assert _read(server, _name((title, UTF_8), (FILE, GB))) == Data(1, b"content")
    (report, _) = server.reports
    found = (report.served_name, report.resolution_steps)
    utf_8 = _name((title, UTF_8), (FILE, UTF_8))
    assert found == ((None, ()) if asked == UTF_8 else (utf_8, ("encoding",)))
    assert server.idle


@pytest.mark.parametrize("asked", [UTF_8, GB])
def test_a_new_upload_is_stored_under_its_name_in_utf_8(serve, root, asked):
    _store(root, _name((DIRECTORY, GB), ("x.cfg", UTF_8)))
    server = serve()
    for name in (_name((FILE, asked)), _name((DIRECTORY, asked), (FILE, asked))):
        assert _write(server, name) == Ack(0)
    assert _tree(root) == {_name((FILE, UTF_8)), _name((DIRECTORY, GB), (FILE, UTF_8))}
    server.advance(120)


@pytest.mark.parametrize("asked", [UTF_8, GB])
@pytest.mark.parametrize("stored", [UTF_8, GB])
def test_an_upload_replaces_the_file_under_its_present_name(serve, root, asked, stored):
    _store(root, _name((FILE, stored)))
    server = serve()
    assert _write(server, _name((FILE, asked))) == Ack(0)
    assert _tree(root) == {_name((FILE, stored))}
    assert (root / os.fsdecode(_name((FILE, stored)))).read_bytes() == b"new"
    server.advance(120)


def test_a_file_in_another_encoding_is_not_replaced_without_overwrite(serve, root):
    _store(root, _name((FILE, GB)))
    server = serve(Mount((), (Root(root),), write=WritePolicy()))
    answer = _write(server, _name((FILE, UTF_8)))
    assert answer == ErrorPacket(6, "File already exists")


@pytest.mark.parametrize("asked", [UTF_8, GB])
@pytest.mark.parametrize("parts", [(FILE,), (DIRECTORY, "x.cfg")])
def test_a_name_that_exists_in_two_encodings_is_refused(serve, root, parts, asked):
    for encoding in (UTF_8, GB):
        _store(root, _name(*((part, encoding) for part in parts)))
    server = serve()
    name = _name(*((part, asked) for part in parts))
    assert _read(server, name) == VIOLATION
    assert _write(server, name) == VIOLATION
    raw = "".join(f"\\x{byte:02x}" for byte in parts[0].removesuffix(".cfg").encode(GB))
    other = raw + (".cfg" if parts[0] == FILE else "")
    reason = f'the directory has one name in several encodings: "{parts[0]}", "{other}"'
    assert all(report.outcome is Outcome.REFUSED for report in server.reports)
    assert all(reason in report.detail for report in server.reports)
    events = []
    globalLogPublisher.addObserver(events.append)
    AccessLog()(server.reports[0])
    globalLogPublisher.removeObserver(events.append)
    assert [event["log_level"] for event in events] == [LogLevel.warn]


def test_two_names_of_three_encodings_are_refused_without_a_name_in_utf_8(serve, root):
    for encoding in (GB, LATIN_1):
        _store(root, "ä".encode(encoding))
    server = serve(rules=NameRules(encodings=(GB, LATIN_1)))
    assert _read(server, "ä".encode()) == VIOLATION


def test_a_name_that_no_encoding_decodes_is_found_by_its_bytes(serve, root):
    _store(root, b"\xff\xfe")
    server = serve()
    assert _read(server, b"\xff\xfe") == Data(1, b"content")
    assert _write(server, b"\xfe\xff") == Ack(0)
    assert _tree(root) == {b"\xff\xfe", b"\xfe\xff"}
    server.advance(120)


def test_the_backslash_in_the_bytes_of_a_character_is_no_separator(serve, root):
    name = "C:誠.cfg".encode(GB)
    assert b"\\" in name
    _store(root, name)
    assert _read(serve(), name) == Data(1, b"content")


def test_a_name_may_be_too_long_in_utf_8_only(serve, root):
    name = "王" * 100
    _store(root, name.encode(GB))
    server = serve()
    assert _read(server, name.encode(GB)) == Data(1, b"content")
    assert _write(server, name.encode()) == Ack(0)
    assert _tree(root) == {name.encode(GB)}
    server.advance(120)


def test_links_are_followed_under_each_spelling(serve, root):
    _store(root, _name((DIRECTORY, GB), ("x", UTF_8)))
    (root / os.fsdecode(FILE.encode(GB))).symlink_to(os.fsdecode(DIRECTORY.encode(GB)))
    for symlinks in (Symlinks.INSIDE, Symlinks.CHROOT, Symlinks.FOLLOW):
        server = serve(symlinks=symlinks)
        assert _read(server, _name((FILE, UTF_8), ("x", UTF_8))) == Data(1, b"content")
    assert _read(serve(symlinks=Symlinks.DENY), _name((FILE, UTF_8), ("x", UTF_8))) == VIOLATION


@pytest.mark.parametrize("asked", [UTF_8, GB])
def test_the_policy_of_a_directory_applies_to_each_spelling_of_its_name(serve, root, asked):
    for encoding in (UTF_8, GB):
        _store(root, _name((DIRECTORY, encoding), ("x", UTF_8)))
    open_for_reads = Mount((), (Root(root),), ReadPolicy())
    closed = Mount((DIRECTORY.encode(),), (Root(root / "none"),), write=WritePolicy())
    chain = FallbackChain(tuple(Fallback), ((DIRECTORY.encode(),),))
    server = serve(open_for_reads, closed, rules=NameRules((), chain, (GB,)))
    name = _name((DIRECTORY, asked), ("x", UTF_8))
    for variant in (name, b"/" + name, b"C:/" + name, name + b"\xff", b"a/../" + name):
        assert _read(server, variant) in (MISSING, VIOLATION)


def test_no_spelling_of_a_name_leads_to_the_directory_of_another_policy(serve, root):
    """The name of the directory in UTF-8 is also a name in GB 18030."""
    name = "архив"
    _store(root, _name((name, UTF_8), ("x", UTF_8)))
    asked = _name((name.encode().decode(GB), UTF_8), ("x", UTF_8))
    assert _read(serve(), asked) == Data(1, b"content")
    reads = Mount((), (Root(root),), ReadPolicy())
    closed = Mount((name.encode(),), (Root(root / name),), write=WritePolicy())
    server = serve(reads, closed)
    assert _read(server, asked) == MISSING
    assert _read(server, _name((name, UTF_8), ("x", UTF_8))) == VIOLATION


def test_a_file_with_other_characters_is_never_found(serve, root):
    """The bytes of this name in GB 18030 are another name in UTF-8."""
    other = FILE.encode().decode(GB, "ignore")
    _store(root, other.encode(GB))
    assert _read(serve(), other.encode()) == MISSING
    assert _read(serve(), other.encode(GB)) == Data(1, b"content")


def test_rules_see_the_name_in_utf_8(serve, root):
    _store(root, b"found")
    expression = "^" + "".join(f"\\x{byte:02x}" for byte in FILE.encode()[:6])
    found = pattern(f"{expression}[.]cfg$")
    rule = RewriteRule("rewrite[0]", found, parse_template("found", found))
    server = serve(rules=NameRules((rule,), encodings=(GB,)))
    for encoding, steps in ((UTF_8, ("rewrite[0]",)), (GB, ("encoding", "rewrite[0]"))):
        assert _read(server, FILE.encode(encoding)) == Data(1, b"content")
        assert server.reports[-1].resolution_steps == steps


def test_fallbacks_apply_to_names_in_other_encodings(serve, root):
    _store(root, _name((DIRECTORY, GB), ("Boot.cfg", UTF_8)))
    chain = FallbackChain((Fallback.DRIVE, Fallback.TRAILING, Fallback.CASE))
    server = serve(rules=NameRules((), chain, (GB,)))
    for name in (b"C:\\%b\\BOOT.CFG", b"%b/Boot.cfg\xff", b"c:%b/boot.cfg\xff\x12"):
        assert _read(server, name % DIRECTORY.encode(GB)) == Data(1, b"content")


def test_a_file_that_appears_in_a_directory_in_another_encoding_is_found(serve, root, monkeypatch):
    """The negative cache looks for the directory in UTF-8 only."""
    _store(root, _name((DIRECTORY, GB), ("x", UTF_8)))
    hour = os.stat(root).st_ctime_ns + 3600 * 10**9
    monkeypatch.setattr("tftpd.storage.negative_cache.time.time_ns", lambda: hour)
    server = serve()
    name = _name((DIRECTORY, UTF_8), ("new", UTF_8))
    assert _read(server, name) == MISSING
    _store(root, _name((DIRECTORY, GB), ("new", UTF_8)))
    assert _read(server, name) == Data(1, b"content")


def test_lookups_of_an_ascii_name_do_not_depend_on_the_encodings(serve, monkeypatch):
    monkeypatch.setattr("tftpd.access.mounts.paths.decode_name", None)
    monkeypatch.setattr("tftpd.storage.walk.lstat_at", None)
    assert _read(serve(), b"seven") == Data(1, b"1234567")
    assert _read(serve(), b"none") == MISSING


@needs_linux
def test_names_wait_for_a_thread_if_they_are_not_ascii(serve, root):
    _store(root, _name((FILE, GB)))
    server = serve()
    server.net.hold_threads = True
    client = server.client()
    assert client.request(Rrq(FILE.encode(), b"octet")) == []
    server.net.run_threads()
    assert client.receive() == [Data(1, b"content")]
    client.send(Ack(1))
    uploading = server.client(port=3000)
    assert uploading.request(Wrq(FILE.encode(), b"octet")) == []
    server.net.run_threads()
    assert uploading.receive() == [Ack(0)]
    server.advance(120)
