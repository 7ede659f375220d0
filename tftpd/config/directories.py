"""The `directories` section: served directories and their policies."""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from tftpd.access.fallbacks import Fallback
from tftpd.access.mounts import (
    SERIAL,
    SERIALS,
    Mount,
    Root,
    parse_root,
    parse_serials,
    uses_placeholder,
)
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
    allow_boolean_in_schema,
    bool_or_mapping,
    int_between,
    one_of,
)

_WRITE = WritePolicy()


def _networks(clients: list[IPv4Network | IPv6Network]) -> Networks:
    """Return the networks. ANYWHERE itself avoids a check of the client address."""
    return ANYWHERE if clients == list(ANYWHERE) else tuple(clients)


class ReadSection(ConfigModel):
    """Read policy of a directory."""

    world_readable: Boolean = False
    """Serve only files that are readable for all users (o+r)."""

    clients: list[Network] = Field(default_factory=lambda: list(ANYWHERE), min_length=1)
    """Networks or addresses of the clients that have access (default: all)."""

    templates: Boolean = False
    """Generate a missing file from the template with the same name and the suffix .j2."""

    def build_policy(self) -> ReadPolicy:
        """Build the access.ReadPolicy that this section describes."""
        return ReadPolicy(self.world_readable, _networks(self.clients), self.templates)


class WriteSection(ConfigModel):
    """Write policy of a directory."""

    create: Boolean = _WRITE.create
    """Allow new files."""

    overwrite: Boolean = _WRITE.overwrite
    """Allow existing files to be replaced."""

    max_size: Size | None = None
    """Largest file, such as 64MiB (default: no limit)."""

    mode: FileMode = Field(default=_WRITE.mode, json_schema_extra={"default": f"{_WRITE.mode:04o}"})
    """Permission bits of stored files."""

    world_writable: Boolean = False
    """Replace only files that are writable for all users (o+w)."""

    quota: Size | None = None
    """Largest total size of the directory, such as 10GiB."""

    max_files: Annotated[int, int_between(1, 1_000_000_000)] | None = None
    """Largest number of files in the directory."""

    min_free: Size | None = None
    """Space that must stay free on the file system, such as 1GiB."""

    clients: list[Network] = Field(default_factory=lambda: list(ANYWHERE), min_length=1)
    """Networks or addresses of the clients that have access (default: all)."""

    @model_validator(mode="after")
    def _allows_something(self) -> Self:
        if not self.create and not self.overwrite:
            raise InvalidCombination("create and overwrite are both false: no upload is possible")
        return self

    def build_policy(self) -> WritePolicy:
        """Build the access.WritePolicy that this section describes."""
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
    """A served directory, its prefix in requested names, and its policies."""

    path: Prefix = Field(default=(), json_schema_extra={"default": "/"})
    """Prefix of requested names that belong to this directory; backslashes count as slashes."""

    root: RootPaths
    """Directory, relative to this file, or a list: the first one that contains a file provides
    it. Placeholders: {ip}, {ip_hex} and {mac} of the client, and {serial}, the number before the
    requested name.
    """

    serials: Expression | None = None
    """Regular expression for {serial} (default: serial numbers of Raspberry Pis and MAC
    addresses).
    """

    symlinks: Annotated[Symlinks, one_of(*Symlinks)] = Symlinks.INSIDE
    """Symbolic links: deny follows none, inside follows links that stay below the same root,
    follow follows all.
    """

    fallbacks: list[Annotated[Fallback, one_of(*Fallback)]] | None = None
    """Fallbacks for names in this directory (default: names.fallbacks)."""

    read: Annotated[ReadSection | None, BeforeValidator(bool_or_mapping)] = Field(
        default=None, json_schema_extra=allow_boolean_in_schema
    )
    """Allow downloads."""

    write: Annotated[WriteSection | None, BeforeValidator(bool_or_mapping)] = Field(
        default=None, json_schema_extra=allow_boolean_in_schema
    )
    """Allow uploads."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.read is None and self.write is None:
            raise InvalidCombination("expected read, write or both")
        if self.serials is not None and not uses_placeholder(self.roots, SERIAL):
            raise InvalidCombination('"serials" needs a root that contains {serial}')
        try:
            self.build_mount()
        except BadPattern as error:
            raise InvalidCombination(f"serials: {error}") from None
        return self

    @property
    def roots(self) -> tuple[Root, ...]:
        """The parsed roots."""
        return tuple(map(parse_root, self.root))

    def build_mount(self) -> Mount:
        """Build the access.Mount that this section describes."""
        has_serial = uses_placeholder(self.roots, SERIAL)
        return Mount(
            prefix=self.path,
            roots=self.roots,
            read=self.read.build_policy() if self.read else None,
            write=self.write.build_policy() if self.write else None,
            symlinks=self.symlinks,
            fallbacks=None if self.fallbacks is None else tuple(self.fallbacks),
            serials=parse_serials(self.serials or SERIALS) if has_serial else None,
        )
