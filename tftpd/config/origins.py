"""The sections `origins` and `cache`: object stores and web servers as roots."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from tftpd.access.origin_roots import ORIGIN_NAME, split_prefix
from tftpd.config import types
from tftpd.config.types import ConfigModel, InvalidCombination

FETCHER_SOCKET = "fetcher.sock"
"""Name of the Unix socket in the directory of the cache."""

SPOOL = "spool"
"""Name of the directory with unfinished uploads in the directory of the cache."""

OBJECT_STORES = ("s3", "gs", "az")
WEB_SCHEMES = ("http", "https")

# Modules that read from an origin, and the packages that contain them.
LIBRARIES: Mapping[str, str] = dict.fromkeys(OBJECT_STORES, "obstore") | dict.fromkeys(
    WEB_SCHEMES, "urllib3"
)
"""Module that is needed for an origin, by the scheme of its URL."""

_MAX_SECONDS = 31_536_000.0  # a year
_MAX_PATH_BYTES = 107 - len(FETCHER_SOCKET) - 1  # sun_path on Linux, without the final NUL
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")


def _url(value: Any) -> str:
    expected = "expected a URL such as s3://BUCKET/PREFIX or https://HOST/PATH"
    if not isinstance(value, str) or not _is_plain_url(value):
        raise ValueError(expected)
    parts = urlsplit(value)
    if parts.scheme in WEB_SCHEMES:
        if not parts.hostname:
            raise ValueError(expected)
    elif parts.scheme not in OBJECT_STORES or not _BUCKET.fullmatch(parts.netloc):
        raise ValueError(expected)
    split_prefix(parts.path.removeprefix("/"), expected)
    return value.removesuffix("/")


def _endpoint(value: Any) -> str:
    is_text = isinstance(value, str) and _is_plain_url(value)
    parts = urlsplit(value) if is_text else None
    if parts is None or parts.scheme not in WEB_SCHEMES or not parts.hostname:
        raise ValueError("expected the URL of a server such as http://192.0.2.1:8333")
    return str(value).removesuffix("/")


def _is_plain_url(text: str) -> bool:
    """Return True for a URL in ASCII without user, password, query and fragment."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError for a wrong number
    except ValueError:
        return False
    is_clean = re.fullmatch(r"[!-~]+", text) and not re.search(r"[\\?#@]", text)
    return bool(is_clean) and "://" in text


@dataclass(frozen=True, slots=True)
class CredentialsFile:
    """A file with lines KEY=VALUE, such as AWS_ACCESS_KEY_ID=... ."""

    file: str


def _credentials(value: Any) -> str | CredentialsFile:
    if value in ("none", "environment"):
        return str(value)
    file = value.get("file") if isinstance(value, dict) and len(value) == 1 else None
    if isinstance(file, str) and file and "\0" not in file:
        return CredentialsFile(file)
    raise ValueError("expected none, environment or {file: PATH}")


Credentials = Annotated[
    Literal["none", "environment"] | CredentialsFile,
    PlainValidator(_credentials),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["none", "environment"], "type": "string"},
                {
                    "type": "object",
                    "properties": {
                        "file": {
                            "type": "string",
                            "description": "File with lines KEY=VALUE, relative to this file.",
                        }
                    },
                    "required": ["file"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""Source of the credentials of an origin."""

OriginName = Annotated[
    str,
    types.matching(ORIGIN_NAME, "a name of letters, digits, hyphens and underscores"),
    WithJsonSchema({"type": "string", "pattern": f"^{ORIGIN_NAME}$"}),
]
"""Name of an origin in roots."""


class TimeoutSection(ConfigModel):
    """Time limits for an origin, in seconds."""

    connect: Annotated[float, types.seconds_between(0.1, 60.0)] = 2.0
    """Time limit for a connection to the origin, in seconds."""

    read: Annotated[float, types.seconds_between(0.1, 600.0)] = 10.0
    """Time limit for the next part of an answer, in seconds."""


class OriginSection(ConfigModel):
    """An object store or a web server."""

    url: Annotated[str, BeforeValidator(_url)]
    """Bucket and prefix, or server and path.

    s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, http://HOST:PORT/PATH or
    https://HOST/PATH.
    """

    endpoint: Annotated[str, BeforeValidator(_endpoint)] | None = None
    """Server of an object store, such as http://192.0.2.1:8333 (default: that of the cloud)."""

    credentials: Credentials = "none"
    """none for public objects, environment for the variables of the daemon, or {file: PATH}."""

    max_age: Annotated[float, types.seconds_between(1.0, _MAX_SECONDS)] = 30.0
    """Time for which a cached file is served without a question to the origin, in seconds."""

    stale: Annotated[float, types.seconds_between(0.0, _MAX_SECONDS)] = 604_800.0
    """Time beyond max_age for which a cached file is served while the origin fails, in seconds."""

    negative: Annotated[float, types.seconds_between(0.0, 3600.0)] = 2.0
    """Time for which an absent name or a failure is remembered, in seconds."""

    revalidate_timeout: Annotated[float, types.seconds_between(0.0, 10.0)] = 0.1
    """Time that a client waits for the confirmation of a cached file, in seconds.

    Afterwards it gets the cached file, and the question to the origin continues.
    """

    timeout: TimeoutSection = TimeoutSection()
    """Time limits for the origin."""

    redirects: Literal["same-host", "any"] = "same-host"
    """Redirects of a web server that are followed: to the same scheme, host and port, or any."""

    ca_file: Annotated[str, types.matching(r"[^\0]+", "the path of a file")] | None = None
    """File with certificates (PEM) of private authorities, relative to this file.

    They are trusted besides those of the system.
    """

    @property
    def scheme(self) -> str:
        """Scheme of the URL: s3, gs, az, http or https."""
        return urlsplit(self.url).scheme

    @property
    def server(self) -> str | None:
        """Host name or address of the server; None if the library finds the server itself."""
        url = self.url if self.scheme in WEB_SCHEMES else self.endpoint
        return None if url is None else urlsplit(url).hostname

    @model_validator(mode="after")
    def _fits_the_scheme(self) -> Self:
        is_web = self.scheme in WEB_SCHEMES
        if is_web and self.endpoint is not None:
            raise InvalidCombination('"endpoint" is for s3, gs and az: url has the server')
        if is_web and self.credentials != "none":
            raise InvalidCombination('"credentials" is for s3, gs and az')
        if not is_web and self.redirects != "same-host":
            raise InvalidCombination('"redirects" is for http and https')
        server = self.url if is_web else self.endpoint or "https:"
        if self.ca_file is not None and not server.startswith("https:"):
            raise InvalidCombination('"ca_file" is for https')
        return self


def _cache_path(path: str) -> str:
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise ValueError(f"expected a path of at most {_MAX_PATH_BYTES} bytes")
    return path


class CacheSection(ConfigModel):
    """Directory with copies of files of all origins."""

    path: Annotated[
        str, types.matching(r"[^\0]+", "the path of a directory"), AfterValidator(_cache_path)
    ]
    """Directory of the daemon's user, with mode 0700, relative to this file."""

    max_size: Annotated[types.Size, types.size_between("1MiB")] = Field(default=20 << 30)
    """Largest total size of the files in the cache, at least 1MiB."""

    min_free: types.Size = 2 << 30
    """Space that stays free on the file system of the cache."""
