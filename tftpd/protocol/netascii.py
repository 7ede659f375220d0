"""Netascii: the text format of RFC 764, in which lines end with CR LF.

A CR that does not end a line is sent as CR NUL. All other bytes are sent unchanged. Decoding
returns exactly the bytes that were encoded, also for data that is not text.
"""

_CR, _LF, _NUL = b"\r", b"\n", b"\0"


def encode_netascii(chunk: bytes) -> bytes:
    """Return a chunk of local text as netascii. Each chunk is encoded independently."""
    return chunk.replace(_CR, _CR + _NUL).replace(_LF, _CR + _LF)


class NetasciiDecoder:
    """Incremental decoder from netascii to local text.

    A CR that is not followed by LF or NUL is kept, because some peers send text unchanged.
    """

    def __init__(self) -> None:
        self._pending = b""  # a CR at the end of the last chunk; its second byte is still missing

    def decode(self, chunk: bytes, final: bool = False) -> bytes:
        """Return the local text of the next chunk.

        Args:
            chunk: The next bytes of the netascii text.
            final: True for the last chunk. A CR at its end is then kept.
        """
        text = self._pending + chunk
        self._pending = b""
        if text.endswith(_CR) and not final:
            text, self._pending = text[:-1], _CR
        return text.replace(_CR + _LF, _LF).replace(_CR + _NUL, _CR)
