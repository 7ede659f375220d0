"""The TFTP server: listen, queue, admit, resolve and start sessions.

The public names are those of `__all__`: a server that a program embeds. They are imported at first
use, because the daemon does not need them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tftpd.protocol.errors import (
        AccessDenied,
        AlreadyExists,
        DiskFull,
        NotFound,
        Refusal,
        ServerError,
    )
    from tftpd.protocol.negotiation import Direction, Mode
    from tftpd.protocol.result import Outcome, TransferResult
    from tftpd.server.embedded import Server, ServerOptions, ServerService
    from tftpd.server.handlers import Chain, Directory, Handler, Memory, ServerRequest, Stream

__all__ = [
    "AccessDenied",
    "AlreadyExists",
    "Chain",
    "Direction",
    "Directory",
    "DiskFull",
    "Handler",
    "Memory",
    "Mode",
    "NotFound",
    "Outcome",
    "Refusal",
    "Server",
    "ServerError",
    "ServerOptions",
    "ServerRequest",
    "ServerService",
    "Stream",
    "TransferResult",
]

_MODULES = {
    "tftpd.protocol.errors": {
        *("AccessDenied", "AlreadyExists", "DiskFull", "NotFound", "Refusal", "ServerError"),
    },
    "tftpd.protocol.negotiation": {"Direction", "Mode"},
    "tftpd.protocol.result": {"Outcome", "TransferResult"},
    "tftpd.server.embedded": {"Server", "ServerOptions", "ServerService"},
    "tftpd.server.handlers": {
        *("Chain", "Directory", "ServerRequest", "Handler", "Memory", "Stream"),
    },
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
