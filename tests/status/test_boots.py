"""The requests of a client are grouped into boots, and each boot gets a verdict."""

import pytest

from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.snapshot import SessionSnapshot, SessionState
from tftpd.status.boots import ClientHistory, VerdictCode, judge
from tftpd.status.history import MAX_CLIENTS, History

PEER = ("10.0.0.7", 2070)
READ = Direction.READ


def _got(name, **more):
    how = {
        "outcome": Outcome.DONE,
        "bytes_transferred": 1000,
        "size": 1000,
        "blksize": 100,
        "blocks": 11,
    }
    return TransferResult(READ, PEER, name.encode(), **(how | more))


def _probe(name):
    return _got(name, outcome=Outcome.PROBE, bytes_transferred=0, blocks=0, code=0)


def _miss(name):
    return TransferResult(READ, PEER, name.encode(), Outcome.REFUSED, code=1, detail="No such file")


def _ended(name, outcome, **more):
    return _got(name, outcome=outcome, **({"bytes_transferred": 300, "blocks": 3} | more))


def _stored(name):
    return TransferResult(Direction.WRITE, PEER, name.encode(), Outcome.DONE, bytes_transferred=1)


def _client(*results, interval=0.1):
    client = ClientHistory()
    for number, result in enumerate(results):
        client.add(result, 100 + number * interval)
    return client


def _running(name, **more):
    how = {
        "state": SessionState.RUNNING,
        "bytes_transferred": 430,
        "size": 1000,
        "blocks": 4,
        "blksize": 100,
    }
    return SessionSnapshot(READ, PEER, name.encode(), **(how | more))


MISSES = [_miss(f"pxelinux.cfg/{'0A000007'[:n]}") for n in range(8, 0, -1)]
PXELINUX = [_probe("pxelinux.0"), _got("pxelinux.0"), _got("ldlinux.c32")]


@pytest.mark.parametrize(
    ("results", "code", "text"),
    [
        (
            [_probe("shim.efi")],
            VerdictCode.PROBE_ONLY,
            "probe only: requested the size of shim.efi",
        ),
        ([_miss("a.efi")], VerdictCode.NOT_FOUND, "not found only: a.efi"),
        ([_miss("a.efi"), _miss("a.efi")], VerdictCode.NOT_FOUND, "not found only: a.efi"),
        ([_miss("a.efi"), _miss("b.cfg")], VerdictCode.NOT_FOUND, "not found only: 2 names"),
        (
            [_miss("a.efi"), _miss("b.cfg"), _miss("a.efi"), _miss("b.cfg")],
            VerdictCode.NOT_FOUND,
            "not found only: 2 names",
        ),
        (
            [_miss(f"{number}.cfg") for number in range(31)] * 2,
            VerdictCode.NOT_FOUND,
            "not found only: 31 names",
        ),
        (
            [_miss(f"{number}.cfg") for number in range(50)],
            VerdictCode.NOT_FOUND,
            "not found only: 32 or more names",
        ),
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
        ([*PXELINUX], VerdictCode.NO_KERNEL, "has its loader, requested nothing else"),
        (
            [*PXELINUX, _got("pxelinux.cfg/default")],
            VerdictCode.NO_KERNEL,
            "has its configuration, requested no kernel",
        ),
        ([*PXELINUX, _miss("vmlinuz")], VerdictCode.NOT_FOUND, "vmlinuz not found"),
        (
            [*PXELINUX, _ended("vmlinuz", Outcome.TIMED_OUT)],
            VerdictCode.TIMED_OUT,
            "timed out at block 3 of 11, vmlinuz",
        ),
        (
            [_ended("a.0", Outcome.TIMED_OUT, blocks=0, bytes_transferred=0)],
            VerdictCode.TIMED_OUT,
            "timed out: nothing of a.0 was acknowledged; "
            "firewall or NAT between server and client?",
        ),
        (
            [_ended("a.0", Outcome.TIMED_OUT, blocks=0, bytes_transferred=0, rtt=0.01)],
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
            [_ended("a.0", Outcome.EVICTED, blocks=0, bytes_transferred=0)],
            VerdictCode.TIMED_OUT,
            "timed out: nothing of a.0 was acknowledged; "
            "firewall or NAT between server and client?",
        ),
        (
            [_ended("a.0", Outcome.ABORTED, code=0, detail="out of memory\n")],
            VerdictCode.ABORTED,
            "aborted by the client at block 3 of 11, a.0: out of memory\\n",
        ),
        (
            [_ended("a.0", Outcome.FAILED, detail="Internal error")],
            VerdictCode.FAILED,
            "failed on the server at block 3 of 11, a.0: Internal error",
        ),
        ([_got("vmlinuz"), _ended("x", Outcome.REPLACED)], VerdictCode.BOOTED, "booted"),
        ([_ended("x", Outcome.REPLACED)], VerdictCode.ABORTED, "gave up x"),
        ([_got("readme"), _got("readme")], VerdictCode.READ, "read readme"),
        ([_got("readme"), _got("other")], VerdictCode.READ, "read 2 files"),
        ([_got(f"f{number}") for number in range(100)], VerdictCode.READ, "read 24 or more files"),
        ([_stored("sw1.cfg")], VerdictCode.STORED, "stored sw1.cfg"),
        ([_stored("sw1.cfg"), _stored("sw1.cfg")], VerdictCode.STORED, "stored sw1.cfg"),
        ([_stored("sw1.cfg"), _stored("sw2.cfg")], VerdictCode.STORED, "stored 2 files"),
        (
            [_stored("sw1.cfg"), _stored("sw2.cfg"), _got("sw1.cfg")],
            VerdictCode.READ,
            "stored 2, read 1",
        ),
        ([_got("image.bin"), _stored("sw1.cfg")], VerdictCode.STORED, "stored 1, read 1"),
        ([_stored("log"), *PXELINUX, _got("vmlinuz")], VerdictCode.BOOTED, "booted"),
    ],
)
def test_a_boot_is_judged_by_its_steps(results, code, text):
    verdict = judge(_client(*results).steps, ())
    assert (verdict.code, verdict.text) == (code, text)


@pytest.mark.parametrize(
    ("running", "code", "text"),
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
            "no answer to the first packet of vmlinuz for 7 s; "
            "firewall or NAT between server and client?",
        ),
        (
            {"direction": Direction.WRITE, "idle": 7.0, "size": None},
            VerdictCode.STUCK,
            "stuck at block 4, last DATA 7 s ago, vmlinuz",
        ),
        ({"direction": Direction.WRITE}, VerdictCode.LOADING, "storing vmlinuz, 43 %"),
    ],
)
def test_a_running_transfer_decides_the_verdict(running, code, text):
    how = {"direction": READ, "peer": PEER, "filename": b"vmlinuz", "state": SessionState.RUNNING,
           "bytes_transferred": 430, "size": 1000, "blocks": 4, "blksize": 100}  # fmt: skip
    verdict = judge(_client(*PXELINUX, *MISSES).steps, [SessionSnapshot(**(how | running))])
    assert (verdict.code, verdict.text) == (code, text)


def test_the_verdict_is_about_the_transfer_without_progress_for_the_longest_time():
    running = [_running("a"), _running("b", idle=9), _running("c", idle=6)]
    assert judge((), running).text == "stuck at block 4 of 11, last ACK 9 s ago, b"


def test_a_dallying_session_does_not_count_as_running():
    assert judge((), [_running("a", state=SessionState.DALLYING)]).code is VerdictCode.LOADING
    steps = _client(_stored("a")).steps
    assert judge(steps, [_running("a", state=SessionState.DALLYING)]).code is VerdictCode.STORED


def test_consecutive_misses_are_one_step_with_the_latest_names():
    (step,) = _client(*MISSES, *MISSES).steps
    assert step.count == 16
    assert len(step.names) == 8
    assert step.name == "pxelinux.cfg/0"


def test_consecutive_modules_are_one_step_with_the_sum_of_their_bytes():
    *_, step = _client(_got("grubx64.efi"), _got("a.mod"), _got("b.mod"), _got("c.mod")).steps
    assert (step.count, step.bytes_transferred, step.names) == (
        3,
        3000,
        ("a.mod", "b.mod", "c.mod"),
    )


@pytest.mark.parametrize(
    ("results", "count"),
    [
        ([_probe("a.0"), _got("a.0"), _got("vmlinuz")], 1),
        ([_got("a.0"), _got("vmlinuz"), _got("a.0")], 2),
        ([_got("a.0"), _got("a.0"), _got("a.0")], 3),
        ([_ended("a.0", Outcome.TIMED_OUT), _ended("a.0", Outcome.TIMED_OUT), _got("a.0")], 1),
        ([_miss("x.scr"), _miss("y.scr"), _miss("x.scr")], 1),
        ([_miss("x.scr"), _got("uImage"), _miss("x.scr")], 2),
        ([_stored("a"), _stored("b"), _stored("a")], 1),
        ([_stored("a"), _got("a"), _got("b"), _got("a")], 1),
        ([_got("a.0", seconds=1.0), _got("a.0", seconds=1.0)], 1),
    ],
)
def test_a_boot_starts_when_the_first_file_is_requested_again(results, count):
    assert _client(*results).boots == count


def test_a_boot_starts_after_a_silence_and_the_previous_verdict_is_kept():
    client = _client(_got("a.0"), _got("vmlinuz"), _got("readme"), interval=121)
    assert client.boots == 3
    assert [step.name for step in client.steps] == ["readme"]
    assert client.previous.code is VerdictCode.BOOTED


def test_the_number_of_steps_is_bounded_and_the_first_one_stays():
    results = [_got(f"file{number}") for number in range(1000)]
    steps = _client(*results).steps
    assert len(steps) == 24
    assert (steps[0].name, steps[-1].name) == ("file0", "file999")


def test_the_names_of_all_steps_together_have_a_maximum_length():
    """A forged request costs its sender nothing, and the page shows 256 clients."""
    results = [
        _miss(f"{number}{'x' * 200}{'.cfg' if number // 40 % 2 else '.efi'}")
        for number in range(4000)
    ]
    steps = _client(*results).steps
    assert len(steps) == 24
    assert steps[-1].count == 40
    assert len(steps[-1].names) == 32
    assert sum(len(name) for step in steps for name in step.names) < 10_000
    assert all(step.names for step in steps)


def test_names_and_texts_have_a_maximum_length():
    long = TransferResult(
        READ, PEER, b"\xf0\x9f\x92\xa9" * 1000, Outcome.ABORTED, detail="x" * 9999
    )
    (step,) = _client(long).steps
    assert len(step.name) == len(step.detail) == 160
    assert step.name.endswith("💩…")
    assert len(judge([step], ()).text) < 400


def test_the_number_of_clients_is_bounded_and_the_most_recent_stay():
    history = History()
    for host in (*(f"10.0.{number}" for number in range(MAX_CLIENTS)), "10.0.0", "10.1.0"):
        history(TransferResult(READ, (host, 1), b"x", Outcome.REFUSED, code=1))
    assert len(history.clients) == MAX_CLIENTS
    assert "10.0.0" in history.clients
    assert "10.0.1" not in history.clients


def _by_http(name, status=200, **more):
    how = {"protocol": "http", "status": status, "blksize": 0, "blocks": 0}
    return _got(name, **(how | more))


def test_parts_of_a_file_are_one_step_of_one_boot():
    parts = [_by_http("disk.iso", 206, bytes_transferred=10) for _ in range(5)]
    client = _client(_by_http("boot.ipxe"), *parts, _by_http("boot.ipxe", 206))
    assert client.boots == 1
    assert [(step.name, step.count, step.bytes_transferred) for step in client.steps] == [
        ("boot.ipxe", 1, 1000),
        ("disk.iso", 5, 50),
        ("boot.ipxe", 1, 1000),
    ]


def test_a_request_over_http_has_no_blocks_and_no_forged_address():
    broken = _by_http("linux", outcome=Outcome.ABORTED, bytes_transferred=400)
    client = _client(broken)
    assert client.has_answered
    assert judge(client.steps, ()).text == "aborted by the client at byte 400 of 1000, linux"
