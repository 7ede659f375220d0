"""Our end of a transfer: the file that is filled, and the file that is sent."""

import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from tftpd.access.policy import Grant, Symlinks, WritePolicy
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.negotiation import Mode, TransferOptions
from tftpd.storage.errors import translate_os_errors
from tftpd.storage.source import FileSource
from tftpd.storage.upload import Upload


class Download(Upload):
    """A file in the making that takes its name only in the size that was announced."""

    announced: int | None = None
    """Octets that the server said it would send; None where it did not say."""

    @classmethod
    def begin(cls, path: Path, terms: TransferOptions, max_size: int | None) -> "Download":
        """A sink that becomes `path`; raises `Refused`.

        A `tsize` says nothing exact of a netascii file: it is as long as on
        the server's disk, or 0.
        """
        policy = WritePolicy(overwrite=True, max_size=max_size, mode=0o666 & ~_umask())
        name = (os.fsencode(path.name),)
        grant = Grant(path.parent, name, policy, Symlinks.FOLLOW)
        size = terms.tsize if terms.mode is Mode.OCTET else None
        sink = cls.open(grant, size, terms.mode is Mode.NETASCII)
        sink.announced = size
        return sink

    def append(self, payloads: Sequence[bytes]) -> None:
        """Take what came; raises `Refused` where it is more than was announced."""
        super().append(payloads)
        if self.announced is not None and self.size > self.announced:
            self.discard()
            raise self._differs()

    def commit(self) -> None:
        """Give the file its name; raises `Refused` where it is less than was announced."""
        if self.announced is not None and self.size != self.announced:
            self.discard()
            raise self._differs()
        super().commit()

    def _differs(self) -> RequestRefused:
        why = f"{self.size} octets came where {self.announced} were announced"
        return RequestRefused(ErrorCode.ILLEGAL_OPERATION, why)


def open_source(what: Path | bytes | BinaryIO) -> FileSource:
    """What is to be sent, of known size; raises `Refused`. Blocks for as long as it takes.

    A regular file is sent from where it is. All else, a pipe too, is read
    to its end and kept in a temporary file, which has no name.
    """
    with translate_os_errors(ErrorText.READ_FAILED):
        if not isinstance(what, Path):
            return _spooled(what)
        with what.open("rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                return FileSource(os.dup(file.fileno()), status)
            return _spooled(file)


def copy_out(path: Path, to: BinaryIO) -> None:
    """Write all of the file `path` to `to`; raises `OSError`. Blocks."""
    with path.open("rb") as file:
        shutil.copyfileobj(file, to)
    to.flush()


def _spooled(what: bytes | BinaryIO) -> FileSource:
    with tempfile.TemporaryFile() as spool:
        if isinstance(what, bytes):
            spool.write(what)
        else:
            shutil.copyfileobj(what, spool)
        spool.flush()
        return FileSource(os.dup(spool.fileno()), os.fstat(spool.fileno()))


def _umask() -> int:
    """The permissions that new files of this process are without."""
    mask = os.umask(0o077)  # only setting it tells what it was
    os.umask(mask)
    return mask
