"""From the requests of a client to what became of its boot."""

import pytest

from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.snapshot import SessionSnapshot, SessionState
from tftpd.status.boots import MOST_CLIENTS, Boots, Clients, VerdictCode, verdict

PEER = ("10.0.0.7", 2070)
READ = Direction.READ


def _got(name, **more):
    how = {"outcome": Outcome.DONE, "octets": 1000, "size": 1000, "blksize": 100, "blocks": 11}
    return TransferResult(READ, PEER, name.encode(), **(how | more))


def _probe(name):
    return _got(name, outcome=Outcome.PROBE, octets=0, blocks=0, code=0)


def _miss(name):
    return TransferResult(READ, PEER, name.encode(), Outcome.REFUSED, code=1, detail="No such file")


def _ended(name, outcome, **more):
    return _got(name, outcome=outcome, **({"octets": 300, "blocks": 3} | more))


def _stored(name):
    return TransferResult(Direction.WRITE, PEER, name.encode(), Outcome.DONE, bytes_transferred=1)


def _boots(*reports, each=0.1):
    boots = Boots()
    for number, report in enumerate(reports):
        boots.add(report, 100 + number * each)
    return boots


def _running(name, **more):
    how = {"state": SessionState.RUNNING, "octets": 430, "size": 1000, "blocks": 4, "blksize": 100}
    return SessionSnapshot(READ, PEER, name.encode(), **(how | more))


MISSES = [_miss(f"pxelinux.cfg/{'0A000007'[:n]}") for n in range(8, 0, -1)]
PXELINUX = [_probe("pxelinux.0"), _got("pxelinux.0"), _got("ldlinux.c32")]


@pytest.mark.parametrize(
    ("reports", "word", "text"),
    [
        (
            [_probe("shim.efi")],
            VerdictCode.PROBE_ONLY,
            "probe only: asked for the size of shim.efi",
        ),
        ([_miss("a.efi")], VerdictCode.NOT_FOUND, "not found only: a.efi"),
        ([_miss("a.efi"), _miss("b.cfg")], VerdictCode.NOT_FOUND, "not found only: 2 names"),
        ([_probe("a.0"), _miss("a.0")], VerdictCode.NOT_FOUND, "a.0 not found"),
        (
            [TransferResult(READ, PEER, b"a.0", Outcome.REFUSED, code=2, detail="a link")],
            VerdictCode.REFUSED,
            "a.0 refused: a link",
        ),
        (
            [*PXELINUX, *MISSES, _got("pxelinux.cfg/default"), _got("vmlinuz"), _got("initrd.gz")],
            VerdictCode.BOOTED,
            "booted",
        ),
        ([*PXELINUX, _got("vmlinuz"), _miss("extra.cfg")], VerdictCode.BOOTED, "booted"),
        ([_ended("uImage", Outcome.UNCONFIRMED)], VerdictCode.BOOTED, "booted"),
        ([_got("pxeboot.n12"), _got("boot.wim")], VerdictCode.BOOTED, "booted"),
        ([*PXELINUX, *MISSES], VerdictCode.NO_CONFIG, "no configuration found"),
        ([*PXELINUX], VerdictCode.NO_KERNEL, "has its loader, asked for nothing more"),
        (
            [*PXELINUX, _got("pxelinux.cfg/default")],
            VerdictCode.NO_KERNEL,
            "has its configuration, asked for no kernel",
        ),
        ([*PXELINUX, _miss("vmlinuz")], VerdictCode.NOT_FOUND, "vmlinuz not found"),
        (
            [*PXELINUX, _ended("vmlinuz", Outcome.TIMED_OUT)],
            VerdictCode.TIMED_OUT,
            "timed out at block 3 of 11, vmlinuz",
        ),
        (
            [_ended("a.0", Outcome.TIMED_OUT, blocks=0, octets=0)],
            VerdictCode.TIMED_OUT,
            "timed out: nothing of a.0 was acknowledged",
        ),
        (
            [_ended("a.0", Outcome.TIMED_OUT, size=None)],
            VerdictCode.TIMED_OUT,
            "timed out at block 3, a.0",
        ),
        ([_ended("a.0", Outcome.TIMED_OUT), _got("vmlinuz")], VerdictCode.BOOTED, "booted"),
        (
            [_ended("a.0", Outcome.EVICTED, blocks=0, octets=0)],
            VerdictCode.TIMED_OUT,
            "timed out: nothing of a.0 was acknowledged",
        ),
        (
            [_ended("a.0", Outcome.ABORTED, code=0, detail="out of memory\n")],
            VerdictCode.ABORTED,
            "aborted by the client at block 3 of 11, a.0: out of memory\\n",
        ),
        (
            [_ended("a.0", Outcome.FAILED, detail="Internal error")],
            VerdictCode.FAILED,
            "failed here at block 3 of 11, a.0: Internal error",
        ),
        ([_got("vmlinuz"), _ended("x", Outcome.REPLACED)], VerdictCode.BOOTED, "booted"),
        ([_ended("x", Outcome.REPLACED)], VerdictCode.ABORTED, "gave up x"),
        ([_got("readme"), _got("other")], VerdictCode.READ, "read 2 files"),
        ([_stored("sw1.cfg")], VerdictCode.STORED, "stored 1 file"),
        ([_stored("sw1.cfg"), _stored("sw2.cfg")], VerdictCode.STORED, "stored 2 files"),
    ],
)
def test_the_verdict(reports, word, text):
    said = verdict(_boots(*reports).steps, ())
    assert (said.word, said.text) == (word, text)


@pytest.mark.parametrize(
    ("running", "word", "text"),
    [
        ({}, VerdictCode.LOADING, "loading vmlinuz, 43 %"),
        ({"size": None}, VerdictCode.LOADING, "loading vmlinuz"),
        (
            {"idle": 12.4},
            VerdictCode.STUCK,
            "stuck at block 4 of 11, last ACK 12 s ago, vmlinuz",
        ),
        (
            {"state": SessionState.OPENING, "idle": 7.0},
            VerdictCode.STUCK,
            "no answer to the first packet of vmlinuz for 7 s",
        ),
        (
            {"direction": Direction.WRITE, "idle": 7.0, "size": None},
            VerdictCode.STUCK,
            "stuck at block 4, last DATA 7 s ago, vmlinuz",
        ),
        ({"direction": Direction.WRITE}, VerdictCode.LOADING, "storing vmlinuz, 43 %"),
    ],
)
def test_what_runs_decides(running, word, text):
    how = {"direction": READ, "peer": PEER, "filename": b"vmlinuz", "state": SessionState.RUNNING,
           "octets": 430, "size": 1000, "blocks": 4, "blksize": 100}  # fmt: skip
    said = verdict(_boots(*PXELINUX, *MISSES).steps, [SessionSnapshot(**(how | running))])
    assert (said.word, said.text) == (word, text)


def test_the_transfer_that_stands_still_longest_is_told_of():
    running = [_running("a"), _running("b", idle=9), _running("c", idle=6)]
    assert verdict((), running).text == "stuck at block 4 of 11, last ACK 9 s ago, b"


def test_what_dallies_runs_no_more():
    assert verdict((), [_running("a", state=SessionState.DALLYING)]).word is VerdictCode.LOADING
    steps = _boots(_stored("a")).steps
    assert verdict(steps, [_running("a", state=SessionState.DALLYING)]).word is VerdictCode.STORED


def test_misses_in_a_row_are_one_step_with_the_latest_names():
    (step,) = _boots(*MISSES, *MISSES).steps
    assert step.count == 16
    assert len(step.names) == 8
    assert step.name == "pxelinux.cfg/0"


def test_modules_in_a_row_are_one_step_and_their_octets_a_sum():
    *_, step = _boots(_got("grubx64.efi"), _got("a.mod"), _got("b.mod"), _got("c.mod")).steps
    assert (step.count, step.bytes_transferred, step.names) == (
        3,
        3000,
        ("a.mod", "b.mod", "c.mod"),
    )


@pytest.mark.parametrize(
    ("reports", "count"),
    [
        ([_probe("a.0"), _got("a.0"), _got("vmlinuz")], 1),
        ([_got("a.0"), _got("vmlinuz"), _got("a.0")], 2),
        ([_got("a.0"), _got("a.0"), _got("a.0")], 3),
        ([_ended("a.0", Outcome.TIMED_OUT), _ended("a.0", Outcome.TIMED_OUT), _got("a.0")], 1),
        ([_miss("x.scr"), _miss("y.scr"), _miss("x.scr")], 1),
        ([_miss("x.scr"), _got("uImage"), _miss("x.scr")], 2),
        ([_stored("a"), _stored("b"), _stored("a")], 1),
        ([_got("a.0", seconds=1.0), _got("a.0", seconds=1.0)], 1),
    ],
)
def test_a_boot_begins_with_its_first_file(reports, count):
    assert _boots(*reports).count == count


def test_a_boot_begins_after_a_silence_and_the_one_before_is_remembered():
    boots = _boots(_got("a.0"), _got("vmlinuz"), _got("readme"), each=121)
    assert boots.count == 3
    assert [step.name for step in boots.steps] == ["readme"]
    assert boots.before.word is VerdictCode.BOOTED


def test_steps_are_bounded_and_the_first_one_stays():
    reports = [_got(f"file{number}") for number in range(1000)]
    steps = _boots(*reports).steps
    assert len(steps) == 24
    assert (steps[0].name, steps[-1].name) == ("file0", "file999")


def test_names_and_texts_are_bounded():
    long = TransferResult(
        READ, PEER, b"\xf0\x9f\x92\xa9" * 1000, Outcome.ABORTED, detail="x" * 9999
    )
    (step,) = _boots(long).steps
    assert len(step.name) == len(step.detail) == 160
    assert step.name.endswith("💩…")
    assert len(verdict([step], ()).text) < 400


def test_clients_are_bounded_and_those_heard_of_last_stay():
    clients = Clients()
    for number in range(MOST_CLIENTS):
        clients.add(TransferResult(READ, (f"10.0.{number}", 1), b"x", Outcome.REFUSED, code=1), 1.0)
    clients.add(TransferResult(READ, ("10.0.0", 2), b"x", Outcome.REFUSED, code=1), 2.0)
    clients.add(TransferResult(READ, ("10.1.0", 2), b"x", Outcome.REFUSED, code=1), 3.0)
    assert len(clients.boots) == MOST_CLIENTS
    assert "10.0.0" in clients.boots
    assert "10.0.1" not in clients.boots
