"""Files at an origin, as the resolver and the requests see them.

The package `origins` has the implementation. Nothing here waits for an origin: if it must be
asked first, `AnswerNeeded` is raised, and the request is resolved again after the answer.
"""

from typing import NoReturn, Protocol

from tftpd.access.origin_roots import OriginRoot
from tftpd.access.policy import Grant, WritePolicy
from tftpd.protocol.errors import ErrorCode, ErrorText, HostFault
from tftpd.storage.source import FileLike
from tftpd.storage.upload import ReceivedFile


class AnswerNeeded(Exception):
    """The origin must be asked; resolve the request again after its answer.

    Attributes:
        root: The root at the origin.
        key: The key to ask for.
        whole: True if the answer must wait until the whole object is in the cache.
        create: True to ask whether the object can be created: it does not exist, and the origin
            refuses to create it twice. Otherwise the question is for the object.
    """

    def __init__(
        self, root: OriginRoot, key: str, whole: bool = False, create: bool = False
    ) -> None:
        super().__init__(root, key)
        self.root = root
        self.key = key
        self.whole = whole
        self.create = create


class OriginFiles(Protocol):
    """Opens files at origins. Never blocks."""

    def open(self, root: OriginRoot, key: str, whole: bool = False) -> FileLike:
        """Open an object that is in the cache, or that is being fetched into it.

        Args:
            root: The root at the origin.
            key: The key of the object.
            whole: Whether the whole object must be in the cache.

        Raises:
            RequestRefused: There is no such object, or the origin does not answer.
            AnswerNeeded: The origin must be asked first.
        """
        ...

    def open_upload(
        self,
        root: OriginRoot,
        key: str,
        grant: Grant[WritePolicy],
        size: int | None,
        netascii: bool,
    ) -> ReceivedFile:
        """Begin an upload.

        Args:
            root: The root at the origin.
            key: The key of the object.
            grant: The grant, with the policy.
            size: Size of the file in bytes; None if unknown.
            netascii: Whether the transfer is in netascii mode.

        Raises:
            RequestRefused: The policy or the origin does not allow the file.
            AnswerNeeded: The origin must be asked first.
        """
        ...


class NoOrigins:
    """Origins of a program that has no fetcher. Each request is refused."""

    def open(self, root: OriginRoot, key: str, whole: bool = False) -> FileLike:
        """Refuse to open a file."""
        self._refuse(root)

    def open_upload(
        self,
        root: OriginRoot,
        key: str,
        grant: Grant[WritePolicy],
        size: int | None,
        netascii: bool,
    ) -> ReceivedFile:
        """Refuse an upload."""
        self._refuse(root)

    def _refuse(self, root: OriginRoot) -> NoReturn:
        reason = f"no process that fetches from origins is running ({root})"
        raise HostFault(ErrorCode.NOT_DEFINED, reason, ErrorText.READ_FAILED)
