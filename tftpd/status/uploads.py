"""The latest upload of each file by each client: which device has not written its backup."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.status.boots import short_name

MAX_UPLOAD_CLIENTS = 1000
_MAX_FILES = 8  # of a client; some devices write a new name every day


def format_time(seconds: float) -> str:
    """Return a time in seconds since the epoch in ISO 8601 with UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class LastUpload:
    """The latest upload of one file by one client.

    Attributes:
        number: Number of the latest request for it in the history.
        time: Time when the file was stored, in ISO 8601.
        bytes: Bytes that were stored.
        failed: Time of a later attempt that failed; None if there is none.
        detail: Reason of that failure.
        sha256: SHA-256 of the stored file; None if it was not computed.
    """

    number: int
    time: str
    bytes: int
    failed: str | None = None
    detail: str | None = None
    sha256: str | None = None


@dataclass(slots=True)
class DeviceState:
    """Uploads of a device.

    Attributes:
        since: Time from which its first upload is expected, in seconds since the epoch.
        stored: Time of its latest upload; None before the first one.
        file: Requested name of that upload.
        bytes: Bytes that were stored.
        sha256: SHA-256 of the file; None if it was not computed.
        is_overdue: True from the time when an upload was due until the next one.
    """

    since: float
    stored: float | None = None
    file: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    is_overdue: bool = False


@dataclass
class UploadTable:
    """Uploads by client and file. The client that stored a file last is the last one.

    Only a stored file creates an entry. Therefore forged requests cannot remove entries.
    """

    clients: dict[str, dict[str, LastUpload]] = field(default_factory=dict)

    def add(self, result: TransferResult, number: int, seconds: float) -> None:
        """Add the result of an upload; ignore that of a read.

        Args:
            result: The result.
            number: Number of the request in the history.
            seconds: Time of its end, in seconds since the epoch.
        """
        if result.direction is not Direction.WRITE:
            return
        host, name, time = result.peer[0], short_name(result.filename), format_time(seconds)
        if result.outcome is Outcome.DONE:
            files = self.clients.pop(host, {})
            files.pop(name, None)
            sha256 = result.sha256 or None
            files[name] = LastUpload(number, time, result.bytes_transferred, sha256=sha256)
            self.clients[host] = files
            if len(files) > _MAX_FILES:
                del files[next(iter(files))]
            if len(self.clients) > MAX_UPLOAD_CLIENTS:
                del self.clients[next(iter(self.clients))]
        elif name in self.clients.get(host, {}):
            files = self.clients[host]
            reason = ": ".join(filter(None, (result.outcome.value, result.detail)))
            detail = short_name(reason.encode("utf-8", "surrogateescape"))
            files[name] = replace(files[name], number=number, failed=time, detail=detail)
