"""Netascii: the text form of RFC 764, in which lines end with CR LF.

A lone CR travels as CR NUL. Nothing else is changed, and nothing is lost:
decoding gives back the octets that were encoded, whatever they were.
"""

_CR, _LF, _NUL = b"\r", b"\n", b"\0"


def encode(chunk: bytes) -> bytes:
    """`chunk` of a local text as netascii; chunks can be encoded one by one."""
    return chunk.replace(_CR, _CR + _NUL).replace(_LF, _CR + _LF)


class Decoder:
    """Netascii to local text, chunk by chunk.

    A CR that neither LF nor NUL follows is kept, as peers that do not
    translate send it.
    """

    def __init__(self) -> None:
        self._held = b""  # a CR whose second octet has not come yet

    def decode(self, chunk: bytes, final: bool = False) -> bytes:
        """The text of `chunk`; with `final`, a CR at its end stands for itself."""
        text = self._held + chunk
        self._held = b""
        if text.endswith(_CR) and not final:
            text, self._held = text[:-1], _CR
        return text.replace(_CR + _LF, _LF).replace(_CR + _NUL, _CR)
