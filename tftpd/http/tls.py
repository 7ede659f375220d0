"""TLS of HTTP listeners, by pyOpenSSL, which only `protocol: https` needs."""

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory, IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from tftpd.config.errors import CertificateError
from tftpd.config.settings import ListenSection

_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_RENEGOTIATION


@implementer(IOpenSSLContextFactory)
class _Contexts:
    """Gives the same context to all connections."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def getContext(self) -> SSL.Context:
        """Twisted: return the context of a new connection."""
        return self._context


def load_context(listen: ListenSection) -> SSL.Context:
    """Load the certificate and the key of a listener: TLS 1.2 or newer.

    Raises:
        CertificateError: A file cannot be read, or the key belongs to another certificate.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(_OPTIONS)
    certificate = listen.certificate or ""
    path = certificate
    try:
        _check_readable(path)
        context.use_certificate_chain_file(path)
        path = listen.key or certificate
        _check_readable(path)
        context.use_privatekey_file(path)
        context.check_privatekey()
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from None
    except SSL.Error as error:
        # A list of (library, function, reason), innermost first.
        reasons = [part[-1] for part in error.args[0]] if error.args else []
        reason = ", ".join(filter(None, reasons)) or "not a PEM file"
        raise CertificateError(f"{path} cannot be used: {reason}") from None
    return context


def wrap(listen: ListenSection, factory: IProtocolFactory) -> TLSMemoryBIOFactory:
    """Return a factory whose connections use TLS below those of `factory`.

    Raises:
        CertificateError: See `load_context`.
    """
    return TLSMemoryBIOFactory(_Contexts(load_context(listen)), False, factory)


def _check_readable(path: str) -> None:
    """Raise `OSError` with the reason; OpenSSL gives none."""
    with open(path, "rb"):
        pass
