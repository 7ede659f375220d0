"""Read and write policies, the grants that they give, and limits for templates."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, Generic, TypeVar

from tftpd.access.origin_roots import OriginRoot
from tftpd.access.paths import Name, printable_name

Address = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]

ANYWHERE: Networks = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


class Symlinks(StrEnum):
    """Handling of symbolic links below a root."""

    DENY = "deny"  # follow no link
    INSIDE = "inside"  # follow links that stay below the same root
    CHROOT = "chroot"  # follow all links as if the root were /, as after chroot(2)
    FOLLOW = "follow"  # follow all links


@dataclass(frozen=True, slots=True)
class ReadPolicy:
    """Permission to read files.

    Attributes:
        world_readable: Serve only files with the o+r bit, as tftp-hpa does.
        clients: Networks of the clients that may read.
        templates: Render a missing file from the template with the suffix `.j2`.
        sha256: Report the SHA-256 of a file that was sent.
    """

    world_readable: bool = False
    clients: Networks = ANYWHERE
    templates: bool = False
    sha256: bool = False


@dataclass(frozen=True, slots=True)
class WritePolicy:
    """Permission to write files.

    Attributes:
        create: Allow new files.
        overwrite: Allow existing files to be replaced.
        max_size: Largest file in bytes; None means no limit.
        mode: Permission bits of new files. A replaced file keeps its own.
        world_writable: Replace only files with the o+w bit.
        clients: Networks of the clients that may write.
        quota: Largest total size of the root in bytes.
        max_files: Largest number of files below the root.
        min_free: Bytes that must stay free on the file system.
        keep: Number of versions that are kept of each replaced file; None keeps none.
        keep_days: Days after which a version is removed.
        versions: Directory of the versions; None: `.versions` below the root.
        create_directories: Create missing directories below the root.
        sha256: Report the SHA-256 of a file that was stored.
    """

    create: bool = True
    overwrite: bool = False
    max_size: int | None = None
    mode: int = 0o644
    world_writable: bool = False
    clients: Networks = ANYWHERE
    quota: int | None = None
    max_files: int | None = None
    min_free: int | None = None
    keep: int | None = None
    keep_days: int | None = None
    versions: str | None = None
    create_directories: bool = False
    sha256: bool = False

    @property
    def needs_usage(self) -> bool:
        """True if the usage of the root must be measured."""
        return self.quota is not None or self.max_files is not None


Policy = TypeVar("Policy", ReadPolicy, WritePolicy)


@dataclass(frozen=True, slots=True)
class Grant(Generic[Policy]):
    """Permission to access one name below one root under one policy.

    A grant says what is allowed, not what exists. Only `storage` uses it, component by component
    below `root`.

    Attributes:
        root: The root: a directory, or a prefix at an origin.
        name: Path components below the root.
        policy: The policy that applies.
        symlinks: Handling of symbolic links.
        own: Number of leading components of `name` that come from the configuration (the
            client's own directory) and not from the request.
        encodings: Other encodings in which the components may be spelled on disk; empty if the
            name is ASCII.
    """

    root: Path | OriginRoot
    name: Name
    policy: Policy
    symlinks: Symlinks = Symlinks.INSIDE
    own: int = 0
    encodings: Sequence[str] = ()

    @property
    def directory(self) -> Path:
        """The root of a grant for a file on this host.

        Raises:
            TypeError: The root is at an origin; the resolver does not open such a file here.
        """
        if isinstance(self.root, OriginRoot):
            raise TypeError(f"{self.root} is not a directory")
        return self.root

    @property
    def printable_path(self) -> str:
        """Path of the file on this host, or its name at the origin, for logs."""
        return printable_name(b"/".join((os.fsencode(str(self.root)), *self.name)))


def admits(networks: Networks, client: Address) -> bool:
    """Return True if `client` is in one of `networks`."""
    return networks == ANYWHERE or any(client in network for network in networks)


def contains(networks: Networks, others: Networks) -> bool:
    """Return True if each of `others` is part of one of `networks`."""

    def is_within(other: Any) -> bool:
        same = (network for network in networks if network.version == other.version)
        return any(other.subnet_of(network) for network in same)

    return all(map(is_within, others))


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """Limits for rendering a template: size of the result in bytes, and time in seconds."""

    size: int = 1 << 20
    seconds: float = 2.0
