"""Where the time of one block goes in the daemon.

The daemon runs in this process, under the reactor that it has in production,
and takes the load of a scenario: as it is, for the time of a block, and with
probes, for its parts. Time is that of the wall clock, since the CPU's costs
0.6 us to ask; so a part may hold an interruption, above all `sendto`, which
wakes the client. What no probe saw is told as such, waiting included.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

from twisted.internet import reactor as installed_reactor

from bench import load
from bench.job import Job
from bench.measure import job_of, provide
from bench.probes import Probes
from bench.scenarios import Scenario
from bench.servers import HOST
from tftpd.config.settings import Listen, Settings
from tftpd.daemon.service import Daemon
from tftpd.net.epoll import Poller
from tftpd.net.receive_session import ReceiveSession
from tftpd.net.send_session import SendSession
from tftpd.net.session import Session
from tftpd.net.udp import ConnectedSocket, SessionPort
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.sender import Sender
from tftpd.storage.block_ring import Frames
from tftpd.storage.upload import Sink

_POLL, _RECEIVE, _SESSION = "epoll, and whose turn it is", "recvfrom", "session"
_MACHINE, _FILE, _SEND = "protocol machine", "file", "sendto"
PLACES: list[tuple[type, str, str]] = [
    (Poller, "doRead", _POLL),
    (SessionPort, "doRead", _RECEIVE),
    (ConnectedSocket, "doRead", _RECEIVE),
    (Session, "datagramReceived", _SESSION),
    (Session, "burstReceived", _SESSION),
    (SendSession, "_advance", _SESSION),
    (ReceiveSession, "_advance", _SESSION),
    (Sender, "receive_ack", _MACHINE),
    (Sender, "feed", _MACHINE),
    (Sender, "outbox", _MACHINE),
    (Receiver, "receive_data", _MACHINE),
    (Receiver, "outbox", _MACHINE),
    (Frames, "fill", _FILE),
    (Frames, "between", _FILE),
    (Sink, "append", _FILE),
    (Sink, "spill", _FILE),
    (SessionPort, "writeBurst", _SEND),
]

_UNSEEN = "not seen by a probe: waiting, reactor, timers, opening"
_RUNS = 3

reactor: Any = installed_reactor


@dataclass(frozen=True, slots=True)
class Time:
    """Microseconds of one block: by the wall clock, and of CPU."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Profile:
    """The time of one block without and with probes, and microseconds by parts."""

    scenario: Scenario
    plain: Time
    probed: Time
    parts: dict[str, float]

    def __str__(self) -> str:
        whole = self.plain.wall
        lines = sorted(self.parts.items(), key=lambda part: -part[1])
        lines.append((_UNSEEN, whole - sum(self.parts.values())))
        return "\n".join(
            [
                f"{self.scenario.name}, {self.scenario.about}: {whole:.2f} us a block, "
                f"{self.plain.cpu:.2f} us of it CPU",
                f"({self.probed.wall:.2f} us with the probes, whose cost is subtracted below)",
                *(f"  {part:7.2f} us {part / whole:5.0%}  {name}" for name, part in lines),
            ]
        )


def profiles(scenarios: Sequence[Scenario]) -> list[Profile]:
    """Profile the daemon in each scenario. Once in a process: a reactor runs but once.

    Raises what went wrong in the load.
    """
    done: list[Profile] = []
    failed: list[Exception] = []
    with tempfile.TemporaryDirectory(prefix="tftpd-bench-") as directory:
        root = Path(directory)
        daemon = _daemon(root)

        def work() -> None:
            try:
                done.extend(_profile(scenario, daemon, root) for scenario in scenarios)
            except Exception as error:
                failed.append(error)
            finally:
                reactor.callFromThread(reactor.stop)

        reactor.callWhenRunning(reactor.callInThread, work)
        reactor.addSystemEventTrigger("before", "shutdown", daemon.stopService)
        reactor.run()
    for error in failed:
        raise error
    return done


def _daemon(root: Path) -> Daemon:
    settings = Settings.model_validate(
        {"directories": [{"root": str(root), "read": True, "write": True}]}
    )
    # Port 0, which no configuration may name, is any that is free.
    listen = Listen.model_construct(address=HOST, port=0, broadcast="ignore")
    daemon = Daemon(reactor, settings.model_copy(update={"listen": [listen]}))
    daemon.privilegedStartService()
    daemon.startService()
    return daemon


def _profile(scenario: Scenario, daemon: Daemon, root: Path) -> Profile:
    """The quickest of some runs: what else runs on the machine makes them slower only."""
    provide(root / scenario.file, scenario.size)
    job = job_of(scenario, daemon.addresses[0][1], root)
    plain = min((_time(job, root) for _ in range(_RUNS)), key=lambda run: run.wall)
    probed, parts = min((_probed(job, root) for _ in range(_RUNS)), key=lambda run: run[0].wall)
    return Profile(scenario, plain, probed, parts)


def _probed(job: Job, root: Path) -> tuple[Time, dict[str, float]]:
    probes = Probes()
    with probes.installed(PLACES):
        time = _time(job, root)
    blocks = _blocks(job)
    parts = probes.seconds().items()
    return time, {name: seconds * 1e6 / blocks for name, seconds in parts if seconds}


def _time(job: Job, root: Path) -> Time:
    """What this process takes for a block of the load."""
    before = process_time()
    result = load.run(job, load.default_processes(), root)
    spent = process_time() - before
    if result.failed:
        raise RuntimeError(f"the load failed: {result.failures}")
    blocks = _blocks(job)
    return Time(result.seconds * 1e6 / blocks, spent * 1e6 / blocks)


def _blocks(job: Job) -> int:
    return job.transfers * (Path(job.reference).stat().st_size // job.blksize + 1)
