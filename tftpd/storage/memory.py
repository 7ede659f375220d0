"""A file that is in memory: what was made of a template."""

from collections.abc import Sequence

from tftpd.protocol.errors import ErrorCode, Reason, Refused


class MemorySource:
    """Octets to be read as a `Source` is. They never change, and no disk is waited for."""

    def __init__(self, octets: bytes) -> None:
        self.size = len(octets)
        self._octets = memoryview(octets)

    def close(self) -> None:
        """There is nothing to free."""

    def spare_atime(self) -> None:
        """There is no time of access."""

    def read(self, room: Sequence[memoryview], offset: int, wait: bool) -> int:
        """Fill `room` with what there is from `offset` on; how many octets came.

        Raises `Refused` where there is nothing left.
        """
        at = offset
        for part in room:
            piece = self._octets[at : at + len(part)]
            part[: len(piece)] = piece
            at += len(piece)
        if at == offset:
            raise Refused(ErrorCode.NOT_DEFINED, text=Reason.FILE_CHANGED)
        return at - offset

    def check_unchanged(self) -> None:
        """It is unchanged."""
