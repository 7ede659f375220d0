"""Checks of directories whose root is at an origin.

An origin has no links, no permissions, no listings and no free space. A setting that needs one of
them is a problem, rather than silently without effect.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec

from tftpd.access.fallbacks import Fallback
from tftpd.access.origin_roots import OriginRoot
from tftpd.access.paths import escape_control_chars
from tftpd.config.directories import DirectorySection, WriteSection
from tftpd.config.errors import Path, suggest
from tftpd.config.origins import LIBRARIES
from tftpd.config.settings import Settings

_Problem = tuple[Path, str]

_NOT_AT_ORIGINS = {
    "symlinks": "an origin has no symbolic links",
    "world_readable": "an origin has no permission bits",
    "world_writable": "an origin has no permission bits",
    "mode": "an origin has no permission bits",
    "quota": "the files of an origin are not counted; limit the bucket",
    "max_files": "the files of an origin are not counted; limit the bucket",
    "min_free": "the free space of an origin is unknown",
    "directories": "an origin has the directory of any name",
    "keep": "an origin keeps versions itself; turn on the versioning of the bucket",
}
_OWN_ENTRY = "remove it, or give the origin an entry of its own"


def find_origin_problems(settings: Settings) -> Iterator[_Problem]:
    """Yield the position and the text of each problem with origins."""
    used = False
    for index, entry in enumerate(settings.directories):
        position = ("directories", index)
        roots = [root.path for root in entry.roots]
        for n, root in enumerate(roots):
            if isinstance(root, OriginRoot) and root.origin not in settings.origins:
                at: Path = (*position, "root", n) if len(roots) > 1 else (*position, "root")
                yield at, _unknown_origin(root.origin, settings)
        if any(isinstance(root, OriginRoot) for root in roots):
            used = True
            for path, text in _find_unsupported(entry, settings):
                yield (*position, *path), text
    if used and settings.origins and settings.cache is None:
        yield (
            ("origins",),
            'missing key "cache", expected cache: {path: /var/cache/tftpd} at the top level',
        )
    yield from _find_missing_libraries(settings)
    if settings.cache is not None:
        yield from _find_exposed_cache(settings, settings.cache.path)


def _unknown_origin(name: str, settings: Settings) -> str:
    if not settings.origins:
        return f'unknown origin "{name}", expected origins: {{{name}: {{url: ...}}}}'
    known = ", ".join(settings.origins)
    hint = suggest(name, settings.origins)
    return f'unknown origin "{name}"{hint or f", expected one of {known}"}'


def _find_unsupported(entry: DirectorySection, settings: Settings) -> Iterator[_Problem]:
    for keys, section in (((), entry), (("read",), entry.read), (("write",), entry.write)):
        for key, reason in _NOT_AT_ORIGINS.items():
            field = type(section).model_fields.get(key) if section else None
            if field is not None and getattr(section, key) != field.default:
                yield (*keys, key), f"{reason}: {_OWN_ENTRY}"
    if entry.fallbacks is None and Fallback.CASE in settings.names.fallbacks:
        expected = "expected fallbacks without it in this entry"
        yield (), f'the fallback "case" of names.fallbacks needs listings: {expected}'
    elif entry.fallbacks is not None and Fallback.CASE in entry.fallbacks:
        yield ("fallbacks",), f'the fallback "case" needs listings: {_OWN_ENTRY}'
    if entry.write is not None:
        yield from _find_unsupported_writes(entry, entry.write)


def _find_unsupported_writes(entry: DirectorySection, write: WriteSection) -> Iterator[_Problem]:
    if len(entry.root) > 1:
        reason = "uploads to an origin need it as the only root"
        yield ("write",), f"{reason}: give it an entry of its own"
    if not write.create:
        reason = "an upload to an origin cannot be limited to existing files"
        yield ("write", "create"), f"{reason}: expected true"


def _find_missing_libraries(settings: Settings) -> Iterator[_Problem]:
    """Look for the libraries without importing them."""
    for name, section in settings.origins.items():
        library = LIBRARIES[section.scheme]
        if find_spec(library) is None:
            text = f"{section.scheme} needs {library}: pip install 'tftpd[origins]'"
            yield ("origins", name, "url"), text


def _find_exposed_cache(settings: Settings, cache: str) -> Iterator[_Problem]:
    """Find directories whose clients could read or write the files of the cache."""
    for mount in settings.build_mounts():
        for root in map(str, mount.local_roots):
            if os.path.commonpath([root, cache]) in (root, cache):
                text = f"clients have access to it by the root {escape_control_chars(root)}"
                yield ("cache", "path"), f"{text}: expected a directory outside of all roots"
