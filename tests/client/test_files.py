"""Local files of a transfer, also without a directory for temporary files."""

import errno
import io
import os
import tempfile
from pathlib import Path

import pytest

from tests.client.conftest import ClientDriver
from tftpd.client.errors import LocalError
from tftpd.client.files import FileDownload, SpooledDownload, open_local, open_source, open_spool
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.negotiation import Mode, TransferOptions
from tftpd.protocol.packets import Ack, Data

NO_DIRECTORY = FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")


def fail(*arguments, **options):
    raise NO_DIRECTORY


@pytest.fixture
def no_temporary_directory(monkeypatch):
    """Make every function of `tempfile` fail that needs a directory."""
    for name in ("TemporaryFile", "NamedTemporaryFile", "TemporaryDirectory", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, fail)


def test_a_download_to_an_open_file_needs_no_temporary_directory(net, no_temporary_directory):
    client, stream = ClientDriver(net), io.BytesIO()
    client.get(stream)
    assert client.receive(Data(1, b"abc")) == [Ack(1)]
    assert (stream.getvalue(), client.result.bytes_transferred) == (b"abc", 3)


def test_an_upload_of_bytes_needs_no_temporary_directory(net, no_temporary_directory):
    client = ClientDriver(net)
    client.put(b"hello")
    assert client.receive(Ack(0)) == [Data(1, b"hello")]
    client.receive(Ack(1))


def test_an_upload_of_a_stream_without_temporary_directory_causes_a_local_error(
    net, no_temporary_directory
):
    client = ClientDriver(net)
    client.put(io.BytesIO(b"hello"))
    assert type(client.result) is LocalError
    assert str(client.result) == (
        "cannot copy the input to a temporary file (see TMPDIR): "
        "No usable temporary directory found in ['/tmp']"
    )


def test_a_download_to_an_open_file_creates_temporary_files_only_in_threads(
    net, tmp_path, monkeypatch
):
    calls = []
    for name in ("TemporaryFile", "TemporaryDirectory", "mkdtemp"):
        original = getattr(tempfile, name)
        monkeypatch.setattr(
            tempfile,
            name,
            lambda *arguments, original=original: calls.append(original) or original(*arguments),
        )
    net.hold_threads = True
    client = ClientDriver(net)
    client.get(io.BytesIO())
    assert calls == []
    net.run_threads()  # resolves the server
    net.run_threads()
    assert len(calls) == 1
    client.done.cancel()


def test_a_spool_in_memory_is_used_if_no_directory_is_writable(no_temporary_directory):
    assert isinstance(open_spool(), io.BytesIO)


def options(tsize, mode=Mode.OCTET):
    return TransferOptions(mode=mode, tsize=tsize)


@pytest.mark.parametrize(
    ("tsize", "max_size", "payloads", "code"),
    [
        (2, None, [b"abc"], ErrorCode.ILLEGAL_OPERATION),
        (4, None, [b"abc"], ErrorCode.ILLEGAL_OPERATION),
        (None, 2, [b"abc"], ErrorCode.DISK_FULL),
        (3, 2, [], ErrorCode.DISK_FULL),
    ],
    ids=["larger than announced", "smaller than announced", "too large", "announced too large"],
)
def test_a_spooled_download_of_a_wrong_size_is_rejected(tsize, max_size, payloads, code):
    def download():
        sink = SpooledDownload(io.BytesIO(), max_size, options(tsize))
        sink.append(payloads)
        sink.commit()

    with pytest.raises(RequestRefused) as caught:
        download()
    assert caught.value.code == code


def test_a_spooled_download_converts_netascii():
    spool = io.BytesIO()
    download = SpooledDownload(spool, None, options(3, Mode.NETASCII))
    download.append([b"one\r", b"\ntwo\r"])
    download.commit()
    assert spool.getvalue() == b"one\ntwo\r"


def test_a_download_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", None)  # an upload to a server calls it
    download = FileDownload(tmp_path / "new", None, TransferOptions())
    download.append([b"content"])
    download.commit()
    assert (tmp_path / "new").read_bytes() == b"content"


def test_a_write_that_fails_when_the_file_is_closed_is_reported(tmp_path, monkeypatch):
    """NFS reports a full disk there."""

    class FullFile(io.FileIO):
        def close(self):
            is_open = not self.closed
            super().close()
            if is_open:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    opener = "tftpd.client.files.open"
    monkeypatch.setattr(opener, lambda *of: io.BufferedWriter(FullFile(*of[:2])), raising=False)
    download = FileDownload(tmp_path / "new", None, TransferOptions())
    download.append([b"content"])
    with pytest.raises(RequestRefused) as refused:
        download.commit()
    download.discard()
    assert refused.value.code is ErrorCode.DISK_FULL
    assert os.listdir(tmp_path) == []


@pytest.fixture
def shared(tmp_path):
    """A directory as /tmp, with links, a FIFO and a file of another user."""
    if os.geteuid() != 0:
        pytest.skip("changes owners")
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o1777)
    (tmp_path / "secret").write_bytes(b"secret")
    (directory / "link").symlink_to(tmp_path / "secret")
    (directory / "device").symlink_to("/dev/null")
    (directory / "directory").symlink_to(tmp_path)
    os.mkfifo(directory / "pipe")
    (directory / "file").write_bytes(b"hers")
    for name in os.listdir(directory):
        os.lchown(directory / name, 1001, 1001)
    return directory


@pytest.mark.parametrize("name", ["device", "pipe", "directory/secret", "file"])
def test_nothing_of_another_user_in_a_shared_directory_is_written(shared, name):
    with pytest.raises(PermissionError, match="another user in a directory that everyone can"):
        open_local(shared / name, "wb")


@pytest.mark.parametrize("name", ["link", "directory/secret"])
def test_no_link_of_another_user_in_a_shared_directory_is_uploaded(shared, name):
    with pytest.raises(LocalError, match="a link of another user in a directory"):
        open_source(shared / name)


@pytest.mark.parametrize("mode", ["rb", "wb"])
def test_a_missing_file_in_a_shared_directory_is_reported_as_missing(shared, mode):
    with pytest.raises(FileNotFoundError):
        open_local(shared / "missing", mode)


def test_a_file_of_another_user_in_a_shared_directory_is_uploaded(shared, monkeypatch):
    monkeypatch.chdir(shared.parent)
    source = open_source(Path("shared/../shared/file"))
    assert source.size == 4
    source.close()


def test_a_download_does_not_pass_a_link_of_another_user_in_a_shared_directory(shared):
    for name in ("link", "directory/secret", "directory/new"):
        with pytest.raises(RequestRefused, match="a link of another user in a directory"):
            FileDownload(shared / name, None, options(None))
    with pytest.raises(RequestRefused, match="a file of another user in a directory"):
        FileDownload(shared / "file", None, options(None))


def test_a_pipe_is_opened_by_its_descriptor():
    reader, writer = os.pipe()
    with open_local(Path(f"/dev/fd/{writer}"), "wb") as stream:
        stream.write(b"abc")
    os.close(writer)
    with open_local(Path(f"/dev/fd/{reader}"), "rb") as stream:
        assert stream.read() == b"abc"
    os.close(reader)


@pytest.mark.parametrize("path", [".", "..", "/"])
def test_a_directory_is_no_source(path):
    with pytest.raises(LocalError, match="Is a directory"):
        open_source(Path(path))
