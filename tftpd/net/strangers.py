"""Those who speak to the port of a session that is not theirs."""

from tftpd.net.runtime import SocketAddress
from tftpd.protocol.errors import ErrorCode
from tftpd.protocol.packets import Error, Opcode

# How many are told so. A port that answered without end could be made to echo for
# ever by a spoofed service that answers everything.
_MOST = 32

_ERROR = Opcode.ERROR.to_bytes(2, "big")
_UNKNOWN = Error(ErrorCode.UNKNOWN_TID, ErrorCode.UNKNOWN_TID.text).encode()


class Strangers:
    """Who was told ERROR 5 by one session."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: set[SocketAddress] = set()

    def answer(self, datagram: bytes, stranger: SocketAddress) -> bytes | None:
        """ERROR 5 to the source of a wrong TID; the transfer is not disturbed (RFC 1350 s4).

        Each is told once, and an ERROR is never answered.
        """
        if stranger in self._told or len(self._told) >= _MOST or datagram.startswith(_ERROR):
            return None
        self._told.add(stranger)
        return _UNKNOWN
