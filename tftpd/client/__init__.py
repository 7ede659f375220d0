"""TFTP client: a library and the command `tftpc`.

`get`, `put`, `size` and `exists` block. `tftpd.client.aio` has the same functions as coroutines for
asyncio, and `tftpd.client.twisted` has them with Deferreds. The public names are those of
`__all__`. The functions are imported at first use, because `tftpc --help` does not need them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tftpd.client.errors import BadAnswer, LocalError, TimedOut
from tftpd.client.settings import ClientSettings
from tftpd.protocol.errors import (
    AccessDenied,
    AlreadyExists,
    DiskFull,
    NotFound,
    Refusal,
    ServerError,
    TransferError,
)
from tftpd.protocol.negotiation import Mode
from tftpd.protocol.result import TransferResult

if TYPE_CHECKING:
    from tftpd.client.blocking import exists, get, put, size

__all__ = [
    "AccessDenied",
    "AlreadyExists",
    "BadAnswer",
    "ClientSettings",
    "DiskFull",
    "LocalError",
    "Mode",
    "NotFound",
    "Refusal",
    "ServerError",
    "TimedOut",
    "TransferError",
    "TransferResult",
    "exists",
    "get",
    "put",
    "size",
]


def __getattr__(name: str) -> Any:
    if name in ("exists", "get", "put", "size"):
        return getattr(import_module("tftpd.client.blocking"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
