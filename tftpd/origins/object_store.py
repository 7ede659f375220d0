"""Store of an origin in S3, Google Cloud Storage or Azure, through obstore.

obstore follows redirects of an endpoint, and has no setting against it. Stores redirect requests
neither for the content of an object nor for its name, so that only the operator of the endpoint
can cause one.
"""

import itertools
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import AzureStore, GCSStore, S3Store

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
    from obstore import GetOptions, GetResult

# Variables that the constructors accept, without the prefix AWS_, AZURE_ or GOOGLE_. obstore
# refuses unknown ones, and those that name another bucket or endpoint would contradict `url`.
_VARIABLES = {
    "s3": {
        *("access_key_id", "secret_access_key", "session_token", "region", "default_region"),
        *("role_arn", "role_session_name", "web_identity_token_file"),
        *("container_credentials_relative_uri", "container_credentials_full_uri"),
        *("container_authorization_token_file", "metadata_endpoint", "imdsv1_fallback"),
        *("server_side_encryption", "sse_kms_key_id", "request_payer", "unsigned_payload"),
        *("virtual_hosted_style_request",),
    },
    "gs": {
        *("service_account", "service_account_path", "service_account_key"),
        *("application_credentials",),
    },
    "az": {
        *("storage_account_name", "storage_account_key", "storage_access_key"),
        *("storage_sas_key", "storage_sas_token", "client_id", "client_secret", "tenant_id"),
        *("authority_host", "federated_token_file", "msi_endpoint", "identity_endpoint"),
    },
}
_PREFIXES = {"s3": "aws_", "gs": "google_", "az": "azure_"}

# A part of an upload, and the smallest that S3 allows. Shorter objects are sent in one request.
_PART_BYTES = 5 << 20
_PARTS_AT_ONCE = 4

# obstore limits a whole request. Images may be large, and links slow.
_NO_LIMIT = timedelta(days=1)


class ObjectStore:
    """A bucket or container, and a prefix in it.

    Args:
        settings: Keys of the origin.
        variables: Credentials and other settings as in the environment; None to send requests
            without a signature. obstore reads the environment of the process too: it must have
            none of these variables.

    Raises:
        OriginError: The settings, credentials or certificates cannot be used.
    """

    def __init__(self, settings: OriginSection, variables: Mapping[str, str] | None) -> None:
        url = urlsplit(settings.url)
        self._scheme = url.scheme
        self._bucket = url.netloc
        self._prefix = url.path.strip("/")
        self._settings = settings
        self._variables = variables
        # `get` repeats by itself what may succeed a moment later.
        self._reader = self._connect(settings.timeout.read, n_retries=0)
        self._writer = self._connect(
            max(settings.timeout.read, MIN_UPLOAD_TIMEOUT_SECONDS), n_retries=2
        )

    def get(self, key: str, etag: str = "") -> Download:
        """Ask for an object; see `Store.get`."""
        split_key(key)
        options: GetOptions = {"if_none_match": etag} if etag else {}
        result = ask_twice(lambda: self._get(key, options))
        meta = result.meta
        info = ObjectInfo(meta["size"], meta["e_tag"] or "", meta["last_modified"].isoformat())
        can_resume = info.etag.startswith('"')
        resume = (lambda offset: self._resume(key, info, offset)) if can_resume else None
        return ResumingDownload(info, self._read(result), resume, lambda: None)

    def exists(self, key: str) -> bool:
        """Return True if there is an object; see `Store.exists`."""
        split_key(key)
        with suppress(ObjectNotFound):
            ask_twice(lambda: self._get(key, {"head": True}))
            return True
        return False

    def put(self, key: str, chunks: Iterable[bytes], create: bool) -> str:
        """Store an object; see `Store.put`."""
        split_key(key)
        parts = iter(chunks)
        start = bytearray()
        for chunk in parts:
            start += chunk
            if len(start) >= _PART_BYTES:
                break
        content: bytes | Iterator[bytes] = bytes(start)
        if len(start) >= _PART_BYTES:
            content = itertools.chain([bytes(start)], parts)
        return self._put(key, content, create)

    def probe(self, writes: bool) -> None:
        """Ask the origin once; see `Store.probe`."""
        with suppress(ObjectNotFound):
            self._get(PROBE_KEY, {})
        if writes:
            # Stores have one implementation for objects in one request, another for parts.
            check_conditional_create(lambda: self._put(PROBE_KEY, b"probe", create=True))
            check_conditional_create(lambda: self._put(PROBE_KEY, iter([b"probe"]), create=True))

    def close(self) -> None:
        """Do nothing: obstore closes idle connections by itself."""

    def _connect(self, read_timeout: float, n_retries: int) -> S3Store | GCSStore | AzureStore:
        settings = self._settings
        endpoint = settings.endpoint or ""
        prefix = _PREFIXES[self._scheme]
        allowed = {prefix + name for name in _VARIABLES[self._scheme]}
        variables = {name.lower(): value for name, value in (self._variables or {}).items()}
        certificates: dict[str, Any] = {}
        if settings.ca_file:
            # Only to check the file: obstore ignores what is not a certificate.
            trust_ca_file(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), settings.ca_file)
            certificates["root_certificate"] = Path(settings.ca_file).read_bytes()
        config: dict[str, Any] = {
            name: value for name, value in variables.items() if name in allowed
        }
        if self._variables is None:
            config[prefix + "skip_signature"] = "true"
        if endpoint:
            config["google_base_url" if self._scheme == "gs" else prefix + "endpoint"] = endpoint
        common: dict[str, Any] = {
            "prefix": self._prefix or None,
            "config": config,
            "client_options": {
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=settings.timeout.connect),
                "read_timeout": timedelta(seconds=read_timeout),
                "timeout": _NO_LIMIT,
                "user_agent": f"tftpd/{tftpd.__version__}",
                **certificates,
            },
            "retry_config": {
                "max_retries": n_retries,
                "retry_timeout": timedelta(seconds=read_timeout),
                "backoff": {"max_backoff": timedelta(seconds=1)},
            },
        }
        classes = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
        try:
            store: S3Store | GCSStore | AzureStore = classes[self._scheme](self._bucket, **common)
            return store
        except (exceptions.BaseError, ValueError, OSError) as error:
            raise self._translate(error) from None

    def _get(self, key: str, options: "GetOptions") -> "GetResult":
        try:
            return obstore.get(self._reader, key, options=options)
        except (exceptions.BaseError, ValueError, OSError) as error:
            raise self._translate(error) from None

    def _resume(self, key: str, info: ObjectInfo, offset: int) -> Iterator[bytes]:
        result = self._get(key, {"range": {"offset": offset}, "if_match": info.etag})
        meta = result.meta
        # A store may ignore the condition.
        if (meta["e_tag"], meta["size"]) != (info.etag, info.size) or result.range[0] != offset:
            raise OriginError("the object has changed while it was fetched")
        return self._read(result)

    def _read(self, result: "GetResult") -> Iterator[bytes]:
        try:
            # Buffers of obstore: a copy to `bytes` would take a tenth of the CPU time of a fetch.
            yield from result.stream(min_chunk_size=CHUNK_BYTES)
        except (exceptions.BaseError, OSError) as error:
            raise self._translate(error) from None

    def _put(self, key: str, content: bytes | Iterator[bytes], create: bool) -> str:
        failures: list[Exception] = []
        if not isinstance(content, bytes):
            content = record_failure(content, failures)
        try:
            result = obstore.put(
                self._writer,
                key,
                content,
                mode="create" if create else "overwrite",
                use_multipart=not isinstance(content, bytes),
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )
        except Exception as error:
            if failures:
                raise failures[0] from None
            raise self._translate(error) from None
        return result["e_tag"] or ""

    def _translate(self, error: Exception) -> Exception:
        """Return the exception of `stores` for an error of obstore, without credentials."""
        text, _, details = str(error).partition("\n\nDebug source:")
        head, separator, answer = text.rpartition("Server returned non-2xx status code: ")
        code = re.search(r"<Code>(\w+)</Code>", answer)
        reason = f"{answer.partition(':')[0]} {code[1] if code else ''}".strip()
        if code and code[1] in {"NoSuchBucket", "ContainerNotFound"}:
            return OriginError(f"{reason}: there is no {self._bucket!r}")
        if isinstance(error, exceptions.NotModifiedError):
            return NotModified()
        if isinstance(error, exceptions.NotFoundError | FileNotFoundError):
            return ObjectNotFound()
        if isinstance(error, exceptions.AlreadyExistsError):
            return ObjectExists()
        if isinstance(error, exceptions.PreconditionError):
            return OriginError("the object has changed while it was fetched")
        if separator:
            kind = OriginUnavailable if re.match("5|429", answer) else OriginError
            if answer.startswith("403"):
                reason += " (also for an absent key, if the bucket may not be listed)"
            return kind(self._redact(reason))
        certificate = re.search(r"InvalidCertificate\(\s*(\w+?)(Context)?\W", details)
        if certificate:  # such as UnknownIssuer
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", certificate[1])
            return untrusted_certificate(words.lower())
        system = re.search(r'Os \{\s*code: (\d+),\s*kind: \w+,\s*message: "([^"]*)"', details)
        if system:
            return OriginUnavailable(system[2], blocked=system[1] in {"1", "13"})
        if "TimedOut" in details or "kind: Timeout" in details:
            return OriginUnavailable("no answer in time")
        is_transport = "HTTP error" in text
        return (OriginUnavailable if is_transport else OriginError)(self._redact(text))

    def _redact(self, text: str) -> str:
        """Return one line of text without credentials and without the queries of URLs."""
        for name, value in (self._variables or {}).items():
            if len(value) >= 4 and not name.upper().endswith("REGION"):
                text = text.replace(value, "***")
        text = re.sub(r"\?[^\s)]*", "", text)
        return " ".join(text.split())[:MAX_REASON_LENGTH]
