"""What runs, as values."""

import json

from tests.support.fakes import MemoryServer
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.packets import Ack, Data, Rrq, Wrq
from tftpd.server.admission import Discard
from tftpd.server.snapshot import (
    MOST,
    Running,
    Snapshot,
    State,
    WorkerState,
    from_plain,
    snapshot,
    to_plain,
    together,
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
    assert one.state is State.OPENING
    assert (one.size, one.octets, one.blocks) == (1024, 0, 0)
    assert one.retransmits > 0
    client.says(Ack(0), Ack(1))
    server.waits(3)
    taken = _taken(server)
    (one,) = taken.running
    assert one == Running(
        READ,
        ("192.0.2.7", 2070),
        b"kilo",
        State.RUNNING,
        octets=500,
        size=1024,
        blocks=1,
        blksize=500,
        retransmits=one.retransmits,
        age=one.age,
        idle=one.idle,
        roundtrip=0.0,
    )
    assert (round(one.age), round(one.idle)) == (5, 3)
    assert taken.sessions == {(READ, State.RUNNING): 1}
    assert taken.octets == {READ: 500}


def test_an_upload_that_is_stored_dallies_and_its_octets_are_the_reports(offer):
    server = MemoryServer(offer)
    client = server.client()
    client.asks(Wrq(b"in/new", b"octet"))
    client.says(Data(1, b"x" * 100))
    taken = _taken(server)
    assert [one.state for one in taken.running] == [State.DALLYING]
    assert taken.sessions == {(WRITE, State.DALLYING): 1}
    assert sum(taken.octets.values()) == 0


def test_only_so_many_are_described_those_that_stand_still_first():
    crowd = [Running(READ, ("a", n), b"", State.RUNNING, idle=n) for n in range(MOST)]
    taken = together([Snapshot(tuple(crowd)), Snapshot(tuple(crowd))])
    assert len(taken.running) == MOST
    assert min(one.idle for one in taken.running) == MOST / 2


def test_snapshots_add_up():
    one = Snapshot(
        (),
        {(READ, State.RUNNING): 1},
        {READ: 5},
        {Discard.NO_PLACE: 2},
        (WorkerState(0, 9, 1, True),),
    )
    other = Snapshot(
        (), {(READ, State.RUNNING): 3}, {WRITE: 7}, {}, (WorkerState(1, None, 0, False),)
    )
    assert together([one, other]) == Snapshot(
        (),
        {(READ, State.RUNNING): 4},
        {READ: 5, WRITE: 7},
        {Discard.NO_PLACE: 2},
        (WorkerState(0, 9, 1, True), WorkerState(1, None, 0, False)),
    )


def test_a_snapshot_goes_over_a_pipe():
    running = Running(
        WRITE,
        ("fe80::1%eth0", 9),
        bytes(range(256)),
        State.OPENING,
        1 << 40,
        None,
        roundtrip=0.5,
        profile="grub",
    )
    said = Snapshot((running,), {(READ, State.DALLYING): 2}, {WRITE: 3}, {Discard.MALFORMED: 4})
    assert from_plain(json.loads(json.dumps(to_plain(said)))) == said
