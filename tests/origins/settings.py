"""Settings of origins for tests."""

from dataclasses import dataclass, field

from tftpd.config.origins import CredentialsFile


@dataclass
class Timeout:
    connect: float = 2.0
    read: float = 5.0


@dataclass
class Origin:
    url: str
    endpoint: str | None = None
    credentials: str | CredentialsFile = "none"
    timeout: Timeout = field(default_factory=Timeout)
    redirects: str = "same-host"
    ca_file: str | None = None
