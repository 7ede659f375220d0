"""The sections `events` and `event_queue`: programs and webhooks that learn of events."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator

from tftpd.config import errors, types
from tftpd.config.types import ConfigModel, InvalidCombination

EventName = Literal[
    "request_refused",
    "transfer_started",
    "read_done",
    "upload_stored",
    "transfer_failed",
    "boot_verdict_changed",
    "device_overdue",
    "device_recovered",
]
"""Name of an event."""

EVENT_NAMES: tuple[str, ...] = get_args(EventName)
_NEEDED_KEYS = {
    "boot_verdict_changed": "status",
    "device_overdue": "devices",
    "device_recovered": "devices",
}
"""Section without which there is no such event."""

MAX_HOOKS = 16
_MAX_PARALLEL = 8  # each one is a thread
_MAX_SECONDS = 3600.0
_MAX_AGE_SECONDS = 2_592_000.0  # 30 days
_MIN_SECRET_BYTES = 16
_MAX_SECRET_BYTES = 1024


def _event_list(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if values and all(isinstance(each, str) and each in EVENT_NAMES for each in values):
        return list(dict.fromkeys(values))
    raise ValueError(f"expected one of {', '.join(EVENT_NAMES)}, or a list of them")


EventNames = Annotated[
    list[EventName],
    PlainValidator(_event_list),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(EVENT_NAMES), "type": "string"},
                {"type": "array", "items": {"enum": list(EVENT_NAMES)}, "minItems": 1},
            ]
        }
    ),
]
"""Name of an event, or a list of names."""


def _webhook(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"(?i)https?://[!-~]+", value):
        try:
            parts = urlsplit(value)
            _ = parts.port  # raises ValueError for a wrong number
            is_plain = parts.hostname and parts.username is None and not parts.fragment
        except ValueError:
            is_plain = False
        if is_plain and "\\" not in value:
            return value
    raise ValueError("expected a URL such as https://HOST/PATH, without user and password")


class EventSection(ConfigModel):
    """A program or a webhook, and the events that it learns of."""

    event: EventNames
    """One event, or a list."""

    exec: list[Annotated[str, types.matching(r"[^\0]*", "text")]] | None = Field(
        default=None, min_length=1
    )
    """Program and its arguments; no shell. The event is JSON on its standard input."""

    webhook: Annotated[str, BeforeValidator(_webhook)] | None = None
    """URL that gets the event as JSON, by POST."""

    secret_file: types.FilePath | None = None
    """File with the secret that signs the requests of the webhook, relative to this file."""

    ca_file: types.FilePath | None = None
    """File with certificates (PEM) of private authorities of the webhook, relative to this file."""

    directories: list[types.Prefix] | None = Field(default=None, min_length=1)
    """Only events about names below these paths (default: all)."""

    clients: types.Clients
    """Only events about these clients (default: all)."""

    name: Annotated[str, types.matching(r"[\w.-]{1,64}", "a name such as mail")] | None = None
    """Name in the log (default: the program, or the server of the URL).

    Queued events stay with the name if the program or the URL changes.
    """

    timeout: Annotated[float, types.seconds_between(0.1, _MAX_SECONDS)] = 30.0
    """Time limit of a run of the program, or of a request, in seconds."""

    parallel: Annotated[int, types.int_between(1, _MAX_PARALLEL)] = 1
    """Number of runs or requests at a time; with 1, in the order of the events."""

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        if (self.exec is None) == (self.webhook is None):
            raise InvalidCombination('expected either "exec" or "webhook"')
        if self.exec is not None and not self.exec[0].startswith("/"):
            got = errors.quote_value(self.exec[0])
            raise InvalidCombination(f"expected the absolute path of the program first, got {got}")
        for key in ("secret_file", "ca_file"):
            if self.webhook is None and getattr(self, key) is not None:
                raise InvalidCombination(f'"{key}" is for a webhook')
        if self.ca_file is not None and not (self.webhook or "").lower().startswith("https:"):
            raise InvalidCombination('"ca_file" is for https')
        return self

    @property
    def label(self) -> str:
        """Name in the log. Paths of webhooks may contain a secret, and are not shown."""
        if self.name is not None:
            return self.name
        if self.exec is not None:
            return self.exec[0]
        parts = urlsplit(self.webhook or "")
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def key(self) -> str:
        """Identity of the hook in the queue: its name, or else a hash of its target."""
        target = self.name or json.dumps([self.exec, self.webhook])
        return hashlib.sha256(target.encode("utf-8", "surrogateescape")).hexdigest()[:32]


class EventQueueSection(ConfigModel):
    """Queue of the events that have not been delivered yet."""

    file: types.FilePath | None = None
    """File of the queue, relative to this file.

    By default events.sqlite3 in the state directory of systemd; without systemd the queue is in
    memory.
    """

    max_events: Annotated[int, types.int_between(10, 1_000_000)] = 10_000
    """Events in the queue of each program and webhook. Further ones are dropped and counted."""

    max_age: Annotated[float, types.seconds_between(1.0, _MAX_AGE_SECONDS)] = 86_400.0
    """Time for which a delivery is attempted, in seconds."""

    @property
    def path(self) -> str | None:
        """Path of the file; None: the queue is in memory."""
        directory = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # of systemd
        return self.file or (f"{directory}/events.sqlite3" if directory else None)


class SecretError(Exception):
    """The secret of a webhook cannot be used; the text has the reason."""


def read_secret(path: str) -> bytes:
    """Return the secret in a file, without white space at its ends.

    Raises:
        SecretError: It cannot be read, others can read it, or its length is wrong.
    """
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            secret = file.read(_MAX_SECRET_BYTES + 1).strip()
    except OSError as error:
        raise SecretError(f"{path} cannot be read: {error.strerror or error}") from error
    if mode & 0o007:
        raise SecretError(f"{path} has mode {mode:o}, and all users can access it: chmod o=")
    if not _MIN_SECRET_BYTES <= len(secret) <= _MAX_SECRET_BYTES:
        limits = f"{_MIN_SECRET_BYTES} to {_MAX_SECRET_BYTES} bytes"
        raise SecretError(f"{path}: expected a secret of {limits}")
    return secret


def find_event_problems(
    events: Iterable[EventSection], sections: Collection[str]
) -> Iterator[tuple[errors.Path, str]]:
    """Yield the position and the text of each problem with a program or a secret.

    Args:
        events: The section `events`.
        sections: Other sections of the configuration that make events: `status`, `devices`.
    """
    keys: dict[str, int] = {}
    for index, section in enumerate(events):
        position: errors.Path = ("events", index)
        if section.exec is not None and (fault := _describe_program_fault(section.exec[0])):
            yield (*position, "exec"), f"{section.exec[0]} {fault}"
        if section.secret_file is not None:
            try:
                read_secret(section.secret_file)
            except SecretError as error:
                yield (*position, "secret_file"), str(error)
        for name in section.event:
            if _NEEDED_KEYS.get(name, "") not in ("", *sections):
                yield (*position, "event"), f'{name} needs the key "{_NEEDED_KEYS[name]}"'
        first = keys.setdefault(section.key, index)
        if first != index:
            text = f"is already that of events[{first}]; give one of them another name"
            key = "name" if section.name else "exec" if section.exec else "webhook"
            yield (*position, key), f"{section.label} {text}"


def _describe_program_fault(path: str) -> str | None:
    if not os.path.isfile(path):
        return "is not a file" if os.path.lexists(path) else "does not exist"
    return None if os.access(path, os.X_OK) else "is not executable"
