"""Store of an origin on a web server, through urllib3."""

import errno
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

import urllib3
from urllib3 import exceptions
from urllib3.util.ssl_ import create_urllib3_context

import tftpd
from tftpd.config.origins import OriginSection
from tftpd.origins.downloads import CHUNK_BYTES, ResumingDownload
from tftpd.origins.stores import (
    MAX_REASON_LENGTH,
    MIN_UPLOAD_TIMEOUT_SECONDS,
    PROBE_KEY,
    Download,
    NotModified,
    ObjectExists,
    ObjectInfo,
    ObjectNotFound,
    OriginError,
    OriginUnavailable,
    ask_twice,
    check_conditional_create,
    record_failure,
    split_key,
    trust_ca_file,
    untrusted_certificate,
)

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse  # of urllib3 2; Debian 12 has 1.26

_HEADERS = {
    "User-Agent": f"tftpd/{tftpd.__version__}",
    # The file as it is stored. A body that is encoded all the same is passed on as it is: servers
    # label files like initrd.gz so, and their clients want these bytes.
    "Accept-Encoding": "identity",
}
_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 5
_DEFAULT_PORTS = {"http": 80, "https": 443}

# As many connections stay open; more are opened if more threads ask.
_KEPT_CONNECTIONS = 16


class WebStore:
    """A web server, and a path on it.

    Args:
        settings: Keys of the origin.

    Raises:
        OriginError: The URL has a user, a query or a fragment, or `ca_file` cannot be used.
    """

    def __init__(self, settings: OriginSection) -> None:
        url = urlsplit(settings.url)
        if url.username is not None or url.query or url.fragment or not url.hostname:
            raise OriginError("the URL of a web server has a host and a path, and no other parts")
        self._base = f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}/"
        self._follows_all = settings.redirects == "any"
        timeout = settings.timeout
        self._timeout = urllib3.Timeout(connect=timeout.connect, read=timeout.read)
        self._upload_timeout = urllib3.Timeout(
            connect=timeout.connect, read=max(timeout.read, MIN_UPLOAD_TIMEOUT_SECONDS)
        )
        context = None
        if settings.ca_file:
            # urllib3 1.26 checks host names by itself, and fails with a context of Python's.
            context = create_urllib3_context()
            context.load_default_certs()
            trust_ca_file(context, settings.ca_file)
        # urllib3 verifies certificates by default, and uses no proxy of the environment.
        self._pools = urllib3.PoolManager(
            maxsize=_KEPT_CONNECTIONS, headers=_HEADERS, ssl_context=context
        )

    def get(self, key: str, etag: str = "") -> Download:
        """Ask for an object; see `Store.get`."""
        url = self._url(key)
        conditions = {"If-None-Match": etag} if etag else {}
        answer = ask_twice(lambda: self._ask_whole(url, conditions))
        info = ObjectInfo(
            _length(answer), answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
        )
        # Only a strong ETag stands for the same bytes (RFC 9110 section 8.8.1).
        can_resume = info.etag.startswith('"')
        # The connection of the answer that is read at present.
        current = [answer]

        def resume(offset: int) -> Iterator[bytes]:
            current[0].close()
            current[0] = self._ask_rest(url, info, offset)
            return _read(current[0])

        return ResumingDownload(
            info, _read(answer), resume if can_resume else None, lambda: current[0].close()
        )

    def exists(self, key: str) -> bool:
        """Return True if there is an object; see `Store.exists`."""

        def ask() -> None:
            answer = self._ask(self._url(key), {}, "HEAD")
            _require(answer, 200)
            _release(answer)

        with suppress(ObjectNotFound):
            ask_twice(ask)
            return True
        return False

    def put(self, key: str, chunks: Iterable[bytes], create: bool) -> str:
        """Store an object; see `Store.put`."""
        headers = {"If-None-Match": "*"} if create else {}
        failures: list[Exception] = []
        body = record_failure(chunks, failures)
        try:
            with _translate_errors():
                answer = self._pools.request(
                    "PUT",
                    self._url(key),
                    body=body,
                    headers={**_HEADERS, **headers},
                    chunked=True,
                    timeout=self._upload_timeout,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
        except Exception:
            if failures:
                raise failures[0] from None
            raise
        if answer.status == 412 and create:
            _release(answer)
            raise ObjectExists
        etag: str = answer.headers.get("ETag", "")
        _require(answer, 200, 201, 204)
        _release(answer)
        return etag

    def probe(self, writes: bool) -> None:
        """Ask the origin once; see `Store.probe`."""
        with suppress(ObjectNotFound):
            self.get(PROBE_KEY).close()
        if writes:
            check_conditional_create(lambda: self.put(PROBE_KEY, [b"probe"], create=True))

    def close(self) -> None:
        """Close all idle connections; idempotent."""
        self._pools.clear()

    def _url(self, key: str) -> str:
        """Return the URL of a key. Each component is encoded, so that "%" is sent as "%25"."""
        return self._base + "/".join(quote(component, safe="") for component in split_key(key))

    def _ask_whole(self, url: str, conditions: Mapping[str, str]) -> "BaseHTTPResponse":
        answer = self._ask(url, conditions)
        if answer.status == 304 and conditions:
            _release(answer)
            raise NotModified
        _require(answer, 200)
        return answer

    def _ask(self, url: str, headers: Mapping[str, str], method: str = "GET") -> "BaseHTTPResponse":
        """Send a GET or HEAD and follow redirects; return the answer when its head has arrived."""
        origin = _host(url)
        for _ in range(_MAX_REDIRECTS + 1):
            with _translate_errors():
                answer = self._pools.request(
                    method,
                    url,
                    headers={**_HEADERS, **headers},
                    timeout=self._timeout,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            _release(answer)
            try:
                url = urljoin(url, location)
                scheme, host, port = _host(url)
            except ValueError:
                raise OriginError("redirect to a malformed address") from None
            if not self._follows_all and (scheme, host, port) != origin:
                # The rest of the location may be a secret.
                raise OriginError(
                    f"redirect to another host ({scheme}://{host}:{port}): redirects is same-host"
                )
            if scheme not in _DEFAULT_PORTS:
                raise OriginError("redirect to an address that is not of the web")
        raise OriginError("too many redirects")

    def _ask_rest(self, url: str, info: ObjectInfo, offset: int) -> "BaseHTTPResponse":
        """Ask for the same version from an offset on.

        Raises:
            OriginError: The object has changed.
        """
        answer = self._ask(url, {"Range": f"bytes={offset}-", "If-Range": info.etag})
        if answer.status == 200:  # the answer to If-Range for another version
            answer.close()
            raise OriginError("the object has changed while it was fetched")
        _require(answer, 206)
        expected = f"bytes {offset}-{(info.size or 0) - 1}/{info.size}"
        etag = answer.headers.get("ETag", info.etag)
        if answer.headers.get("Content-Range") != expected or etag != info.etag:
            answer.close()
            raise OriginError("the object has changed while it was fetched")
        return answer


def _host(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port.

    Raises:
        ValueError: The URL is malformed.
    """
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    return parts.scheme, parts.hostname or "", port


def _length(answer: "BaseHTTPResponse") -> int | None:
    length = answer.headers.get("Content-Length", "")
    # A chunked body has no announced length, whatever the header says (RFC 9112 section 6.3).
    if "Transfer-Encoding" in answer.headers or not re.fullmatch(r"[0-9]{1,18}", length):
        return None
    return int(length)


def _read(answer: "BaseHTTPResponse") -> Iterator[bytes]:
    with _translate_errors():
        yield from answer.stream(CHUNK_BYTES, decode_content=False)


def _require(answer: "BaseHTTPResponse", *statuses: int) -> None:
    """Raise an exception if the status is none of these.

    Raises:
        ObjectNotFound: The status is 404 or 410.
        OriginUnavailable: The status tells that a later request may succeed.
        OriginError: The origin refuses.
    """
    if answer.status in statuses:
        return
    answer.close()
    if answer.status in {404, 410}:
        raise ObjectNotFound
    kind = OriginUnavailable if answer.status >= 500 or answer.status == 429 else OriginError
    reason = "".join(filter(str.isprintable, answer.reason or ""))[:MAX_REASON_LENGTH]
    raise kind(f"{answer.status} {reason}".rstrip())


def _release(answer: "BaseHTTPResponse") -> None:
    """Read the rest of a short answer, so that its connection can be used again."""
    try:
        answer.drain_conn()
    except exceptions.HTTPError:
        answer.close()


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise `OriginUnavailable` or `OriginError` for an error of urllib3."""
    try:
        yield
    except exceptions.SSLError as error:
        cause = next((part for part in error.args if isinstance(part, Exception)), error)
        reason = getattr(cause, "verify_message", "") or str(cause)
        reason = " ".join(reason.split())[:MAX_REASON_LENGTH]
        # The exceptions of ssl and of urllib3 1.26 for a wrong certificate.
        if isinstance(cause, ValueError):
            raise untrusted_certificate(reason.rstrip(".")) from None
        raise OriginError(reason) from None
    except (exceptions.HTTPError, OSError) as error:
        # The class of refused connections derives from that of timeouts.
        system = _system_error(error)
        if system is None and isinstance(error, exceptions.TimeoutError):
            raise OriginUnavailable("no answer in time") from None
        reason = _describe(system or error)
        blocked = system is not None and system.errno in {errno.EPERM, errno.EACCES}
        raise OriginUnavailable(reason, blocked) from None


def _system_error(error: BaseException | None) -> OSError | None:
    """Return the error of the system that is behind an error of urllib3."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        nested = [part for part in error.args if isinstance(part, BaseException)]
        error = error.__cause__ or error.__context__ or (nested[0] if nested else None)
    return None


def _describe(error: BaseException) -> str:
    """Return a line for the log, without the URL."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
