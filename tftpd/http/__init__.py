"""HTTP server for the files that TFTP serves."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tftpd.http.server import HttpServer


def make_http_server(*arguments: Any) -> "HttpServer":
    """Return an `HttpServer`. twisted.web is imported only if a listener needs it."""
    from tftpd.http.server import HttpServer

    return HttpServer(*arguments)
