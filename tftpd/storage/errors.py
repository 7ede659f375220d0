"""What an error of the file system is to a peer."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused, ResourceExhausted

# U-Boot gives up on codes 1 and 2 and begins again, for ever, on any other:
# what will not change by itself must be one of them.
_CODES = {
    errno.ENOENT: ErrorCode.FILE_NOT_FOUND,
    errno.ENOTDIR: ErrorCode.FILE_NOT_FOUND,
    errno.ENAMETOOLONG: ErrorCode.FILE_NOT_FOUND,
    errno.EACCES: ErrorCode.ACCESS_VIOLATION,
    errno.EPERM: ErrorCode.ACCESS_VIOLATION,
    errno.ELOOP: ErrorCode.ACCESS_VIOLATION,
    errno.EMLINK: ErrorCode.ACCESS_VIOLATION,  # what O_NOFOLLOW says of a link on FreeBSD
    errno.EISDIR: ErrorCode.ACCESS_VIOLATION,
    errno.ENXIO: ErrorCode.ACCESS_VIOLATION,  # a socket, or a FIFO nobody reads
    errno.EOPNOTSUPP: ErrorCode.ACCESS_VIOLATION,  # a socket, on the BSDs and macOS
    errno.ENODEV: ErrorCode.ACCESS_VIOLATION,
    errno.EROFS: ErrorCode.ACCESS_VIOLATION,
    errno.ETXTBSY: ErrorCode.ACCESS_VIOLATION,
    errno.ENOSPC: ErrorCode.DISK_FULL,
    errno.EDQUOT: ErrorCode.DISK_FULL,
    errno.EFBIG: ErrorCode.DISK_FULL,
    errno.EEXIST: ErrorCode.FILE_EXISTS,
}

_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@contextmanager
def translate_os_errors(otherwise: ErrorText) -> Iterator[None]:
    """Turns an `OSError` into `Refused`; `otherwise` is told where no code fits."""
    try:
        yield
    except OSError as error:
        raise refusal(error, otherwise) from error


def refusal(error: OSError, otherwise: ErrorText) -> RequestRefused:
    """What the peer is told of `error`, and what the log is."""
    code = _CODES.get(error.errno or 0)
    why = error.strerror or str(error)
    if error.errno in _SCARCE:
        return ResourceExhausted(ErrorCode.NOT_DEFINED, why, otherwise)
    if code is None:
        return RequestRefused(ErrorCode.NOT_DEFINED, why, otherwise)
    return RequestRefused(code, why)
