"""Servers in small scenarios of each unit, direction and link."""

import pytest

from bench.clients import Job
from bench.comparison import compare_servers
from bench.scenarios import KIB, SCENARIOS, Scenario, Unit
from bench.servers import SERVERS, Server
from tests.bench.test_generator import needs_compiler
from tests.support.relay import Link

_SMALL = {
    "idle": Scenario(20 * KIB, Job(clients=20, transfers=20), Unit.SESSION_MEMORY),
    "lossy": Scenario(64 * KIB, Job(windowsize=16, gro=True), link=Link(0.01, 0.01, rate=1e7)),
    "upload": Scenario(4 * KIB, Job(transfers=3, upload=True), Unit.TRANSFERS),
}


@needs_compiler
@pytest.mark.check
def test_a_row_has_the_results_of_each_server_or_the_reason():
    plain = Server("plain", "no-such-program", uploads=False, windows=False)
    lines = []
    rows = compare_servers([SERVERS["tftpd"], plain], _SMALL, 1, lines.append)
    assert [row.scenario for row in rows] == ["idle", "lossy", "upload", "startup"]
    for row in rows:
        (value,) = set(row.cells["tftpd"].values) if row is not rows[-1] else {1}
        assert value > 0
    assert len(rows[-1].cells["tftpd"].values) == 3
    reasons = [row.cells["plain"].reason for row in rows]
    assert reasons == ["no-such-program is not installed", "no windowsize option", "no uploads", ""]
    assert lines[0] == "idle, round 1: tftpd"
    assert all(row.root for row in rows[:3])


def test_a_scenario_describes_its_parameters():
    assert SCENARIOS["lock512"].describe() == "1 client, read 1 MiB, blksize 512"
    assert SCENARIOS["boot2000"].describe() == "2,000 clients, read 64 KiB"
    assert _SMALL["upload"].describe() == "1 client, write 4 KiB, blksize 512"
    assert SCENARIOS["loss1"].describe().endswith("windowsize 64 with GRO, loss of 1.0%")
    assert SCENARIOS["boot2000s"].describe().endswith("64 KiB, each with its own address")
    assert SCENARIOS["lock1468rtt"].describe() == "1 client, read 1 MiB, ACKs 200 us late"
    assert SCENARIOS["bottleneck"].describe().endswith("10 MB/s link with a queue of 64")
