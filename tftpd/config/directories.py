"""The keys that say what is served, and to whom."""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from tftpd.access.fallbacks import Fallback
from tftpd.access.mounts import SERIAL, SERIALS, Mount, Root, needs_mac, root, serials
from tftpd.access.policy import ANYWHERE, Networks, ReadPolicy, Symlinks, WritePolicy
from tftpd.access.regex import BadPattern
from tftpd.config.names import Expression
from tftpd.config.types import (
    Boolean,
    ConfigModel,
    FileMode,
    InvalidCombination,
    Network,
    Prefix,
    RootPaths,
    Size,
    bool_or_mapping,
    choice,
    number,
    or_boolean,
)

_WRITE = WritePolicy()


def _networks(clients: list[IPv4Network | IPv6Network]) -> Networks:
    """What the access floor takes; it asks nothing of clients from anywhere."""
    return ANYWHERE if clients == list(ANYWHERE) else tuple(clients)


class ReadSection(ConfigModel):
    """Who may read, and which files."""

    world_readable: Boolean = Field(default=False, description="Only files with o+r.")
    clients: list[Network] = Field(
        default_factory=lambda: list(ANYWHERE),
        min_length=1,
        description="Networks or addresses that are admitted; all if left out.",
    )
    templates: Boolean = Field(
        default=False,
        description="Whether a file that is not there is made of the one with .j2 behind its name.",
    )

    def policy(self) -> ReadPolicy:
        """What the access floor takes."""
        return ReadPolicy(self.world_readable, _networks(self.clients), self.templates)


class WriteSection(ConfigModel):
    """Who may write, and what."""

    create: Boolean = Field(default=_WRITE.create, description="Whether new files may be made.")
    overwrite: Boolean = Field(
        default=_WRITE.overwrite, description="Whether a file may be replaced."
    )
    max_size: Size | None = Field(
        default=None, description="The largest file, such as 64MiB; no limit if left out."
    )
    mode: FileMode = Field(
        default=_WRITE.mode,
        description="Permission bits of what is stored.",
        json_schema_extra={"default": f"{_WRITE.mode:04o}"},
    )
    world_writable: Boolean = Field(default=False, description="Replace only files with o+w.")
    quota: Size | None = Field(
        default=None, description="Octets that the whole directory may hold, such as 10GiB."
    )
    max_files: Annotated[int, number(1, 1_000_000_000)] | None = Field(
        default=None, description="Files that the whole directory may hold."
    )
    min_free: Size | None = Field(
        default=None, description="Octets that stay free on its file system, such as 1GiB."
    )
    clients: list[Network] = Field(
        default_factory=lambda: list(ANYWHERE),
        min_length=1,
        description="Networks or addresses that are admitted; all if left out.",
    )

    @model_validator(mode="after")
    def _allows_something(self) -> Self:
        if not self.create and not self.overwrite:
            raise InvalidCombination("allows nothing: create and overwrite are both false")
        return self

    def policy(self) -> WritePolicy:
        """What the access floor takes."""
        return WritePolicy(
            create=self.create,
            overwrite=self.overwrite,
            max_size=self.max_size,
            mode=self.mode,
            world_writable=self.world_writable,
            clients=_networks(self.clients),
            quota=self.quota,
            max_files=self.max_files,
            min_free=self.min_free,
        )


class DirectorySection(ConfigModel):
    """A directory, the prefix that clients see of it, and its policies."""

    path: Prefix = Field(
        default=(),
        description="The prefix of the names that clients use; backslashes are slashes.",
        json_schema_extra={"default": "/"},
    )
    root: RootPaths = Field(
        description="The directory, relative to this file, or several: the first that has a file "
        "is the one it comes from. {ip}, {ip_hex} and {mac} are the client, {serial} the number "
        "that it puts before its names."
    )
    serials: Expression | None = Field(
        default=None,
        description="A regular expression for numbers that are {serial}; if left out, those of "
        "Raspberry Pis, and MAC addresses.",
    )
    symlinks: Annotated[Symlinks, choice(*Symlinks)] = Field(
        default=Symlinks.INSIDE,
        description="What symbolic links may do: deny follows none, inside those that lead "
        "beneath the same root, follow all.",
    )
    fallbacks: list[Annotated[Fallback, choice(*Fallback)]] | None = Field(
        default=None,
        description="Rungs by which a name may lead here; those of names.ladder if left out.",
    )
    read: Annotated[ReadSection | None, BeforeValidator(bool_or_mapping)] = Field(
        default=None, description="Whether files may be read.", json_schema_extra=or_boolean
    )
    write: Annotated[WriteSection | None, BeforeValidator(bool_or_mapping)] = Field(
        default=None, description="Whether files may be written.", json_schema_extra=or_boolean
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.read is None and self.write is None:
            raise InvalidCombination("neither read nor write is allowed")
        if self.serials is not None and not needs_mac(self.roots, SERIAL):
            raise InvalidCombination('"serials" goes with a root that has {serial} in it')
        try:
            self.mount()
        except BadPattern as error:
            raise InvalidCombination(f"serials: {error}") from None
        return self

    @property
    def roots(self) -> tuple[Root, ...]:
        """What the access floor takes."""
        return tuple(map(root, self.root))

    def mount(self) -> Mount:
        """What the access floor takes."""
        asked = needs_mac(self.roots, SERIAL)
        return Mount(
            prefix=self.path,
            roots=self.roots,
            read=self.read.policy() if self.read else None,
            write=self.write.policy() if self.write else None,
            symlinks=self.symlinks,
            fallbacks=None if self.fallbacks is None else tuple(self.fallbacks),
            serials=serials(self.serials or SERIALS) if asked else None,
        )
