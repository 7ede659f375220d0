"""Fill an upload as a session does."""

from collections.abc import Sequence

from tftpd.protocol.errors import RequestRefused
from tftpd.storage.upload import Upload


def fill(upload: Upload, payloads: Sequence[bytes]) -> None:
    """Append the payloads and write them if there are enough; discard a refused upload."""
    try:
        upload.append(payloads)
        if upload.is_full:
            upload.flush()
    except RequestRefused:
        upload.discard()
        raise
