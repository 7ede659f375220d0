"""Snapshots of the running sessions."""

import json

import pytest

from tests.support.fakes import MemoryServer
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.packets import Ack, Data, Rrq, Wrq
from tftpd.server.admission import DropReason
from tftpd.server.snapshot import (
    MAX_SESSIONS,
    SNAPSHOT_ADAPTER,
    SessionSnapshot,
    SessionState,
    Snapshot,
    WorkerState,
    merge_snapshots,
    snapshot,
)

READ, WRITE = Direction.READ, Direction.WRITE


def _taken(server):
    return snapshot(server.sessions, {}, server.net.clock.seconds(), {})


def test_a_snapshot_describes_a_read_from_its_first_packet(offer):
    server = MemoryServer(offer)
    client = server.client()
    client.request(Rrq(b"kilo", b"octet", ((b"blksize", b"500"),)))
    server.advance(2)
    (one,) = _taken(server).running
    assert one.state is SessionState.OPENING
    assert (one.size, one.bytes_transferred, one.blocks) == (1024, 0, 0)
    assert one.retransmits > 0
    client.send(Ack(0), Ack(1))
    server.advance(3)
    taken = _taken(server)
    (one,) = taken.running
    assert one == SessionSnapshot(
        READ,
        ("192.0.2.7", 2070),
        b"kilo",
        SessionState.RUNNING,
        bytes_transferred=500,
        size=1024,
        blocks=1,
        blksize=500,
        retransmits=one.retransmits,
        age=one.age,
        idle=one.idle,
        rtt=0.0,
    )
    assert (round(one.age), round(one.idle)) == (5, 3)
    assert taken.sessions == {READ: {SessionState.RUNNING: 1}}
    assert taken.bytes_transferred == {READ: 500}


def test_a_stored_upload_dallies_and_its_bytes_are_not_counted_twice(offer):
    server = MemoryServer(offer)
    client = server.client()
    client.request(Wrq(b"in/new", b"octet"))
    client.send(Data(1, b"x" * 100))
    taken = _taken(server)
    assert [one.state for one in taken.running] == [SessionState.DALLYING]
    assert taken.sessions == {WRITE: {SessionState.DALLYING: 1}}
    assert sum(taken.bytes_transferred.values()) == 0


def test_a_snapshot_describes_the_most_idle_sessions_only():
    sessions = [
        SessionSnapshot(READ, ("a", n), b"", SessionState.RUNNING, idle=n)
        for n in range(MAX_SESSIONS)
    ]
    taken = merge_snapshots([Snapshot(tuple(sessions)), Snapshot(tuple(sessions))])
    assert len(taken.running) == MAX_SESSIONS
    assert min(one.idle for one in taken.running) == MAX_SESSIONS / 2


def test_snapshots_of_several_processes_are_merged():
    one = Snapshot(
        (),
        {READ: {SessionState.RUNNING: 1}},
        {READ: 5},
        {DropReason.SESSION_LIMIT: 2},
        (WorkerState(0, 9, 1, True),),
    )
    other = Snapshot(
        (), {READ: {SessionState.RUNNING: 3}}, {WRITE: 7}, {}, (WorkerState(1, None, 0, False),)
    )
    assert merge_snapshots([one, other]) == Snapshot(
        (),
        {READ: {SessionState.RUNNING: 4}},
        {READ: 5, WRITE: 7},
        {DropReason.SESSION_LIMIT: 2},
        (WorkerState(0, 9, 1, True), WorkerState(1, None, 0, False)),
    )


def test_a_snapshot_that_is_not_valid_is_refused():
    plain = SNAPSHOT_ADAPTER.dump_python(Snapshot(), mode="json")
    with pytest.raises(ValueError, match="drops"):
        SNAPSHOT_ADAPTER.validate_python(plain | {"drops": {"unknown": 1}})


def test_a_snapshot_can_be_sent_as_json():
    running = SessionSnapshot(
        WRITE,
        ("fe80::1%eth0", 9),
        bytes(range(256)),
        SessionState.OPENING,
        1 << 40,
        None,
        rtt=0.5,
        profile="grub",
    )
    said = Snapshot(
        (running,), {READ: {SessionState.DALLYING: 2}}, {WRITE: 3}, {DropReason.MALFORMED: 4}
    )
    plain = SNAPSHOT_ADAPTER.dump_python(said, mode="json")
    assert SNAPSHOT_ADAPTER.validate_python(json.loads(json.dumps(plain))) == said
