"""Owner, permissions, ACL and extended attributes of a file that an upload replaces."""

import errno
import os
import stat
import struct
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.programs import needs_linux
from tftpd.access.policy import Grant, WritePolicy
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage.upload import Upload

ACL, DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"
OWNER, USER, GROUP, MASK, OTHER = 1, 2, 4, 16, 32
ANYONE = 0xFFFFFFFF
DAEMON, ALICE, STAFF = 65534, 1000, 1234

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")


def _acl(*entries):
    """Return an ACL from entries of tag, permissions and user; the others have no user."""
    packed = [
        struct.pack("<HHI", *entry, *([ANYONE] if len(entry) == 2 else [])) for entry in entries
    ]
    return struct.pack("<I", 2) + b"".join(packed)


SHARED_WITH_ALICE = _acl((OWNER, 6), (USER, 6, ALICE), (GROUP, 0), (MASK, 6), (OTHER, 0))


@pytest.fixture
def root():
    """A root that every user can access, with a file of Alice's."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o777)
    (path / "file").write_bytes(b"old")
    yield path
    for name in os.listdir(path):
        (path / name).unlink()
    path.rmdir()


@contextmanager
def _as_daemon(groups=()):
    """Run as an ordinary user with these groups."""
    os.setgroups(groups)
    os.setegid(DAEMON)
    os.seteuid(DAEMON)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([0])


def _grant(root, **policy):
    return Grant(root, (b"file",), WritePolicy(**{"overwrite": True, **policy}))


def _replace(root, **policy):
    upload = Upload.open(_grant(root, **policy), None, netascii=False)
    upload.append([b"new"])
    upload.commit()
    assert (root / "file").read_bytes() == b"new"
    return (root / "file").stat()


def _set(path, mode, uid=0, gid=0):
    os.chown(path, uid, gid)
    path.chmod(mode)


def _attribute(path, name):
    with suppress(OSError):
        return os.getxattr(path, name)
    return None


def _set_attribute(path, name, value):
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        pytest.skip("no such attributes on this file system")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o666, 0o755])
def test_a_replaced_file_keeps_its_mode(root, mode):
    (root / "file").chmod(mode)
    assert stat.S_IMODE(_replace(root, mode=0o644).st_mode) == mode


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6777, 0o1777])
def test_setuid_setgid_and_sticky_bits_are_not_kept(root, mode):
    (root / "file").chmod(mode)
    assert stat.S_IMODE(_replace(root).st_mode) == mode & 0o777


def test_a_file_that_all_may_write_is_replaced_again_and_again(root):
    """The translation of tftpd-hpa without --create."""
    (root / "file").chmod(0o666)
    for _ in range(3):
        status = _replace(root, create=False, world_writable=True, mode=0o644)
        assert stat.S_IMODE(status.st_mode) == 0o666


def test_a_new_file_gets_the_mode_of_the_policy(root):
    (root / "file").unlink()
    assert stat.S_IMODE(_replace(root, mode=0o620).st_mode) == 0o620


@needs_root
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o4755])
def test_root_keeps_owner_and_group(root, mode):
    _set(root / "file", mode, ALICE, STAFF)
    status = _replace(root)
    assert (status.st_uid, status.st_gid) == (ALICE, STAFF)
    assert stat.S_IMODE(status.st_mode) == mode & 0o777


@needs_root
def test_the_file_is_never_accessible_to_a_wrong_group(root, monkeypatch):
    """The mode is set after the owner, on the descriptor."""
    _set(root / "file", 0o664, ALICE, STAFF)
    fchmod, seen = os.fchmod, []

    def record(fd, mode):
        status = os.fstat(fd)
        seen.append((status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)))
        fchmod(fd, mode)

    monkeypatch.setattr(os, "fchmod", record)
    _replace(root)
    assert seen == [(ALICE, STAFF, 0o600)]


@needs_root
@pytest.mark.parametrize(
    ("mode", "kept"),
    [
        (0o666, 0o666),
        (0o664, 0o644),  # the daemon's group may do what everyone may, and no more
        (0o660, 0o600),
        (0o646, 0o644),  # Alice's group was shut out from the other bits
        (0o606, 0o600),
        (0o266, 0o222),  # so was Alice
    ],
)
def test_without_owner_and_group_nobody_gets_more_access(root, mode, kept):
    (root / "file").chmod(0o666)
    with _as_daemon():
        upload = Upload.open(_grant(root), None, netascii=False)
        upload.append([b"new"])
    _set(root / "file", mode, ALICE, STAFF)  # perhaps not writable for the daemon any longer
    with _as_daemon():
        upload.commit()
    status = (root / "file").stat()
    assert (status.st_uid, status.st_gid) == (DAEMON, DAEMON)
    assert stat.S_IMODE(status.st_mode) == kept


@needs_root
@pytest.mark.parametrize(("mode", "kept"), [(0o664, 0o664), (0o660, 0o660), (0o464, 0o444)])
def test_a_daemon_in_the_group_keeps_the_group(root, mode, kept):
    _set(root / "file", mode, ALICE, STAFF)
    with _as_daemon([STAFF]):
        status = _replace(root)
    assert (status.st_uid, status.st_gid) == (DAEMON, STAFF)
    assert stat.S_IMODE(status.st_mode) == kept


@needs_linux
def test_extended_attributes_are_kept(root):
    _set_attribute(root / "file", "user.checked-by", b"alice")
    _replace(root)
    assert os.getxattr(root / "file", "user.checked-by") == b"alice"


@needs_linux
def test_the_number_of_copied_attributes_is_bounded(root):
    for number in range(70):
        _set_attribute(root / "file", f"user.{number}", b"")
    _replace(root)
    assert len(os.listxattr(root / "file")) == 64


@needs_linux
@needs_root
def test_file_capabilities_are_not_kept(root):
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep
    _set_attribute(root / "file", "security.capability", capability)
    _replace(root)
    assert _attribute(root / "file", "security.capability") is None


@needs_linux
def test_an_acl_is_kept(root):
    _set_attribute(root / "file", ACL, SHARED_WITH_ALICE)
    status = _replace(root)
    assert os.getxattr(root / "file", ACL) == SHARED_WITH_ALICE
    assert stat.S_IMODE(status.st_mode) == 0o660


@needs_linux
@needs_root
@pytest.mark.parametrize(("other", "kept"), [(0, 0o600), (4, 0o644), (6, 0o644)])
def test_without_the_group_an_acl_becomes_what_all_its_entries_allow(root, other, kept):
    acl = _acl(
        (OWNER, 6), (USER, 6, ALICE), (USER, 6, DAEMON), (GROUP, 4), (MASK, 6), (OTHER, other)
    )
    _set_attribute(root / "file", ACL, acl)
    os.chown(root / "file", ALICE, STAFF)
    with _as_daemon():
        status = _replace(root)
    assert _attribute(root / "file", ACL) is None
    assert stat.S_IMODE(status.st_mode) == kept


@needs_linux
@pytest.mark.parametrize("call", ["getxattr", "setxattr"])
def test_an_acl_that_cannot_be_copied_restricts_the_mode(root, monkeypatch, call):
    _set_attribute(root / "file", ACL, SHARED_WITH_ALICE)

    def fail(*_):
        raise PermissionError(errno.EPERM, "not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        status = _replace(root)
    assert _attribute(root / "file", ACL) is None
    assert stat.S_IMODE(status.st_mode) == 0o600


@needs_linux
def test_the_default_acl_of_the_directory_gives_a_replaced_file_to_nobody(root):
    _set_attribute(root, DEFAULT_ACL, SHARED_WITH_ALICE)
    (root / "file").chmod(0o660)
    status = _replace(root)
    assert _attribute(root / "file", ACL) is None
    assert stat.S_IMODE(status.st_mode) == 0o660


@needs_linux
def test_a_new_file_gets_the_default_acl_of_its_directory(root):
    (root / "file").unlink()
    _set_attribute(root, DEFAULT_ACL, SHARED_WITH_ALICE)
    status = _replace(root, mode=0o640)
    assert struct.pack("<HHI", USER, 6, ALICE) in os.getxattr(root / "file", ACL)
    assert stat.S_IMODE(status.st_mode) == 0o640


@needs_linux
def test_an_acl_that_cannot_be_removed_fails_the_upload(root, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "disk error")

    _set_attribute(root, DEFAULT_ACL, SHARED_WITH_ALICE)
    monkeypatch.setattr(os, "removexattr", fail)
    with pytest.raises(RequestRefused) as refused:
        _replace(root)
    assert refused.value.code is ErrorCode.NOT_DEFINED
    assert (root / "file").read_bytes() == b"old"
    assert os.listdir(root) == ["file"]


def test_a_link_in_place_of_the_file_passes_on_no_attributes(root):
    """The target of the link belongs to somebody else."""
    upload = Upload.open(_grant(root, mode=0o640), None, netascii=False)
    upload.append([b"new"])
    (root / "file").unlink()
    (root / "file").symlink_to("/etc/passwd")
    upload.commit()
    status = (root / "file").lstat()
    assert stat.S_ISREG(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o640


def test_another_name_of_a_replaced_file_keeps_the_old_file(root):
    os.link(root / "file", root / "other")
    (root / "file").chmod(0o600)
    _replace(root)
    assert (root / "other").read_bytes() == b"old"
    assert stat.S_IMODE((root / "other").stat().st_mode) == 0o600


def test_a_system_without_extended_attributes_keeps_the_mode(root, monkeypatch):
    monkeypatch.setattr("tftpd.storage.attributes._HAS_ATTRIBUTES", False)
    (root / "file").chmod(0o640)
    assert stat.S_IMODE(_replace(root).st_mode) == 0o640


@needs_root
@pytest.mark.parametrize("is_early", [True, False], ids=["before the upload", "during the upload"])
def test_a_file_of_another_user_in_a_shared_directory_is_not_replaced(root, is_early):
    """Its owner could change the new file. The kernel does the same: fs.protected_regular."""
    root.chmod(0o1777)
    (root / "file").unlink()

    def create():
        (root / "file").write_bytes(b"old")
        _set(root / "file", 0o666, ALICE)

    def replace():
        upload = Upload.open(_grant(root), None, netascii=False)
        if not is_early:
            create()
        upload.append([b"new"])
        upload.commit()

    if is_early:
        create()
    with pytest.raises(RequestRefused, match="another user") as refused:
        replace()
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION
    assert (root / "file").read_bytes() == b"old"
    assert os.listdir(root) == ["file"]


@needs_root
def test_the_owner_of_a_shared_directory_may_own_its_files(root):
    root.chmod(0o1777)
    os.chown(root, ALICE, 0)
    _set(root / "file", 0o644, ALICE)
    assert _replace(root).st_uid == ALICE


@needs_root
def test_on_systems_without_such_attributes_a_file_keeps_mode_and_owner(root, monkeypatch):
    monkeypatch.setattr("tftpd.storage.attributes._HAS_ATTRIBUTES", False)
    monkeypatch.setattr("tftpd.storage.attributes._PATH_ONLY", None)  # O_PATH
    _set(root / "file", 0o640, ALICE, STAFF)
    status = _replace(root)
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, ALICE, STAFF)


@pytest.mark.parametrize("target", [None, "other"])
def test_without_such_attributes_a_file_that_vanished_or_became_a_link_passes_on_nothing(
    root, monkeypatch, target
):
    monkeypatch.setattr("tftpd.storage.attributes._HAS_ATTRIBUTES", False)
    upload = Upload.open(_grant(root, mode=0o604), None, netascii=False)
    (root / "file").unlink()
    if target:
        (root / "file").symlink_to(target)
    upload.commit()
    assert stat.S_IMODE((root / "file").lstat().st_mode) == 0o604
