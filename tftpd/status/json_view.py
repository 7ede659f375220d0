"""The JSON view of the status, for the page and for programs."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import TransferResult, TransferStart
from tftpd.server.snapshot import SessionSnapshot, SessionState, Snapshot
from tftpd.status import boots
from tftpd.status.file_kinds import classify
from tftpd.status.history import MAX_ENDED, EndedRequest, History
from tftpd.status.uploads import format_time

Identify = Callable[[str, boots.ClientHistory], None]
"""Sets the MAC address and the host name of the client with this address, if they are known."""


def requests_to_json(
    snapshot: Snapshot, history: History, since: int = 0, identify: Identify = lambda *_: None
) -> dict[str, Any]:
    """Return the part of the status about sessions, requests and clients.

    Args:
        snapshot: The running sessions.
        history: The requests that ended.
        since: The `number` of an earlier answer. Only later changes are included.
        identify: Sets the MAC address and the host name of clients whose MAC address is unknown.
    """
    now = history.seconds()
    running: dict[str, list[SessionSnapshot]] = defaultdict(list)
    for session in snapshot.running:
        running[session.peer[0]].append(session)
    new = {host: boots.ClientHistory() for host in running if host not in history.clients}
    clients = {
        host: client
        for host, client in (*history.clients.items(), *new.items())
        if client.changed > since or host in running
    }
    for host, client in clients.items():
        if client.mac is None:
            identify(host, client)
    return {
        "workers": [asdict(worker) for worker in snapshot.workers],
        "number": history.number,
        "sessions": {
            direction.value: {
                state.value: snapshot.sessions.get(direction, {}).get(state, 0)
                for state in SessionState
            }
            for direction in Direction
        },
        "running": [running_to_json(session) for session in snapshot.running],
        "ended": [ended for ended in ended_to_json(history) if ended["number"] > since],
        "clients": [
            _client_to_json(host, client, running[host], now) for host, client in clients.items()
        ],
        "uploads": [
            {"client": host, "file": name, **asdict(upload)}
            for host, files in history.uploads.clients.items()
            for name, upload in files.items()
            if upload.number > since
        ],
    }


def ended_to_json(history: History) -> list[dict[str, Any]]:
    """Return the last requests that ended, also those before the last start."""
    return [*history.restored, *map(_ended_to_json, history.ended)][-MAX_ENDED:]


def running_to_json(session: SessionSnapshot) -> dict[str, Any]:
    """Return a session, with the keys of the status page."""
    size, n_bytes = session.size, session.bytes_transferred
    percent = None
    if size is not None:
        # An upload may be larger than its tsize option.
        percent = round(min(100.0, 100 * n_bytes / size), 1) if size else 100.0
    return {
        "client": session.peer[0],
        "port": session.peer[1],
        "direction": session.direction.value,
        "file": boots.short_name(session.filename),
        "kind": classify(session.filename, session.direction).value,
        "state": session.state.value,
        "bytes": n_bytes,
        "size": size,
        "percent": percent,
        "block": session.blocks,
        "blocks": boots.count_blocks(size, session.blksize),
        "rate": round(n_bytes / session.age) if session.age > 0 else 0,
        "blksize": session.blksize,
        "windowsize": session.windowsize,
        "retransmits": session.retransmits,
        "age": round(session.age, 3),
        "idle": round(session.idle, 3),
        "rtt": session.rtt,
        "profile": session.profile or None,
    }


def result_to_json(result: TransferResult, shorten: Callable[[bytes], str]) -> dict[str, Any]:
    """Return the keys that the access log and the status page have in common.

    Args:
        result: The result of a request.
        shorten: Returns printable text of bounded length.
    """
    cache: dict[str, Any] = {}
    if result.cache_age is not None:
        cache = {"cache_state": result.cache_state, "cache_age": round(result.cache_age, 3)}
    checksum = {"sha256": result.sha256} if result.sha256 else {}
    return _request_to_json(result, shorten) | {
        "resolution_steps": result.resolution_steps,
        "outcome": result.outcome.value,
        "code": result.code,
        "status": result.status,
        "detail": shorten(result.detail.encode("utf-8", "surrogateescape")),
        "mode": result.mode.value.decode() if result.mode else None,
        "bytes": result.bytes_transferred,
        "seconds": round(result.seconds, 6),
        "rate": round(result.rate),
        "blksize": result.blksize,
        "windowsize": result.windowsize,
        "retransmits": result.retransmits,
        "profile": result.profile or None,
        "first_block": result.first_block,
        **cache,
        **checksum,
    }


def _request_to_json(
    source: TransferResult | TransferStart, shorten: Callable[[bytes], str]
) -> dict[str, Any]:
    """Return the values that are known from the request on."""
    return {
        "client": source.peer[0],
        "port": source.peer[1],
        "protocol": source.protocol,
        "direction": source.direction.value,
        "file": shorten(source.filename),
        "served_name": None if source.served_name is None else shorten(source.served_name),
    }


def start_to_json(start: TransferStart, shorten: Callable[[bytes], str]) -> dict[str, Any]:
    """Return the values of a transfer that has started, with the keys of `result_to_json`."""
    return _request_to_json(start, shorten) | {
        "resolution_steps": ", ".join(start.resolution_steps),
        "mode": start.mode.value.decode() if start.mode else None,
        "size": start.size,
        "blksize": start.blksize,
        "windowsize": start.windowsize,
        "profile": start.profile or None,
    }


def _ended_to_json(ended: EndedRequest) -> dict[str, Any]:
    result = ended.result
    return {
        "number": ended.number,
        "time": format_time(ended.time),
        **result_to_json(result, boots.short_name),
        "successful": result.outcome.successful,
        "size": result.size,
        "block": result.blocks,
        "options": result.options,
        "timeouts": result.timeouts,
        "rtt": result.rtt,
    }


def _client_to_json(
    host: str, client: boots.ClientHistory, running: Sequence[SessionSnapshot], now: float
) -> dict[str, Any]:
    verdict = boots.judge(client.steps, running)
    idle_times = [now - step.ended for step in client.steps[-1:]]
    idle_times += [session.idle for session in running]
    return {
        "client": host,
        "mac": client.mac,
        "hostname": client.hostname,
        "number": client.changed,
        "verdict": verdict.code.value,
        "text": verdict.text,
        "idle": round(max(0.0, min(idle_times, default=0.0)), 1),
        "boots": client.boots,
        "previous_boot": client.previous.text if client.previous else None,
        "steps": [_step_to_json(step, client.steps[0].began, now) for step in client.steps],
    }


def _step_to_json(step: boots.BootStep, boot_began: float, now: float) -> dict[str, Any]:
    return {
        "kind": step.kind.value,
        "file": step.name,
        "files": step.names,
        "count": step.count,
        "outcome": step.outcome.value,
        "successful": step.outcome.successful,
        "code": step.code,
        "detail": step.detail,
        "bytes": step.bytes_transferred,
        "offset": round(max(0.0, step.began - boot_began), 3),
        "seconds": round(step.ended - step.began, 3),
        "ago": round(now - step.ended, 1),
    }
