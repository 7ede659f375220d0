"""HTTP server for the files that TFTP serves."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tftpd.config.settings import Settings
    from tftpd.http.server import HttpServer


def make_http_server(*arguments: Any) -> "HttpServer":
    """Return an `HttpServer`. twisted.web is imported only if a listener needs it."""
    from tftpd.http.server import HttpServer

    return HttpServer(*arguments)


def check_certificates(settings: "Settings") -> None:
    """Load the certificates of all listeners, as the processes that serve do.

    Raises:
        CertificateError: One of them cannot be used.
    """
    for listen in settings.listen:
        if listen.protocol == "https":
            from tftpd.http.tls import load_context

            load_context(listen)


def import_modules(protocols: set[str]) -> None:
    """Import what listeners with these protocols need: later, root may be required for that."""
    if protocols & {"http", "https"}:
        import tftpd.http.server
    if "https" in protocols:
        import tftpd.http.tls  # noqa: F401
