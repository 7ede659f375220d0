"""What is known, as JSON objects."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import tftpd
from tftpd.access.paths import printable_name
from tftpd.protocol.negotiation import Direction
from tftpd.server.snapshot import SessionSnapshot, SessionState, Snapshot
from tftpd.status.boots import Boots, BootStep, Ended, History, blocks_of, cut, short, verdict
from tftpd.status.counters import WAYS
from tftpd.status.file_kinds import kind


@dataclass(frozen=True, slots=True)
class About:
    """What does not change while the daemon runs. `started` is on the history's clock."""

    started: float
    settings: str | None
    listeners: tuple[str, ...]


def status(
    about: About,
    state: str,
    snapshot: Snapshot,
    history: History,
    names: Mapping[str, int],
    since: int = 0,
) -> dict[str, Any]:
    """All of it. With `since`, a `number` of an earlier answer, only what ended after that.

    `names` counts the files that were found by another name, as `Counts` does.
    """
    now = history.seconds()
    running: dict[str, list[SessionSnapshot]] = defaultdict(list)
    for one in snapshot.running:
        running[one.peer[0]].append(one)
    boots = history.clients.boots
    none = Boots()
    hosts = [host for host in boots if boots[host].changed > since or host in running]
    hosts += [host for host in running if host not in boots]
    return {
        "version": tftpd.__version__,
        "state": state,
        "uptime": round(now - about.started, 1),
        "settings": about.settings,
        "listeners": about.listeners,
        "workers": [asdict(worker) for worker in snapshot.workers],
        "number": history.number,
        "sessions": {
            way.value: {each.value: snapshot.sessions.get((way, each), 0) for each in SessionState}
            for way in Direction
        },
        "names": {way: names[way] for way in WAYS},
        "running": [_running(one) for one in snapshot.running],
        "ended": [_ended(one) for one in history.ended if one.number > since],
        "clients": [_client(host, boots.get(host, none), running[host], now) for host in hosts],
    }


def _running(one: SessionSnapshot) -> dict[str, Any]:
    return {
        "client": one.peer[0],
        "port": one.peer[1],
        "direction": one.direction.value,
        "file": short(one.filename),
        "kind": kind(one.filename, one.direction).value,
        "state": one.state.value,
        "octets": one.bytes_transferred,
        "size": one.size,
        "percent": _percent(one),
        "block": one.blocks,
        "blocks": blocks_of(one.size, one.blksize),
        "rate": round(one.bytes_transferred / one.age) if one.age > 0 else 0,
        "blksize": one.blksize,
        "windowsize": one.windowsize,
        "retransmits": one.retransmits,
        "age": round(one.age, 3),
        "idle": round(one.idle, 3),
        "roundtrip": one.rtt,
        "profile": one.profile or None,
    }


def _percent(one: SessionSnapshot) -> float | None:
    if one.size is None:
        return None
    # An upload may be longer than what was announced.
    return round(min(100.0, 100 * one.bytes_transferred / one.size), 1) if one.size else 100.0


def _ended(one: Ended) -> dict[str, Any]:
    report = one.report
    return {
        "number": one.number,
        "time": datetime.fromtimestamp(one.at, UTC).isoformat(timespec="milliseconds"),
        "client": report.peer[0],
        "port": report.peer[1],
        "direction": report.direction.value,
        "file": short(report.filename),
        "served": None if report.served_name is None else short(report.served_name),
        "served_by": report.resolution_steps,
        "outcome": report.outcome.value,
        "good": report.outcome.successful,
        "code": report.code,
        "detail": cut(printable_name(report.detail.encode("utf-8", "surrogateescape"))),
        "mode": report.mode.value.decode() if report.mode else None,
        "octets": report.bytes_transferred,
        "size": report.size,
        "block": report.blocks,
        "seconds": round(report.seconds, 6),
        "rate": round(report.rate),
        "blksize": report.blksize,
        "windowsize": report.windowsize,
        "options": report.options,
        "retransmits": report.retransmits,
        "timeouts": report.timeouts,
        "roundtrip": report.rtt,
        "profile": report.profile or None,
    }


def _client(
    host: str, boots: Boots, running: Sequence[SessionSnapshot], now: float
) -> dict[str, Any]:
    said = verdict(boots.steps, running)
    heard = min(
        [now - step.ended for step in boots.steps[-1:]] + [one.idle for one in running], default=0.0
    )
    return {
        "client": host,
        "number": boots.changed,
        "verdict": said.word.value,
        "text": said.text,
        "heard": round(max(0.0, heard), 1),
        "boots": boots.count,
        "before": boots.before.text if boots.before else None,
        "steps": [_step(step, boots.steps[0].began, now) for step in boots.steps],
    }


def _step(step: BootStep, began: float, now: float) -> dict[str, Any]:
    return {
        "kind": step.kind.value,
        "file": step.name,
        "files": step.names,
        "count": step.count,
        "outcome": step.outcome.value,
        "good": step.outcome.successful,
        "code": step.code,
        "detail": step.detail,
        "octets": step.bytes_transferred,
        "at": round(max(0.0, step.began - began), 3),
        "seconds": round(step.ended - step.began, 3),
        "ago": round(now - step.ended, 1),
    }
