"""A sink filled as a session fills it."""

from collections.abc import Sequence

from tftpd.storage.upload import Upload


def fill(sink: Upload, payloads: Sequence[bytes]) -> None:
    """Take the payloads, and write what that gathers."""
    sink.append(payloads)
    sink.flush_if_full()
