"""TFTP client: a library for Twisted and the command `tftpc`.

The public names are those of `__all__`. `Client`, `get` and `put` are imported at first use,
because they need Twisted, which takes longer to import than `tftpc --help` should take.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tftpd.client.errors import (
    AccessDenied,
    AlreadyExists,
    BadAnswer,
    LocalError,
    NotFound,
    Refusal,
    ServerError,
    TimedOut,
    TransferError,
)
from tftpd.client.settings import ClientSettings
from tftpd.protocol.negotiation import Mode
from tftpd.protocol.result import TransferResult

if TYPE_CHECKING:
    from tftpd.client.client import Client, get, put

__all__ = [
    "AccessDenied",
    "AlreadyExists",
    "BadAnswer",
    "Client",
    "ClientSettings",
    "LocalError",
    "Mode",
    "NotFound",
    "Refusal",
    "ServerError",
    "TimedOut",
    "TransferError",
    "TransferResult",
    "get",
    "put",
]


def __getattr__(name: str) -> Any:
    if name in ("Client", "get", "put"):
        return getattr(import_module("tftpd.client.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
