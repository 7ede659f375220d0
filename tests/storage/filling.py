"""Fill an upload as a session does."""

from collections.abc import Sequence

from tftpd.storage.upload import Upload


def fill(upload: Upload, payloads: Sequence[bytes]) -> None:
    """Append the payloads and write them if there are enough."""
    upload.append(payloads)
    upload.flush_if_full()
