"""The `directories` section: served directories and their policies."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tftpd.access.mounts import (
    SERIALS,
    Mount,
    Root,
    parse_root,
    parse_serials,
    uses_placeholder,
)
from tftpd.access.policy import ReadPolicy, Symlinks, WritePolicy
from tftpd.access.regex import BadPattern
from tftpd.access.stored_names import SERIAL, parse_stored_name
from tftpd.config import types
from tftpd.config.names import DefaultLoaders, Expression, FallbackName
from tftpd.config.types import Boolean, ConfigModel, InvalidCombination

_WRITE = WritePolicy()


class ReadSection(ConfigModel):
    """Read policy of a directory."""

    world_readable: Boolean = False
    """Serve only files that are readable for all users (o+r)."""

    clients: types.Clients
    """Networks or addresses of the clients that have access (default: all)."""

    templates: Boolean = False
    """Generate a missing file from the template with the same name and the suffix .j2."""

    sha256: Boolean = False
    """Log and show the SHA-256 of files that were sent over TFTP; each is read twice for it."""


class WriteSection(ConfigModel):
    """Write policy of a directory."""

    create: Boolean = _WRITE.create
    """Allow new files."""

    overwrite: Boolean = _WRITE.overwrite
    """Allow existing files to be replaced."""

    max_size: types.Size | None = None
    """Largest file, such as 64MiB (default: no limit)."""

    mode: types.FileMode = Field(
        default=_WRITE.mode, json_schema_extra={"default": f"{_WRITE.mode:04o}"}
    )
    """Permission bits of new files; a replaced file keeps its own."""

    world_writable: Boolean = False
    """Replace only files that are writable for all users (o+w)."""

    quota: types.Size | None = None
    """Largest total size of the directory, such as 10GiB."""

    max_files: Annotated[int, types.int_between(1, 1_000_000_000)] | None = None
    """Largest number of files in the directory."""

    min_free: types.Size | None = None
    """Space that must stay free on the file system, such as 1GiB."""

    keep: Annotated[int, types.int_between(1, 10_000)] | None = None
    """Number of versions that are kept of each replaced file (default: none)."""

    keep_days: Annotated[int, types.int_between(1, 36_500)] | None = None
    """Days after which a version is removed (default: no limit)."""

    versions: types.FilePath | None = None
    """Directory of the versions, relative to this file (default: .versions below the root)."""

    directories: Literal["existing", "create"] = "existing"
    """Store files in existing directories only, or create missing ones, up to 8 below the root."""

    sha256: Boolean = False
    """Log and show the SHA-256 of files that were stored."""

    store_as: types.StoredNameText | None = None
    """Name under which a file is stored (default: the requested name).

    Placeholders: {ip}, {ip_hex} and {mac} of the client, {serial} if the root contains it, {date}
    (2026-11-28) and {time} (170309) in UTC, and {name}, the requested name.
    """

    clients: types.Clients
    """Networks or addresses of the clients that have access (default: all)."""

    @model_validator(mode="after")
    def _allows_something(self) -> Self:
        if not self.create and not self.overwrite:
            raise InvalidCombination("create and overwrite are both false: no upload is possible")
        if self.directories == "create" and not self.create:
            raise InvalidCombination("directories: create needs create: true")
        if self.keep is not None and not self.overwrite:
            raise InvalidCombination("keep needs overwrite: true, no file is replaced without it")
        for key in ("keep_days", "versions"):
            if self.keep is None and getattr(self, key) is not None:
                raise InvalidCombination(f"{key} needs keep, the number of versions")
        return self

    def build_policy(self) -> WritePolicy:
        """Build the access.WritePolicy that this section describes."""
        values = dict(self)
        del values["store_as"]  # a part of the mount
        creates = values.pop("directories") == "create"
        return WritePolicy(**values, create_directories=creates)


class DirectorySection(ConfigModel):
    """A served directory, its prefix in requested names, and its policies."""

    path: types.Prefix = Field(default=(), json_schema_extra={"default": "/"})
    """Prefix of requested names that belong to this directory; backslashes count as slashes."""

    root: types.RootPaths
    """Directory, relative to this file, or a list: the first one that contains a file provides it.

    Placeholders: {ip}, {ip_hex} and {mac} of the client, and {serial}, the number before the
    requested name.
    """

    clients: types.Clients
    """Networks or addresses of the clients for which this entry exists (default: all).

    Several entries may have the same path if their clients differ; the first one that has the
    client applies.
    """

    serials: Expression | None = None
    """Regular expression for {serial} (default: serial numbers of Raspberry Pis and MAC addresses).
    """

    symlinks: Symlinks = Symlinks.INSIDE
    """Handling of symbolic links.

    deny follows none, inside follows links that stay below the same root, chroot resolves links as
    if the root were /, follow follows all.
    """

    fallbacks: tuple[FallbackName, ...] | None = None
    """Fallbacks for names in this directory (default: names.fallbacks)."""

    default_loaders: DefaultLoaders | None = None
    """Files in this directory for names that are not printable (default: names.default_loaders)."""

    mac_from_name: Boolean = False
    """Take the MAC address of a client from the name that it reads, if it is not known.

    For clients behind routers. Clients can forge it.
    """

    read: types.Switch[ReadSection] = None
    """Allow downloads."""

    write: types.Switch[WriteSection] = None
    """Allow uploads."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.read is None and self.write is None:
            raise InvalidCombination("expected read, write or both")
        if self.serials is not None and not uses_placeholder(self.roots, SERIAL):
            raise InvalidCombination('"serials" needs a root that contains {serial}')
        try:
            mount = self.build_mount()
        except BadPattern as error:
            raise InvalidCombination(f"serials: {error}") from None
        if mount.store_as and SERIAL in mount.store_as.placeholders and mount.serials is None:
            raise InvalidCombination("store_as with {serial} needs a root that contains {serial}")
        return self

    @property
    def roots(self) -> tuple[Root, ...]:
        """The parsed roots."""
        return tuple(map(parse_root, self.root))

    def build_mount(self) -> Mount:
        """Build the access.Mount that this section describes."""
        text = self.write and self.write.store_as
        store_as = parse_stored_name(text) if text else None
        has_serial = uses_placeholder(self.roots, SERIAL)
        return Mount(
            prefix=self.path,
            roots=self.roots,
            read=ReadPolicy(**dict(self.read)) if self.read else None,
            write=self.write.build_policy() if self.write else None,
            symlinks=self.symlinks,
            clients=self.clients,
            fallbacks=self.fallbacks,
            default_loaders=self.default_loaders,
            mac_from_name=self.mac_from_name,
            store_as=store_as,
            serials=parse_serials(self.serials or SERIALS) if has_serial else None,
        )
