"""Queue of events on disk, which survives a restart of the daemon.

An entry is one event for one hook. It leaves the queue when it is delivered, or when its time is
over. An entry that is taken stays in the file until then, so that a crash causes a second
delivery and no loss.
"""

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from math import inf

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    hook TEXT NOT NULL,
    event TEXT NOT NULL,
    body TEXT NOT NULL,
    created REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0,
    UNIQUE (id, hook)
);
CREATE INDEX IF NOT EXISTS entries_of_hook ON entries (hook);
"""

QueueError = sqlite3.Error
"""The file cannot be read or written."""


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """An event for one hook.

    Attributes:
        number: Number of the entry.
        hook: Key of the hook.
        event: Name of the event.
        body: The event as JSON.
        created: Time of its arrival, in seconds since the epoch.
        attempts: Number of deliveries that failed.
    """

    number: int
    hook: str
    event: str
    body: str
    created: float
    attempts: int


class EventQueue:
    """Entries in the order of their arrival, for each hook.

    All methods may raise `QueueError`, for example if the disk is full.

    Attributes:
        problem: Reason why the queue is in memory although it has a file; else empty.
        sizes: Number of entries of each hook.
    """

    def __init__(self, path: str | None, max_events: int) -> None:
        """Open the queue.

        Args:
            path: The file; None: the queue is in memory. An unusable file is kept with the suffix
                .broken, and the queue starts empty.
            max_events: Largest number of entries of a hook.
        """
        self.problem = ""
        self._max_events = max_events
        try:
            self._database = _open(path or ":memory:")
        except sqlite3.Error as error:
            self.problem = f"{path}: {error}"
            # OperationalError: no rights, no space or no directory. Others: no database.
            if path and not isinstance(error, sqlite3.OperationalError):
                self._database = _replace(path)
            else:
                self._database = _open(":memory:")
        rows = self._database.execute("SELECT hook, COUNT(*) FROM entries GROUP BY hook")
        self.sizes: Counter[str] = Counter(dict(rows.fetchall()))

    def __len__(self) -> int:
        return self.sizes.total()

    def add(self, entries: Iterable[tuple[str, str, str, str]]) -> list[str]:
        """Add entries, all or none. Those that the queue contains are ignored.

        Args:
            entries: Identity of the event, key of the hook, name and JSON of the event.

        Returns:
            The names of the events for which the queue of their hook is full.
        """
        full, added = [], Counter[str]()
        now = time.time()
        with self._database as database:
            for identity, hook, event, body in entries:
                if self.sizes[hook] + added[hook] >= self._max_events:
                    full.append(event)
                    continue
                columns = "(id, hook, event, body, created)"
                command = f"INSERT OR IGNORE INTO entries {columns} VALUES (?, ?, ?, ?, ?)"
                cursor = database.execute(command, (identity, hook, event, body, now))
                added[hook] += cursor.rowcount
        self.sizes.update(added)
        return full

    def take(self, hook: str, now: float) -> QueueEntry | None:
        """Return the oldest entry of a hook that is due, until `remove` or `postpone`."""
        command = (
            "SELECT number, hook, event, body, created, attempts FROM entries "
            "WHERE hook = ? AND due <= ? ORDER BY number LIMIT 1"
        )
        row = self._database.execute(command, (hook, now)).fetchone()
        if row is None:
            return None
        entry = QueueEntry(*row)
        with self._database as database:
            database.execute("UPDATE entries SET due = ? WHERE number = ?", (inf, entry.number))
        return entry

    def next_due(self, hook: str) -> float | None:
        """Return the time of the next entry of a hook; None if none waits."""
        command = "SELECT MIN(due) FROM entries WHERE hook = ? AND due < ?"
        (due,) = self._database.execute(command, (hook, inf)).fetchone()
        return None if due is None else float(due)

    def postpone(self, entry: QueueEntry, due: float) -> None:
        """Count a failed delivery. The entry can be taken from the time `due` on."""
        command = "UPDATE entries SET attempts = attempts + 1, due = ? WHERE number = ?"
        with self._database as database:
            database.execute(command, (due, entry.number))

    def remove(self, entry: QueueEntry) -> None:
        """Remove an entry."""
        with self._database as database:
            database.execute("DELETE FROM entries WHERE number = ?", (entry.number,))
        self.sizes[entry.hook] -= 1

    def remove_older(self, created: float) -> list[str]:
        """Remove entries that arrived before a time and are not taken; return their events."""
        condition = "FROM entries WHERE created < ? AND due < ?"
        with self._database as database:
            rows = database.execute(f"SELECT hook, event {condition}", (created, inf)).fetchall()
            database.execute(f"DELETE {condition}", (created, inf))
        self.sizes.subtract(hook for hook, _ in rows)
        return [event for _, event in rows]

    def close(self) -> None:
        """Close the file. Entries that are taken can be taken again by the next process."""
        self._database.close()


def _open(path: str) -> sqlite3.Connection:
    if path != ":memory:":
        # SQLite would create it with the umask of the daemon, and events have names of files.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(OSError):  # SQLite reports the reason
            os.close(os.open(path, flags, 0o600))
    database = sqlite3.connect(path, timeout=1.0)
    try:
        # NORMAL: a crash of the host may lose the last events, but damages no file.
        database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in (0, _SCHEMA_VERSION):
            raise sqlite3.DatabaseError(f"format {version} is unknown")
        database.executescript(_SCHEMA)
        with database:
            # Times are those of another process's clock.
            database.execute("UPDATE entries SET due = 0")
            database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    except BaseException:
        database.close()
        raise
    return database


def _replace(path: str) -> sqlite3.Connection:
    """Return a new database, beside the unusable one; in memory if that fails."""
    try:
        os.replace(path, f"{path}.broken")
        for suffix in ("-wal", "-shm"):
            with suppress(OSError):
                os.unlink(path + suffix)
        return _open(path)
    except (OSError, sqlite3.Error):
        return _open(":memory:")
