"""What is sampled of a daemon in a soak, and the record of it as JSON."""

import json
import os
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from bench.processes import Process
from tftpd.access.paths import TEMPORARY

_ANSWERS_WITHIN = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Sample:
    """One look: `at` is in seconds since the load began, below 0 before."""

    at: float
    processes: tuple[Process, ...]
    sessions: int
    temporaries: int
    ended: int


@dataclass(slots=True)
class Record:
    """A whole soak. `load` is how long clients came, in seconds.

    `wakes` are the times a second that the processes woke with nothing to do,
    before the load and after it.
    """

    about: dict[str, Any]
    load: float
    workers: int
    samples: list[Sample] = field(default_factory=list)
    ended: dict[str, dict[str, int]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    wakes: tuple[float, float] = (0.0, 0.0)
    bugs: list[str] = field(default_factory=list)
    reloads: int = 0

    def total(self, ending: str) -> int:
        """How many acts ended so."""
        return sum(ways.get(ending, 0) for ways in self.ended.values())

    def write(self, path: Path) -> None:
        """As JSON, a sample a line."""
        document = asdict(self)
        samples = document.pop("samples")
        rows = ",\n".join(
            json.dumps(
                [s["at"], s["sessions"], s["temporaries"], s["ended"]]
                + [list(p.values()) for p in s["processes"]]
            )
            for s in samples
        )
        text = json.dumps(document, indent=1)
        path.write_text(f'{text[:-2]},\n "samples": [\n{rows}\n ]\n}}\n')

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` wrote; raises `OSError`, `ValueError` or `KeyError`."""
        document = json.loads(path.read_text())
        document["samples"] = [
            Sample(at, tuple(Process(*one) for one in processes), sessions, temporaries, ended)
            for at, sessions, temporaries, ended, *processes in document["samples"]
        ]
        document["wakes"] = tuple(document["wakes"])
        return cls(**document)


def sessions(status: Path) -> int:
    """How many the daemon says it has, on its status page's socket; -1 if it does not answer.

    Also where one of its workers does not.
    """
    said = _said(status)
    if said is None or not all(worker["answers"] for worker in said["workers"]):
        return -1
    return sum(number for way in said["sessions"].values() for number in way.values())


def _said(status: Path) -> dict[str, Any] | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_ANSWERS_WITHIN)
        try:
            sock.connect(str(status))
            sock.sendall(b"GET /status HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        except OSError:
            return None
    document: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return document


def temporaries(base: Path) -> int:
    """Unfinished uploads in the tree."""
    prefix = os.fsdecode(TEMPORARY)
    return sum(name.startswith(prefix) for _, _, names in os.walk(base) for name in names)
