"""What runs, as values."""

import json

from tests.support.fakes import MemoryServer
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.packets import Ack, Data, Rrq, Wrq
from tftpd.server.admission import DropReason
from tftpd.server.snapshot import (
    MAX_SESSIONS,
    SessionSnapshot,
    SessionState,
    Snapshot,
    WorkerState,
    from_plain,
    merge_snapshots,
    snapshot,
    to_plain,
)

READ, WRITE = Direction.READ, Direction.WRITE


def _taken(server):
    return snapshot(server.sessions, {}, server.net.clock.seconds())


def test_a_read_from_its_first_packet_on(offer):
    server = MemoryServer(offer)
    client = server.client()
    client.asks(Rrq(b"kilo", b"octet", ((b"blksize", b"500"),)))
    server.waits(2)
    (one,) = _taken(server).running
    assert one.state is SessionState.OPENING
    assert (one.size, one.bytes_transferred, one.blocks) == (1024, 0, 0)
    assert one.retransmits > 0
    client.says(Ack(0), Ack(1))
    server.waits(3)
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
    assert taken.sessions == {(READ, SessionState.RUNNING): 1}
    assert taken.bytes_transferred == {READ: 500}


def test_an_upload_that_is_stored_dallies_and_its_octets_are_the_reports(offer):
    server = MemoryServer(offer)
    client = server.client()
    client.asks(Wrq(b"in/new", b"octet"))
    client.says(Data(1, b"x" * 100))
    taken = _taken(server)
    assert [one.state for one in taken.running] == [SessionState.DALLYING]
    assert taken.sessions == {(WRITE, SessionState.DALLYING): 1}
    assert sum(taken.bytes_transferred.values()) == 0


def test_only_so_many_are_described_those_that_stand_still_first():
    crowd = [
        SessionSnapshot(READ, ("a", n), b"", SessionState.RUNNING, idle=n)
        for n in range(MAX_SESSIONS)
    ]
    taken = merge_snapshots([Snapshot(tuple(crowd)), Snapshot(tuple(crowd))])
    assert len(taken.running) == MAX_SESSIONS
    assert min(one.idle for one in taken.running) == MAX_SESSIONS / 2


def test_snapshots_add_up():
    one = Snapshot(
        (),
        {(READ, SessionState.RUNNING): 1},
        {READ: 5},
        {DropReason.NO_PLACE: 2},
        (WorkerState(0, 9, 1, True),),
    )
    other = Snapshot(
        (), {(READ, SessionState.RUNNING): 3}, {WRITE: 7}, {}, (WorkerState(1, None, 0, False),)
    )
    assert merge_snapshots([one, other]) == Snapshot(
        (),
        {(READ, SessionState.RUNNING): 4},
        {READ: 5, WRITE: 7},
        {DropReason.NO_PLACE: 2},
        (WorkerState(0, 9, 1, True), WorkerState(1, None, 0, False)),
    )


def test_a_snapshot_goes_over_a_pipe():
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
        (running,), {(READ, SessionState.DALLYING): 2}, {WRITE: 3}, {DropReason.MALFORMED: 4}
    )
    assert from_plain(json.loads(json.dumps(to_plain(said)))) == said
