"""File of a client family: the client, its habits, and its boot as a packet trace.

A line of the trace is `PORT > packet of the client` or `PORT < packet of the server`; `...` stands
for further DATA and ACK packets. A request has the name of its profile in parentheses. `+5ms`
before a request is the time since the previous one. A request without a time is sent when all
previous transfers have ended.
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

    Attributes:
        request_intervals: Waits before each retransmission of the request; after the last one
            the client gives up.
        packet_intervals: The same for its last packet.
        retransmits_packets: False if the client only waits during `packet_intervals`.
        intervals_per: `packet` if each packet has all intervals, `transfer` if they are counted
            over the whole transfer.
        on_duplicate: Reaction to a DATA that it already has: `ack` it, `ack-last` (the last block
            if the duplicate is that block), `always-ack-last`, `ack-last-once`, `ignore` or
            `hang`.
        on_gap: Reaction to a DATA after the next block: `ack-last`, `ack-last-once`, `ignore`
            or `fail`.
        on_late_oack: Reaction to an OACK after the first DATA: `ignore`, `ack`, `restart` at
            block 0 or `fail`; with `hang` any second OACK makes it hang.
        on_old_ack: Reaction of an upload to an ACK of another block: `ignore` or `resend`.
        rejects: Errors of an OACK and the ERROR that ends the transfer: `unrequested`, `larger`,
            `timeout` (a different value), `empty` (tsize 0).
        requires_oack: The transfer does not start without an OACK.
        tid: `first` for the port of the first reply, `any` for all ports of the server.
        silent_intervals: Number of the first packet intervals without a retransmission.
        ack_bytes: Length of ACK packets; 4 without padding.
    """

    request_intervals: tuple[float, ...] = (5.0,) * 5
    packet_intervals: tuple[float, ...] = (5.0,) * 5
    retransmits_packets: bool = True
    intervals_per: str = "packet"
    on_duplicate: str = "ack"
    on_gap: str = "ignore"
    on_late_oack: str = "ignore"
    on_old_ack: str = "ignore"
    rejects: dict[str, str] = field(default_factory=dict)
    requires_oack: bool = False
    tid: str = "first"
    silent_intervals: int = 0
    ack_bytes: int = 4


@dataclass(frozen=True, slots=True)
class Step:
    """One request.

    Attributes:
        port: Port of the client.
        request: The datagram.
        profile: Name of the profile that the server chooses.
        after: Seconds since the previous request; None if the client waits for the end of all
            transfers.
        gets_error: The transfer ends with an ERROR of the server.
        abort: ERROR with which the client ends the transfer.
        abort_at: Packet of the server after which the client sends `abort`.
    """

    port: int
    request: bytes
    profile: str
    after: float | None
    gets_error: bool = False
    abort: bytes | None = None
    abort_at: str = ""

    @property
    def writes(self) -> bool:
        """True for an upload."""
        return packets.opcode(self.request) == "WRQ"

    @property
    def name(self) -> bytes:
        """Requested name."""
        return packets.strings(self.request)[0]

    @property
    def text(self) -> bool:
        """True for a transfer in netascii."""
        return packets.strings(self.request)[1].lower() == b"netascii"


@dataclass(frozen=True, slots=True)
class Family:
    """A client and its boot.

    Attributes:
        key: Name of the file without its suffix.
        client: Description of the client.
        sources: Source of each fact.
        files: Files of the server with their sizes.
        uploads: Files of the client with their sizes.
        names: Files by the requested names that differ from theirs.
        settings: Keys of the configuration besides the directory.
        broadcast: The client broadcasts its requests.
        min_complete: Of twelve boots so many complete at least, by the loss in percent.
        fatal_losses: Packets without which a boot fails.
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
    min_complete: dict[int, int] = field(default_factory=dict)
    fatal_losses: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.key

    def file(self, step: Step) -> str:
        """Return the name of the file that a step transfers."""
        requested = step.name.decode("latin-1")
        plain = "/".join(part for part in re.split(r"[\\/]", requested) if part)
        return self.names.get(requested, plain)

    def content(self, step: Step) -> bytes:
        """Return the content of that file."""
        name = self.file(step)
        return content(name, (self.uploads if step.writes else self.files)[name], step.text)

    def wire(self, step: Step) -> bytes:
        """Return the content of that file in the transfer mode of the step."""
        data = self.content(step)
        return data.replace(b"\n", b"\r\n") if step.text else data


def content(name: str, size: int, text: bool = False) -> bytes:
    """Return the content of a file; no two blocks are equal, except in text."""
    if text:
        return (b"a line of %s\n" % name.encode() * size)[: size - 1] + b"\n"
    return Random(name).randbytes(size)


def load_families() -> list[Family]:
    """Return all families in the order of their names."""
    return [load_family(path) for path in sorted(FAMILIES.glob("*.yaml"))]


def load_family(path: Path) -> Family:
    """Load the file of a family; raises `ValueError` for an invalid line."""
    document = yaml.safe_load(path.read_text())
    lines = tuple(document["trace"].splitlines())
    keys = {entry.name for entry in fields(Family)} - {"key", "habits", "trace", "steps"}
    if unknown := set(document) - keys - {"habits", "trace"}:
        raise ValueError(f"{path.name}: {unknown}")
    return Family(
        key=path.stem,
        habits=_habits(document.get("habits", {})),
        trace=lines,
        steps=tuple(_steps(lines)),
        **{name: document[name] for name in keys & set(document)},
    )


def parse_line(line: str) -> tuple[str | None, int, str, str, str | None]:
    """Return the milliseconds, port, direction, packet and profile of a line."""
    match = _LINE.fullmatch(line.strip())
    if match is None:
        raise ValueError(f"invalid line of a trace: {line}")
    after, port, direction, packet, profile = match.groups()
    return after, int(port), direction, packet, profile


def _habits(document: dict[str, Any]) -> Habits:
    intervals = {
        key: tuple(_seconds(document[key]))
        for key in ("request_intervals", "packet_intervals")
        if key in document
    }
    return Habits(**document | intervals)


def _seconds(intervals: list[Any]) -> list[float]:
    """Expand a list of numbers and of `6 x 4` (six times 4 seconds)."""
    seconds: list[float] = []
    for interval in intervals:
        count, _, duration = str(interval).rpartition(" x ")
        seconds += [float(duration)] * int(count or 1)
    return seconds


def _steps(lines: tuple[str, ...]) -> list[Step]:
    steps: list[Step] = []
    last_received: dict[int, tuple[int, str]] = {}  # by port: index of the step, and packet
    for line in lines:
        if line.strip() == MORE:
            continue
        after, port, direction, packet, profile = parse_line(line)
        if packet.split()[0] in packets.REQUESTS:
            if profile is None:
                raise ValueError(f"no profile: {line}")
            last_received[port] = len(steps), ""
            delay = None if after is None else int(after) / 1000
            steps.append(Step(port, packets.from_text(packet), profile, delay))
            continue
        index, last = last_received[port]
        step = steps[index]
        if direction == "<":
            last_received[port] = index, packet
            if packet.startswith("ERROR"):
                steps[index] = replace(step, gets_error=True)
        elif packet.startswith("ERROR"):
            # The client aborts after an OACK with any options, or after one certain DATA.
            trigger = last if last.startswith("DATA") else last.split()[0]
            steps[index] = replace(step, abort=packets.from_text(packet), abort_at=trigger)
    return steps
