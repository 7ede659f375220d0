"""Checks of directories that keep versions of replaced files."""

import os
from collections.abc import Iterator
from pathlib import Path

from tftpd.access.paths import VERSIONS, escape_control_chars
from tftpd.config.directories import DirectorySection, WriteSection
from tftpd.config.errors import Path as Position
from tftpd.config.errors import format_path
from tftpd.config.settings import Settings
from tftpd.storage.versions import find_obstacle

_Problem = tuple[Position, str]


def find_version_problems(settings: Settings) -> Iterator[_Problem]:
    """Yield the position and the text of each problem that the settings show."""
    owners: dict[str, tuple[Position, tuple[Path, ...]]] = {}
    for position, entry, write in _entries(settings):
        roots = entry.build_mount().local_roots
        if write.versions is None:
            for root in roots:
                if access := _find_access(settings, str(root / os.fsdecode(VERSIONS))):
                    yield (*position, "keep"), access
            continue
        if len(entry.root) > 1:
            yield (*position, "versions"), "expected one root, or the default: .versions in each"
            continue
        owner, owner_roots = owners.setdefault(write.versions, (position, roots))
        if owner_roots != roots:
            text = f"{format_path(owner)} has this directory for another root"
            yield (*position, "versions"), f"{text}: expected a directory for each root"
        elif access := _find_access(settings, write.versions):
            yield (*position, "versions"), access


def find_obstacles(settings: Settings) -> Iterator[_Problem]:
    """Yield the position and the text of each problem that the file systems show; blocks."""
    for position, entry, write in _entries(settings):
        top = None if write.versions is None else Path(write.versions)
        for root in entry.build_mount().local_roots:
            obstacle = find_obstacle(root, top)
            if obstacle is not None:
                at: Position = (*position, "keep" if top is None else "versions")
                yield at, escape_control_chars(obstacle)


def _entries(settings: Settings) -> Iterator[tuple[Position, DirectorySection, WriteSection]]:
    for index, entry in enumerate(settings.directories):
        if entry.write and entry.write.keep:
            yield ("directories", index, "write"), entry, entry.write


def _find_access(settings: Settings, versions: str) -> str | None:
    """Return the problem if clients can write to versions, or read them beside other files."""
    for mount in settings.build_mounts():
        for root in map(str, mount.local_roots):
            common = os.path.commonpath([root, versions])
            is_hidden = os.fsdecode(VERSIONS) in Path(versions).parts[len(Path(root).parts) :]
            if common == root != versions and not is_hidden:
                text = f"clients have access to it by the root {escape_control_chars(root)}"
                return f"{text}: expected a directory outside of all roots"
            if common == versions and mount.write:
                text = f"clients can write to the versions by the root {escape_control_chars(root)}"
                return f"{text}: expected an entry without write"
    return None
