"""The file that keeps the history of requests across restarts of the daemon."""

import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from tftpd.status.boots import ClientHistory
from tftpd.status.history import History
from tftpd.status.json_view import ended_to_json
from tftpd.status.uploads import DeviceState, LastUpload, UploadTable

MAX_FILE_BYTES = 32 << 20
"""Size of the largest file that `read_state` reads."""
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class _SavedHistory:
    """Content of the file.

    Attributes:
        format: Number of this format.
        time: Time of the save, in seconds since the epoch.
        clock: The same time on the history's clock.
        number: Number of the latest request.
        ended: The latest requests, as in /status.
        clients: The latest boot of each client.
        uploads: The latest uploads by client and file.
        devices: States of the devices by name.
    """

    format: Literal[1]
    time: float
    clock: float
    number: int
    ended: list[dict[str, Any]]
    clients: dict[str, ClientHistory]
    uploads: dict[str, dict[str, LastUpload]]
    devices: dict[str, DeviceState] = field(default_factory=dict)


_ADAPTER = TypeAdapter(_SavedHistory)


def dump_history(history: History) -> bytes:
    """Return the content for the file."""
    now, clock, ended = time.time(), history.seconds(), ended_to_json(history)
    clients, uploads = history.clients, history.uploads.clients
    number, devices = history.number, history.devices
    saved = _SavedHistory(1, now, clock, number, ended, clients, uploads, devices)
    return _ADAPTER.dump_json(saved)


def restore_history(data: bytes) -> History:
    """Return the history in the content of the file, on this process's clock.

    Raises:
        ValueError: `data` is something else.
    """
    saved, history = _ADAPTER.validate_json(data), History()
    shift = history.seconds() - saved.clock - max(0.0, time.time() - saved.time)
    for client in saved.clients.values():
        client.steps = [
            replace(step, began=step.began + shift, ended=step.ended + shift)
            for step in client.steps
        ]
    history.number, history.restored, history.clients = saved.number, saved.ended, saved.clients
    history.uploads, history.devices = UploadTable(saved.uploads), saved.devices
    return history


def read_state(path: Path) -> bytes:
    """Return the content of the file. Links are not followed, and a FIFO causes no delay.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is too large or not a regular file.
    """
    with open(os.open(path, _READ_FLAGS), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a regular file")
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError("the file is too large")
    return data


def write_state(path: Path, data: bytes) -> None:
    """Replace the file atomically; blocks. Only its owner can read it.

    Raises:
        OSError: The file cannot be written. The old one is unchanged.
    """
    new = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):  # a crash has left it
        new.unlink()
    with open(os.open(new, _WRITE_FLAGS, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
