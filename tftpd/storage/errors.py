"""Translation of file system errors to TFTP errors."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from tftpd.access.policy import Grant, Policy
from tftpd.protocol.errors import ErrorCode, ErrorText, HostFault, RequestRefused, ResourceExhausted

# U-Boot stops after codes 1 and 2 and retries for ever after any other code. An error that
# will not go away by itself must therefore have one of these two codes.
_CODES = {
    errno.ENOENT: ErrorCode.FILE_NOT_FOUND,
    errno.ENOTDIR: ErrorCode.FILE_NOT_FOUND,
    errno.ENAMETOOLONG: ErrorCode.FILE_NOT_FOUND,
    errno.EACCES: ErrorCode.ACCESS_VIOLATION,
    errno.EPERM: ErrorCode.ACCESS_VIOLATION,
    errno.ELOOP: ErrorCode.ACCESS_VIOLATION,
    errno.EMLINK: ErrorCode.ACCESS_VIOLATION,  # O_NOFOLLOW on a link, on FreeBSD
    errno.EISDIR: ErrorCode.ACCESS_VIOLATION,
    errno.ENXIO: ErrorCode.ACCESS_VIOLATION,  # a socket, or a FIFO without a reader
    errno.EOPNOTSUPP: ErrorCode.ACCESS_VIOLATION,  # a socket, on the BSDs and macOS
    errno.ENODEV: ErrorCode.ACCESS_VIOLATION,
    errno.EROFS: ErrorCode.ACCESS_VIOLATION,
    errno.ETXTBSY: ErrorCode.ACCESS_VIOLATION,
    errno.ENOSPC: ErrorCode.DISK_FULL,
    errno.EDQUOT: ErrorCode.DISK_FULL,
    errno.EFBIG: ErrorCode.DISK_FULL,
    errno.EEXIST: ErrorCode.FILE_EXISTS,
}

# A client causes these with its choice of a name. Everything else is a fault of this host.
_CLIENT_ERRORS = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EISDIR, errno.EEXIST)
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""The process or the system has no descriptors or memory left at the moment."""


@contextmanager
def translate_os_errors(default: ErrorText) -> Iterator[None]:
    """Convert an `OSError` in the block to `RequestRefused`.

    Args:
        default: Error text for the peer if no TFTP error code fits.

    Raises:
        RequestRefused: With the TFTP error code for the errno. The reason for the log is the
            system's message without the path.
        HostFault: The same, if the request is not the cause.
        ResourceExhausted: The process or the system has no descriptors or memory left.
    """
    try:
        yield
    except OSError as error:
        # From Python 3.12 on, the frame of `__exit__` and the traceback of the error make a cycle,
        # which would keep all frames above, and the file that is found in the end.
        raise refusal_for(error, default) from error.with_traceback(None)


def refusal_for(error: OSError, default: ErrorText) -> RequestRefused:
    """Return the refusal for an `OSError`; see `translate_os_errors`."""
    code = _CODES.get(error.errno or 0, ErrorCode.NOT_DEFINED)
    reason = error.strerror or str(error)
    text = default if code is ErrorCode.NOT_DEFINED else None
    kind = RequestRefused if error.errno in _CLIENT_ERRORS else HostFault
    refused = ResourceExhausted if error.errno in EXHAUSTED else kind
    return refused(code, reason, text)


def add_path(refused: RequestRefused, grant: Grant[Policy]) -> RequestRefused:
    """Return `refused` with the path of the grant on this host in the reason, for the log."""
    if isinstance(refused, ResourceExhausted):
        return refused  # it has nothing to do with the file
    return type(refused)(refused.code, f"{refused}: {grant.printable_path}", refused.text)
