"""Read and write policies, and the grant they give.

What it may cost to make a file of a template.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Generic, TypeVar

from tftpd.access.paths import Name

Address = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]

ANYWHERE: Networks = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


class Symlinks(StrEnum):
    """What a symbolic link below a root may do."""

    DENY = "deny"  # no link is followed
    INSIDE = "inside"  # a link may point anywhere beneath the same root
    FOLLOW = "follow"  # links are the administrator's word and go where they say


@dataclass(frozen=True, slots=True)
class ReadPolicy:
    """Which files may be read.

    `world_readable` asks for the o+r bit, as tftp-hpa does. With `templates`
    a file that is not there is made of the one of its name with `.j2` behind it.
    """

    world_readable: bool = False
    clients: Networks = ANYWHERE
    templates: bool = False


@dataclass(frozen=True, slots=True)
class WritePolicy:
    """Which files may be written.

    `create` allows new names and `overwrite` those that exist; `max_size` is
    in octets, None for no limit; `mode` are the permission bits of what is
    stored; `world_writable` asks for the o+w bit of a file that is replaced.

    `quota` is how many octets, and `max_files` how many files, the whole root
    may hold; `min_free` how many octets its file system keeps free.
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

    @property
    def measured(self) -> bool:
        """Whether what the root holds matters."""
        return self.quota is not None or self.max_files is not None


Policy = TypeVar("Policy", ReadPolicy, WritePolicy)


@dataclass(frozen=True, slots=True)
class Grant(Generic[Policy]):
    """Leave to touch one name beneath one root, on the terms of one policy.

    Only `storage` acts on it, step by step below `root`: a grant says what
    is allowed, not what exists. `own` steps of the name are not the client's
    words, but lead to the directory that it has below the root.
    """

    root: Path
    name: Name
    policy: Policy
    symlinks: Symlinks = Symlinks.INSIDE
    own: int = 0


def admits(networks: Networks, client: Address) -> bool:
    """Whether `client` is in one of `networks`."""
    return any(client in network for network in networks)


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """The octets that come out at most, and the seconds that it may take."""

    size: int = 1 << 20
    seconds: float = 2.0
