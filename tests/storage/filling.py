"""A sink filled as a session fills it."""

from collections.abc import Sequence

from tftpd.storage.upload import Sink


def fill(sink: Sink, payloads: Sequence[bytes]) -> None:
    """Take the payloads, and write what that gathers."""
    sink.append(payloads)
    sink.spill()
