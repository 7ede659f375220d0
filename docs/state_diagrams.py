"""Draw the state diagrams of the protocol: explore the real machines and write what they do.

    python docs/state_diagrams.py docs/explanation

Each machine gets each kind of event in each state that it can reach with a file of a few blocks.
A transition of the picture is one that a machine has made. An event that changes no state and
causes no packet is not drawn.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from html import escape
from math import inf
from pathlib import Path
from textwrap import wrap
from typing import Any, Protocol

from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.negotiation import Direction, TransferOptions
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Packet, Rrq, Wrq, decode
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.request import RequestMachine, TransferRequest
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer
from tftpd.protocol.sender import Sender

_BLKSIZE = 32 << 10  # with it a sender keeps two windows, so that a short file has all states
_WINDOWSIZE = 2
_N_BLOCKS = 6
_TRANSIT_SECONDS = 0.001
_ROUND_TRIP_SECONDS = 1.0  # longer than the time after which an ACK may answer the last packet
_OACK = ((b"tsize", b"0"),)

_ERROR = ErrorPacket(ErrorCode.DISK_FULL, "")
_ERROR_8 = ErrorPacket(ErrorCode.OPTION_REFUSED, "")


Events = dict[str, list[str]]
"""Packets that are sent after each event."""


class End(Protocol):
    """A machine with its driver: what its state is, which events exist, and what it sends."""

    machine: Any

    @property
    def state(self) -> str:
        """Name of the state, unless the machine is closed."""

    def events(self) -> Mapping[str, Callable[[float], None]]:
        """Return the events that can happen now; each takes the time."""

    def sent(self, now: float) -> list[str]:
        """Let the machine send, and return a description of each packet."""


def _timer() -> RetransmitTimer:
    return RetransmitTimer(RetransmitPolicy(), uniform=lambda: 0.0)


def _packets(machine: Any, packets: Mapping[str, Packet]) -> dict[str, Callable[[float], None]]:
    def receive(packet: Packet) -> Callable[[float], None]:
        return lambda now: machine.receive(packet, now)

    return {name: receive(packet) for name, packet in packets.items()}


class SenderDriver:
    """A sender and its file. `has_oack` is False for a request without options."""

    def __init__(self, has_oack: bool) -> None:
        oack = _OACK if has_oack else ()
        tsize = _N_BLOCKS if has_oack else None
        options = TransferOptions(blksize=_BLKSIZE, windowsize=_WINDOWSIZE, tsize=tsize, oack=oack)
        self.machine = Sender(options, _timer(), 0.0)
        self.read = 0
        self.highest = 0

    @property
    def state(self) -> str:
        """Name of the state."""
        if self.machine._oack_unacked:
            return "waiting for ACK 0"
        if self.machine.is_finishing:
            return "last block sent"
        return "sending" if self.machine._ready else "reading the file"

    def events(self) -> dict[str, Callable[[float], None]]:
        """Return the events that can happen now."""
        machine = self.machine
        acks: dict[str, Packet] = {"ERROR": _ERROR}
        unacked = self.highest - machine.blocks
        if machine.options.has_tsize and not machine.blocks:
            acks["ERROR 8 instead of ACK 1, after tsize"] = _ERROR_8
        if self.state == "waiting for ACK 0":
            acks["ACK 0"] = Ack(0)
        elif unacked:
            is_end = self.state == "last block sent"
            acks["ACK of the last block" if is_end else "ACK of the window"] = Ack(self.highest)
            acks["ACK of the block before"] = Ack(machine.blocks)
        if unacked > 1:
            acks["ACK from the middle of the window"] = Ack(machine.blocks + 1)
        events = _packets(machine, acks)
        events["request again"] = machine.on_request_repeated
        wanted = min(machine.blocks_wanted, _N_BLOCKS - self.read)
        if wanted:
            events["blocks read"] = lambda now: self._deliver(wanted)
        return events

    def sent(self, now: float) -> list[str]:
        """Return what the sender sends."""
        found = []
        while (output := self.machine.next_send(now)) is not None:
            if isinstance(output, tuple):
                first, count = output
                found.append("window again" if first <= self.highest else "next window")
                self.highest = max(first + count - 1, self.highest)
            else:
                found.append(_describe(output, again=self.machine.retransmits > 0))
        return found

    def _deliver(self, count: int) -> None:
        self.read += count
        self.machine.blocks_ready(count, 1 if self.read == _N_BLOCKS else None)


class ReceiverDriver:
    """A receiver whose driver stores the file."""

    def __init__(self, has_oack: bool) -> None:
        oack = _OACK if has_oack else ()
        options = TransferOptions(blksize=8, windowsize=_WINDOWSIZE, oack=oack)
        self.machine = Receiver(options, _timer(), 0.0)
        self.acked = -1

    @property
    def state(self) -> str:
        """Name of the state."""
        if self.machine.outcome is Outcome.DONE:
            return "dallying"
        if self.machine.complete:
            return "storing the file"
        return "receiving" if self.machine.blocks else "waiting for the first block"

    def events(self) -> dict[str, Callable[[float], None]]:
        """Return the events that can happen now."""
        machine = self.machine
        following = machine.blocks + 1
        packets: dict[str, Packet] = {"ERROR": _ERROR}
        if not machine.complete:
            if following < _N_BLOCKS:
                is_end = following >= machine._ack_at_index
                packets["DATA that fills the window" if is_end else "next DATA"] = Data(
                    following, bytes(8)
                )
            packets["short DATA"] = Data(following, b"")
            packets["DATA beyond a lost one"] = Data(following + 1, bytes(8))
            packets["DATA longer than blksize"] = Data(following, bytes(9))
        if machine.blocks:
            first = max(machine.blocks - _WINDOWSIZE + 1, 1)
            packets["DATA of the window again"] = Data(first, bytes(8))
        events = _packets(machine, packets)
        events["request again"] = machine.on_request_repeated
        if self.state == "storing the file":
            events["stored"] = machine.on_stored
        return events

    def sent(self, now: float) -> list[str]:
        """Return what the receiver sends."""
        self.machine.take_payloads()
        output = self.machine.next_send(now)
        if output is None:
            return []
        again = self.acked == self.machine.blocks
        self.acked = self.machine.blocks
        return [_describe(output, again)]


class RequestDriver:
    """The request of a client, with options or without."""

    def __init__(self, direction: Direction, has_options: bool) -> None:
        request = TransferRequest(direction, b"name", tsize=0, has_options=has_options)
        self.machine = RequestMachine(request, _timer(), 0.0, broadcast=False)
        self.last: bytes | None = None

    @property
    def state(self) -> str:
        """Name of the state."""
        if self.machine.accepted:
            return "answered: Receiver or Sender"
        if self.machine.fell_back:
            return "requesting again, without options"
        has_options = self.machine.request_packet.options
        return "requesting with options" if has_options else "requesting without options"

    def events(self) -> dict[str, Callable[[float], None]]:
        """Return the events that can happen now."""
        if self.machine.accepted:
            return {}
        packets: dict[str, Packet] = {
            "OACK": Oack(_OACK),
            "DATA 1": Data(1, b""),
            "ACK 0": Ack(0),
            "OACK with a wrong option": Oack(((b"blksize", b"9"),)),
            "ERROR": _ERROR,
            "ERROR 0/4/8": _ERROR_8,
        }
        return _packets(self.machine, packets)

    def sent(self, now: float) -> list[str]:
        """Return what the client sends."""
        found = []
        while (output := self.machine.next_send(now)) is not None:
            found.append(_describe(output, again=output == self.last))
            if isinstance(decode(output), (Rrq, Wrq)):
                self.last = output
        return found


def _describe(datagram: bytes, again: bool) -> str:
    match decode(datagram):
        case ErrorPacket() as error:
            return f"ERROR {error.code:d}"
        case Rrq() | Wrq() as request:
            text = "request with options" if request.options else "request without options"
        case Oack():
            text = "OACK"
        case Ack(0):
            text = "ACK 0"
        case _:
            text = "ACK"
    return f"{text} again" if again else text


@dataclass
class Diagram:
    """States in the order of a transfer, and the transitions between them.

    Attributes:
        states: Names of the states.
        starts: How a transfer starts, and its first state.
        moves: What is sent after an event, by the states before and after it.
        ends: What is sent after an event, by the state before it and the outcome.
    """

    states: list[str]
    starts: dict[str, str] = field(default_factory=dict)
    moves: dict[tuple[str, str], Events] = field(default_factory=dict)
    ends: dict[tuple[str, str], Events] = field(default_factory=dict)


def explore(states: Sequence[str], starts: Mapping[str, End]) -> Diagram:
    """Return what the machines do.

    Args:
        states: Names of the states, in the order of a transfer.
        starts: Machines in their first state, by how the transfer starts.

    Raises:
        ValueError: A machine reaches other states than the named ones.
    """
    diagram = Diagram(list(states))
    for name, end in starts.items():
        diagram.starts[_label(name, end.sent(0.0))] = end.state
    waiting = [(end, 0.0) for end in starts.values()]
    known = {_key(end) for end in starts.values()}
    reached = {end.state for end in starts.values()}
    for end, now in waiting:
        for event, after, then, sent in _steps(end, now):
            machine = after.machine
            target = machine.outcome.value if machine.closed else after.state
            if not machine.closed:
                reached.add(target)
                if _key(after) not in known:
                    known.add(_key(after))
                    waiting.append((after, then))
            if sent or end.state != target:
                edges = diagram.ends if machine.closed else diagram.moves
                found = edges.setdefault((end.state, target), {}).setdefault(event, [])
                found += [packet for packet in sent if packet not in found]
    if reached != set(states):
        raise ValueError(f"reached: {sorted(reached)}; named: {sorted(states)}")
    return diagram


def _steps(end: End, now: float) -> Iterator[tuple[str, End, float, list[str]]]:
    """Yield each event, the machine after it, the time, and what the machine sends."""
    packets = [*end.events()]
    always = ["deadline", "idle timeout", "ICMP error", "error of this host"]
    for event in [*packets, *always] if packets else ():
        after = deepcopy(end)
        machine = after.machine
        then = min(now + _ROUND_TRIP_SECONDS, machine.deadline)
        if event == "ICMP error":
            machine.on_refused()
        elif event == "error of this host":
            machine.abort(RequestRefused(ErrorCode.NOT_DEFINED, event))
        elif event in packets:
            after.events()[event](then)
        elif machine.deadline == inf or (event == "idle timeout" and machine.outcome):
            continue
        else:
            then = machine.deadline
            if event == "idle timeout":
                machine._progress_at = -inf
            machine.on_timeout(then)
            if event == "deadline" and machine.outcome is Outcome.TIMED_OUT:
                event = "deadline of the last repetition"
        yield event, after, then, after.sent(then)


def _key(end: End) -> tuple[object, ...]:
    """Return what distinguishes machines: no times, and no counts of repetitions."""
    values = vars(end.machine) | vars(end)
    return tuple(
        values[name]
        for name in sorted(values.keys() - {"retransmits", "timeouts"})
        if isinstance(values[name], bool | int | str | bytes | Outcome)
    )


def _label(event: str, sent: Sequence[str]) -> str:
    return f"{event} / {' or '.join(sent)}" if sent else event


def _lines(events: Events, width: int) -> list[str]:
    """Return the lines of a label: the events after which the same is sent stand together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for event, sent in events.items():
        groups.setdefault(tuple(sent), []).append(event)
    texts = [_label(", ".join(names), sent) for sent, names in groups.items()]
    return [line for text in texts for line in wrap(text, width)]


_LINE, _MARGIN = 17, 16  # pixels
_COLUMN, _BOX_LEFT, _BOX_WIDTH, _END_LEFT, _END_WIDTH = 145, 285, 330, 915, 120
_BOX_RIGHT = _BOX_LEFT + _BOX_WIDTH
_STYLE = (
    "text{font:13px sans-serif;fill:#222}.name{font-weight:bold}.end{text-anchor:middle}"
    ".start{font-style:italic}.left{text-anchor:end}path{fill:none;stroke:#555;marker-end:url(#arrow)}"
    ".state{fill:#e8f0f8;stroke:#1f6fb4}.good{fill:#e3f3e6;stroke:#2a7d3a}"
    ".bad{fill:#f9e7e4;stroke:#b03a2e}"
)
_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
    'markerHeight="8" orient="auto"><path style="fill:#555;stroke:none;marker-end:none" '
    'd="M0 0L8 4L0 8z"/></marker></defs>\n'
)


class Picture:
    """SVG of a diagram: states below each other, outcomes at the right, other moves at the left."""

    def __init__(self, title: str, diagram: Diagram) -> None:
        self._diagram = diagram
        self._parts: list[str] = []
        self._tops: dict[str, int] = {}
        self._bottoms: dict[str, int] = {}
        y, before = _MARGIN, ""
        for state in diagram.states:
            y = self._add_state(state, self._add_move_down(before, state, y) if before else y)
            before = state
        self._add_moves_at_the_left()
        width, height = _END_LEFT + _END_WIDTH + _MARGIN, y + _MARGIN
        self.svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="{escape(title)}">\n'
            f"<style>{_STYLE}</style>\n{_ARROW}"
            '<rect width="100%" height="100%" fill="#fff"/>\n'
            + "\n".join(self._parts)
            + "\n</svg>\n"
        )

    def _add_text(self, x: int, y: int, lines: Sequence[str], kind: str = "") -> None:
        self._parts += [
            f'<text class="{kind}" x="{x}" y="{y + at * _LINE}">{escape(line)}</text>'
            for at, line in enumerate(lines)
        ]

    def _add_box(self, place: tuple[int, int, int, int], kind: str, radius: int) -> None:
        x, y, width, height = place
        self._parts.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" '
            f'rx="{radius}"/>'
        )

    def _add_arrow(self, path: str) -> None:
        self._parts.append(f'<path d="{path}"/>')

    def _add_move_down(self, before: str, state: str, y: int) -> int:
        """Add the arrow to the next state, and return the top of that state."""
        lines = _lines(self._diagram.moves.get((before, state), {}), 46)
        bottom = y + _LINE * max(len(lines), 1) + 24
        if lines:
            self._add_text(_BOX_LEFT + 176, y + 29, lines)
            self._add_arrow(f"M{_BOX_LEFT + 165} {y}V{bottom - 2}")
        return bottom

    def _add_state(self, state: str, top: int) -> int:
        """Add the box of a state and its outcomes, and return its bottom."""
        starts = [name for name, first in self._diagram.starts.items() if first == state]
        inner = _lines(self._diagram.moves.get((state, state), {}), 50)
        ends = {
            outcome: _lines(events, 44)
            for (source, outcome), events in self._diagram.ends.items()
            if source == state
        }
        right = sum(_LINE * len(lines) + 18 for lines in ends.values()) + 8
        height = max(_LINE * (len(starts) + len(inner)) + 34, right, 60)
        self._tops[state], self._bottoms[state] = top, top + height
        self._add_box((_BOX_LEFT, top, _BOX_WIDTH, height), "state", 8)
        self._add_text(_BOX_LEFT + 12, top + 22, [state], "name")
        self._add_text(_BOX_LEFT + 12, top + 43, [f"\u25cf {name}" for name in starts], "start")
        self._add_text(_BOX_LEFT + 12, top + 43 + _LINE * len(starts), inner)
        y = top + 6
        for outcome, lines in ends.items():
            self._add_text(_BOX_RIGHT + 12, y + 14, lines)
            y += _LINE * len(lines)
            self._add_arrow(f"M{_BOX_RIGHT} {y + 4}H{_END_LEFT - 2}")
            kind = "good" if Outcome(outcome).successful else "bad"
            self._add_box((_END_LEFT, y - 9, _END_WIDTH, 26), kind, 13)
            self._add_text(_END_LEFT + _END_WIDTH // 2, y + 9, [outcome], "end")
            y += 18
        return top + height

    def _add_moves_at_the_left(self) -> None:
        """Add the moves to a state that is not the next one."""
        states = self._diagram.states
        n_columns = 0
        for (source, target), events in self._diagram.moves.items():
            if states.index(target) - states.index(source) in (0, 1):
                continue
            x = _BOX_LEFT - 14 - n_columns * _COLUMN
            leave, arrive = self._bottoms[source] - 10, self._tops[target] + 14 + n_columns * 14
            self._add_arrow(f"M{_BOX_LEFT} {leave}H{x}V{arrive}H{_BOX_LEFT - 2}")
            self._add_text(x - 6, (leave + arrive) // 2, _lines(events, 19), "left")
            n_columns += 1


def pictures() -> dict[str, str]:
    """Return the SVG of each machine by the name of its file."""
    diagrams = {
        "sender": explore(
            ["waiting for ACK 0", "reading the file", "sending", "last block sent"],
            {"RRQ with options": SenderDriver(True), "RRQ": SenderDriver(False)},
        ),
        "receiver": explore(
            ["waiting for the first block", "receiving", "storing the file", "dallying"],
            {"WRQ": ReceiverDriver(False), "WRQ with options": ReceiverDriver(True)},
        ),
        "request": explore(
            [
                "requesting with options",
                "requesting again, without options",
                "requesting without options",
                "answered: Receiver or Sender",
            ],
            {
                "read": RequestDriver(Direction.READ, True),
                "write": RequestDriver(Direction.WRITE, True),
                "read without options": RequestDriver(Direction.READ, False),
                "write without options": RequestDriver(Direction.WRITE, False),
            },
        ),
    }
    return {
        f"{name}-states.svg": Picture(f"States of the {name}", diagram).svg
        for name, diagram in diagrams.items()
    }


if __name__ == "__main__":
    for file, svg in pictures().items():
        (Path(sys.argv[1]) / file).write_text(svg)
