"""Webhooks: events as signed POST requests.

The headers are those of Standard Webhooks (https://www.standardwebhooks.com).
"""

import base64
import binascii
import hmac
import http.client
import ssl
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from socket import SHUT_RDWR
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import tftpd
from tftpd.config.events import EventSection, SecretError, read_secret
from tftpd.events.hooks import Attempt, Hook, encode_event

_ENCODED_SECRET = b"whsec_"  # of Standard Webhooks; the rest is Base64


def sign(secret: bytes, identity: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header `webhook-signature`.

    Args:
        secret: The secret. If it begins with `whsec_`, the rest is the key in Base64.
        identity: The `id` of the event.
        timestamp: Time of the request, in seconds since the epoch.
        body: The body of the request.
    """
    if secret.startswith(_ENCODED_SECRET):
        with suppress(binascii.Error):  # other secrets may begin with it, too
            secret = base64.b64decode(secret.removeprefix(_ENCODED_SECRET), validate=True)
    signed = b"%s.%d.%s" % (identity.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()


class WebhookHook(Hook):
    """A URL that gets each event by POST."""

    def __init__(self, section: EventSection) -> None:
        assert section.webhook is not None
        self._url = urlsplit(section.webhook)
        self._section = section
        self._open: set[http.client.HTTPConnection] = set()
        self._is_stopping = False

    def stop(self) -> None:
        """Break the connections that are open now."""
        self._is_stopping = True
        for connection in list(self._open):
            _shut_down(connection)

    def deliver(self, event: dict[str, Any]) -> Attempt:
        """Send a request; see `Hook.deliver`."""
        body, timestamp, started = encode_event(event), int(time.time()), time.monotonic()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"tftpd/{tftpd.__version__}",
            "webhook-id": event["id"],
            "webhook-timestamp": str(timestamp),
        }
        try:
            if self._section.secret_file is not None:
                secret = read_secret(self._section.secret_file)
                headers["webhook-signature"] = sign(secret, event["id"], timestamp, body)
            return _judge(self._post(body, headers))
        except SecretError as error:
            return Attempt(str(error), again=True)
        except (OSError, http.client.HTTPException, ValueError) as error:
            is_over = time.monotonic() - started >= self._section.timeout
            text = f"no answer within {self._section.timeout:g} s" if is_over else _describe(error)
            return Attempt(text, again=True)

    def _post(self, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        connection, target = self._connect(headers)
        # The timeout of the socket is for each part of an answer: a server can send one byte
        # at a time. The timer ends the whole request.
        timer = threading.Timer(self._section.timeout, _shut_down, [connection])
        timer.daemon = True
        self._open.add(connection)
        timer.start()
        try:
            connection.connect()
            if self._is_stopping:
                raise ConnectionAbortedError("the daemon stopped")
            connection.request("POST", target, body, headers)
            return connection.getresponse()
        finally:
            timer.cancel()
            self._open.discard(connection)
            connection.close()

    def _connect(self, headers: dict[str, str]) -> tuple[http.client.HTTPConnection, str]:
        """Return the connection to the server or to a proxy, and the target of the request."""
        url, timeout = self._url, self._section.timeout
        host, target = url.hostname or "", url.path or "/"
        if url.query:
            target += f"?{url.query}"
        proxy = _find_proxy(url)
        connect_to = host if proxy is None else proxy.hostname or ""
        if url.scheme.lower() == "http":
            port = (url.port or 80) if proxy is None else proxy.port or 80
            if proxy is not None:
                target = f"http://{url.netloc}{target}"
                headers |= {"Host": url.netloc, **_proxy_headers(proxy)}
            return http.client.HTTPConnection(connect_to, port, timeout=timeout), target
        context = ssl.create_default_context()
        if self._section.ca_file is not None:
            context.load_verify_locations(self._section.ca_file)
        port = url.port or 443
        if proxy is None:
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=context), target
        connection = http.client.HTTPSConnection(
            connect_to, proxy.port or 80, timeout=timeout, context=context
        )
        connection.set_tunnel(host, port, _proxy_headers(proxy))
        return connection, target


def _find_proxy(url: SplitResult) -> SplitResult | None:
    """Return the proxy for a URL, from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme.lower()) or proxies.get("all")
    if not proxy or proxy_bypass(url.netloc):
        return None
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}")


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    credentials = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()}


def _shut_down(connection: http.client.HTTPConnection) -> None:
    sock = connection.sock
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(SHUT_RDWR)


def _judge(response: http.client.HTTPResponse) -> Attempt:
    status = response.status
    if 200 <= status < 300:
        return Attempt()
    # A redirect is not followed: a POST would become a GET, or go to another host. Errors of the
    # client are often those of a proxy whose server is being replaced, so they are repeated.
    return Attempt(f"the server answered with status {status}", status != HTTPStatus.GONE)


def _describe(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
