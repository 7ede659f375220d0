"""The file of a client family: who it is, how it behaves, and its boot as a packet trace.

A line of the trace is `PORT > what the client says` or `PORT < what it hears`;
`...` stands for more DATA and ACKs. A request has the profile that it gets in
parentheses, and `+5ms` before it where it leaves so long after the request
before it; else it leaves when all before it is over.
"""

import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.boots import packets

FAMILIES = Path(__file__).parent / "families"
MORE = "..."
_LINE = re.compile(r"(?:\+(\d+)ms )?(\d+) ([<>]) (.*?)(?:  \(([a-z0-9-]*)\))?")


@dataclass(frozen=True, slots=True)
class Habits:
    """Habits of a client beyond RFC 1350; times are in seconds.

    `request` and `block` are how long it waits before each repeat of its
    request and of its last packet; after the last of these waits it gives
    up. What it does not repeat, it waits for (`repeats_blocks`). With
    `counts: all` the waits are those of a whole transfer, with `each` every
    block has them anew.

    A DATA that it has already it `acks`; or the `last` one only; or it acks
    its last one whichever it was (`always-last`), or does so `once`, or it
    `ignores` it, or is `confused` for good. One `beyond` the next makes it ack
    its `last` one, `once`, or it `ignores` it, or `fails`. An OACK after the
    first DATA (`oack_again`) it `ignores` or `acks`, or it `restarts` at block
    0, or `fails`; `confused` is who bears no second OACK at all. An uploader
    `ignores` an ACK that is not its block's, or `sends` its block again.

    `refuses` are faults of an OACK that end the transfer by this ERROR:
    `unasked`, `larger`, `timeout` (another one), `empty` (tsize 0);
    `needs_oack`: without one it never begins. `tid: any` takes packets of any
    port of the server. Of its `block` waits the first that it `holds` end
    without a repeat. `pads` is the length of its ACKs.
    """

    request: tuple[float, ...] = (5.0,) * 5
    block: tuple[float, ...] = (5.0,) * 5
    repeats_blocks: bool = True
    counts: str = "each"
    duplicate: str = "acks"
    beyond: str = "ignores"
    oack_again: str = "ignores"
    ack_again: str = "ignores"
    refuses: dict[str, str] = field(default_factory=dict)
    needs_oack: bool = False
    tid: str = "first"
    holds: int = 0
    pads: int = 4


@dataclass(frozen=True, slots=True)
class Step:
    """One request from `port`, so many seconds `after` the one before, or when all are over.

    It ends with its file, an ERROR that it hears (`misses`), or its own
    `abort`, when it hears `abort_at`.
    """

    port: int
    request: bytes
    profile: str
    after: float | None
    misses: bool = False
    abort: bytes | None = None
    abort_at: str = ""

    @property
    def writes(self) -> bool:
        """True for an upload."""
        return packets.opcode(self.request) == "WRQ"

    @property
    def name(self) -> bytes:
        """As it is asked for."""
        return packets.words(self.request)[0]

    @property
    def text(self) -> bool:
        """True for a transfer in netascii."""
        return packets.words(self.request)[1].lower() == b"netascii"


@dataclass(frozen=True, slots=True)
class Family:
    """A client and its boot.

    `files` are those of the server, `uploads` those that the client has,
    with their sizes; `names` tell the file that another name stands for.
    `settings` are keys of the configuration besides the directory,
    `completes` how many of twelve boots complete at least where so many
    percent of the datagrams are lost, and `ends_with` of what kinds the loss of
    one datagram ends a boot.
    """

    key: str
    client: str
    sources: dict[str, str]
    habits: Habits
    trace: tuple[str, ...]
    steps: tuple[Step, ...]
    files: dict[str, int] = field(default_factory=dict)
    uploads: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    broadcast: bool = False
    completes: dict[int, int] = field(default_factory=dict)
    ends_with: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.key

    def file(self, step: Step) -> str:
        """The name of the file that a step is about."""
        asked = step.name.decode("latin-1")
        plain = "/".join(part for part in re.split(r"[\\/]", asked) if part)
        return self.names.get(asked, plain)

    def content(self, step: Step) -> bytes:
        """The octets of that file."""
        name = self.file(step)
        return content(name, (self.uploads if step.writes else self.files)[name], step.text)

    def wire(self, step: Step) -> bytes:
        """Return the datagram for this line of the trace."""
        octets = self.content(step)
        return octets.replace(b"\n", b"\r\n") if step.text else octets


def content(name: str, size: int, text: bool = False) -> bytes:
    """The octets of a file; they begin nowhere the same."""
    if text:
        return (b"a line of %s\n" % name.encode() * size)[: size - 1] + b"\n"
    return Random(name).randbytes(size)


def families() -> list[Family]:
    """All of them, by name."""
    return [read(path) for path in sorted(FAMILIES.glob("*.yaml"))]


def read(path: Path) -> Family:
    """The family of a file; raises `ValueError` for a line that is none."""
    said = yaml.safe_load(path.read_text())
    lines = tuple(said["trace"].splitlines())
    known = {one.name for one in fields(Family)} - {"key", "habits", "trace", "steps"}
    if unknown := set(said) - known - {"habits", "trace"}:
        raise ValueError(f"{path.name}: {unknown}")
    return Family(
        key=path.stem,
        habits=_habits(said.get("habits", {})),
        trace=lines,
        steps=tuple(_steps(lines)),
        **{name: said[name] for name in known & set(said)},
    )


def parsed(line: str) -> tuple[str | None, int, str, str, str | None]:
    """Milliseconds, port, direction, datagram and profile of a line."""
    match = _LINE.fullmatch(line.strip())
    if match is None:
        raise ValueError(f"no line of a trace: {line}")
    after, port, way, said, profile = match.groups()
    return after, int(port), way, said, profile


def _habits(said: dict[str, Any]) -> Habits:
    waits = {key: tuple(_seconds(said[key])) for key in ("request", "block") if key in said}
    return Habits(**said | waits)


def _seconds(waits: list[Any]) -> list[float]:
    """Each is a number, or `6 x 4`: that often so many seconds."""
    out: list[float] = []
    for wait in waits:
        times, _, seconds = str(wait).rpartition(" x ")
        out += [float(seconds)] * int(times or 1)
    return out


def _steps(lines: tuple[str, ...]) -> list[Step]:
    steps: list[Step] = []
    heard: dict[int, tuple[int, str]] = {}  # of a port: the step, and what it heard last
    for line in lines:
        if line.strip() == MORE:
            continue
        after, port, way, said, profile = parsed(line)
        if said.split()[0] in packets.REQUESTS:
            if profile is None:
                raise ValueError(f"no profile: {line}")
            heard[port] = len(steps), ""
            delay = None if after is None else int(after) / 1000
            steps.append(Step(port, packets.octets(said), profile, delay))
            continue
        at, last = heard[port]
        one = steps[at]
        if way == "<":
            heard[port] = at, said
            if said.startswith("ERROR"):
                steps[at] = replace(one, misses=True)
        elif said.startswith("ERROR"):
            # What the client stops at: the OACK, or the very DATA.
            mark = last if last.startswith("DATA") else last.split()[0]
            steps[at] = replace(one, abort=packets.octets(said), abort_at=mark)
    return steps
