"""Mixed load for a long time, after which everything must be as it was: `python -m bench soak`."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGHUP
from tempfile import TemporaryDirectory

from bench import measure
from bench.crowd import Crowd
from bench.mixture import Mixture
from bench.processes import processes, wakes
from bench.relay import Line, Relay
from bench.servers import HOST, OURS, SERVERS, Place, Running, running
from bench.trees import Ports, Trees
from bench.vitals import Record, Sample, sessions, temporaries

_LINE = Line(drop_down=0.01, drop_up=0.01, seed=7, delay=0.002)
_FLOWS = 2000  # none is forgotten while it runs
_BUGS = ("Traceback (most recent call last)", "Unhandled", "[critical")
_TOLD = 5  # bugs in words
_STARTS_WITHIN = 60.0  # with all workers
_SETTLES = 1.0  # seconds in which a reload is done


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how hard: seconds, `rate` in acts a second, at most `most` at once.

    `surge` is for how long acts begin as fast as there is room: what a crowd
    costs is paid in the warm-up. `patience` is that of the daemon. The rest
    after the load must be longer than what the daemon then waits for: silent
    clients, and its last ACKs.
    """

    load: float
    workers: int = 1
    rate: float = 25.0
    most: int = 150
    surge: float = 60.0
    each: float = 5.0  # between two samples
    reloads: float = 60.0  # between two reloads
    patience: float = 30.0
    rest: float = 60.0
    idle: float = 5.0  # in which it is watched without load, before and after
    seed: int = 1


def soak(plan: Plan, say: Callable[[str], None]) -> Record:
    """Do it, with a daemon that is started as an administrator does; what was seen."""
    with TemporaryDirectory(prefix="tftpd-soak-") as base, contextlib.ExitStack() as stack:
        site = _Site(plan, Path(base))
        site.trees.make()
        server = replace(SERVERS[OURS], prepare=site.prepare)
        daemon = stack.enter_context(running(server, site.trees.base, site.work))
        relay = stack.enter_context(Relay((HOST, daemon.port), _LINE, flows=_FLOWS))
        mixture = Mixture(site.trees, site.ports(relay.address[1]), plan.seed, plan.patience)
        crowd = Crowd(mixture.begin, plan.rate, plan.most)
        watch = _Watch(plan, daemon, site, crowd, say)
        watch.wait()
        idle = watch.rest(plan.idle)
        watch.sample()
        with watch.at_work():
            crowd.run(plan.load, plan.surge)
        site.configure(passing=False)
        watch.reload()
        time.sleep(plan.rest)
        watch.wait()
        watch.sample()
        watch.record.wakes = idle, watch.rest(plan.idle)
        watch.record.bugs = bugs(site.work)
        return watch.record


def bugs(work: Path) -> list[str]:
    """Lines that no log should have, of those that begin with `log` in `work`."""
    found: list[str] = []
    for path in sorted(work.glob("log*")):
        lines = path.read_text(errors="replace").splitlines()
        found += [line for line in lines if any(bug in line for bug in _BUGS)]
    return found[:_TOLD]


class _Site:
    """The daemon's directory: its configuration, its status socket, what it serves."""

    def __init__(self, plan: Plan, work: Path) -> None:
        self.work = work
        self.status = work / "status.sock"
        self.trees = Trees(work / "served")
        self._plan = plan
        self._single, self._passing, self._direct = _free_port(), _free_port(), 0

    def prepare(self, place: Place) -> None:
        """Before the daemon is started."""
        self._direct = place.port
        self.configure(passing=False)

    def ports(self, relay: int) -> Ports:
        """Where clients ask."""
        return Ports(self._direct, self._single, relay, self._passing)

    def configure(self, passing: bool) -> None:
        """Write the configuration, whole, for the next reload."""
        plan, path = self._plan, self.work / "tftpd.yaml"
        text = self.trees.settings(
            self.ports(0), self.status, plan.patience, plan.workers, passing=passing
        )
        new = path.with_suffix(".new")
        new.write_text(text)
        new.rename(path)


class _Watch:
    """Looks at a daemon each few seconds, and has it reload."""

    def __init__(
        self, plan: Plan, daemon: Running, site: _Site, crowd: Crowd, say: Callable[[str], None]
    ) -> None:
        about = measure.about(1, measure.command_line())
        self.record = Record(about, plan.load, plan.workers)
        self._plan = plan
        self._pid = daemon.process.pid
        self._site = site
        self._tally = crowd.tally
        self._say = say
        self._began = time.monotonic()
        self._over = threading.Event()

    def wait(self) -> None:
        """Until all processes answer; they are given a while."""
        deadline = time.monotonic() + _STARTS_WITHIN
        while sessions(self._site.status) < 0 and time.monotonic() < deadline:
            time.sleep(_SETTLES)
        time.sleep(_SETTLES)  # until the connection that asked is gone

    def rest(self, seconds: float) -> float:
        """Do nothing for so long; how often a second the daemon woke meanwhile."""
        before = wakes(self._pid)
        time.sleep(seconds)
        return (wakes(self._pid) - before) / seconds

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Sample and reload for as long as the block takes."""
        self._began = time.monotonic()
        thread = threading.Thread(target=self._look, name="watch")
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            self.record.ended = self._tally.table()
            self.record.told = self._tally.failures()

    def sample(self) -> None:
        """Look once."""
        at = time.monotonic() - self._began
        one = Sample(
            round(at if self.record.samples else min(at, -0.1), 1),
            tuple(processes(self._pid)),
            sessions(self._site.status),
            temporaries(self._site.trees.base),
            self._tally.total,
        )
        self.record.samples.append(one)
        self._say(_line(one))

    def reload(self) -> None:
        """SIGHUP, and time for it."""
        self._send_hangup()
        time.sleep(_SETTLES)

    def _look(self) -> None:
        reloads = self._plan.reloads
        while not self._over.wait(self._plan.each):
            self.sample()
            if time.monotonic() - self._began >= reloads * (self.record.reloads + 1):
                self._site.configure(passing=self.record.reloads % 2 == 0)
                self._send_hangup()

    def _send_hangup(self) -> None:
        self.record.reloads += 1
        os.kill(self._pid, SIGHUP)


def _line(sample: Sample) -> str:
    memory = " ".join(f"{one.memory / (1 << 20):.1f}" for one in sample.processes)
    descriptors = " ".join(str(one.descriptors) for one in sample.processes)
    return (
        f"{sample.at:8.1f} s  {memory} MiB  {descriptors} descriptors"
        f"  {sample.sessions} sessions  {sample.ended} ended"
    )


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])
