"""Stores for the origins of the configuration."""

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from urllib.parse import urlsplit

from tftpd.config.origins import CredentialsFile, OriginSection
from tftpd.origins.stores import OriginError, Store

_VARIABLE_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_")
_PROXY_VARIABLES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}


def origin_identity(name: str, settings: OriginSection) -> str:
    """Return the identity of an origin for the cache: another address has other objects."""
    return " ".join([name, settings.url, settings.endpoint or ""]).rstrip()


def take_variables(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Remove the variables with credentials of object stores from an environment; return them.

    A process does this with `os.environ` before it opens a store: obstore would mix the variables
    of the process with those of each origin. Those of proxies are removed too: obstore would use
    them, and urllib3 would not.
    """
    for name in [name for name in environment if name.lower() in _PROXY_VARIABLES]:
        del environment[name]
    names = [name for name in environment if name.startswith(_VARIABLE_PREFIXES)]
    return {name: environment.pop(name) for name in names}


def read_credentials(path: Path) -> dict[str, str]:
    """Read variables from a file with lines KEY=VALUE.

    Empty lines and lines that begin with "#" are skipped. Quotes around a value are removed.

    Raises:
        OriginError: The file cannot be read, or a line is not of this form.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise OriginError(f"credentials {path}: {reason}") from None
    variables = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, separator, value = (part.strip() for part in line.partition("="))
        if not separator or not name:
            # The line may be a secret: it is not quoted.
            raise OriginError(f"credentials {path}: line {number} is not KEY=VALUE")
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        variables[name] = value
    return variables


def open_store(settings: OriginSection, environment: Mapping[str, str]) -> Store:
    """Return the store of an origin. It connects when it is used.

    Args:
        settings: Keys of the origin.
        environment: Variables for `credentials: environment`; see `take_variables`.

    Raises:
        OriginError: The settings or credentials cannot be used, or a library is missing.
    """
    try:
        if urlsplit(settings.url).scheme in {"http", "https"}:
            from tftpd.origins.web_store import WebStore

            return WebStore(settings)
        from tftpd.origins.object_store import ObjectStore

        return ObjectStore(settings, _credentials(settings, environment))
    except ImportError as error:
        raise OriginError(f"{error.name} is missing: pip install 'tftpd[origins]'") from error


def _credentials(
    settings: OriginSection, environment: Mapping[str, str]
) -> Mapping[str, str] | None:
    if isinstance(settings.credentials, CredentialsFile):
        return read_credentials(Path(settings.credentials.file))
    return environment if settings.credentials == "environment" else None
