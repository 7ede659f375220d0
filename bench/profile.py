"""Where the time of one block goes in the daemon.

The daemon runs in this process, under the reactor that it has in production,
and takes the load of a scenario twice: as it is, for the CPU time of a block,
and with probes, for its parts. What no probe saw is told as such.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed_reactor

from bench import load
from bench.measure import job_of, provide
from bench.probes import Probes
from bench.scenarios import Scenario
from bench.servers import HOST
from tftpd.config.settings import Listen, Settings
from tftpd.daemon.service import Daemon
from tftpd.net.poller import Poller
from tftpd.net.ports import SessionPort
from tftpd.net.receiving import ReceiveSession
from tftpd.net.sending import SendSession
from tftpd.net.session import Session
from tftpd.storage.sink import Sink
from tftpd.storage.source import Blocks
from tftpd.transfer.receiver import Receiver
from tftpd.transfer.sender import Sender

_POLL, _RECEIVE, _SESSION = "epoll, and whose turn it is", "recvfrom", "session"
_MACHINE, _FILE, _SEND = "protocol machine", "file", "sendto"
PLACES: list[tuple[type, str, str]] = [
    (Poller, "doRead", _POLL),
    (SessionPort, "doRead", _RECEIVE),
    (Session, "datagramReceived", _SESSION),
    (Session, "burstReceived", _SESSION),
    (SendSession, "_advance", _SESSION),
    (ReceiveSession, "_advance", _SESSION),
    (Sender, "receive_ack", _MACHINE),
    (Sender, "feed", _MACHINE),
    (Sender, "outbox", _MACHINE),
    (Receiver, "receive_data", _MACHINE),
    (Receiver, "outbox", _MACHINE),
    (Blocks, "take", _FILE),
    (Sink, "write", _FILE),
    (SessionPort, "writeBurst", _SEND),
]

reactor: Any = installed_reactor


@dataclass(frozen=True, slots=True)
class Profile:
    """Microseconds of one block: of CPU without and with probes, and by parts."""

    scenario: Scenario
    blocks: int
    plain: float
    probed: float
    parts: dict[str, float]

    def __str__(self) -> str:
        shown = sorted(self.parts.items(), key=lambda part: -part[1])
        unseen = self.plain - sum(self.parts.values())
        lines = [(name, part) for name, part in shown if part]
        lines.append(("not seen by a probe: reactor, timers, opening", unseen))
        return "\n".join(
            [
                f"{self.scenario.name}, {self.scenario.about}: {self.plain:.2f} us of CPU a block",
                f"({self.blocks:,} blocks; {self.probed:.2f} us with the probes, "
                "whose cost is subtracted below)",
                *(f"  {part:7.2f} us {part / self.plain:5.0%}  {name}" for name, part in lines),
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
        reactor.run()
        daemon.stopService()
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
    port = daemon.addresses[0][1]
    probes = Probes()
    plain, blocks = _cpu(scenario, port, root)
    with probes.installed(PLACES):
        probed, _ = _cpu(scenario, port, root)
    parts = {name: seconds * 1e6 / blocks for name, seconds in probes.seconds().items()}
    return Profile(scenario, blocks, plain * 1e6 / blocks, probed * 1e6 / blocks, parts)


def _cpu(scenario: Scenario, port: int, root: Path) -> tuple[float, int]:
    """Seconds of CPU that this process spends on the load, and the blocks of it."""
    provide(root / scenario.file, scenario.size)
    job = job_of(scenario, port, root)
    before = time.process_time()
    result = load.run(job, load.default_processes(), root)
    spent = time.process_time() - before
    if result.failed:
        raise RuntimeError(f"{scenario.name}: {result.failures}")
    return spent, result.octets // scenario.blksize
