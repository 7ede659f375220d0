"""Soak test: mixed load for a long time, after which the server must be as it was before."""

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.clients import TICK_SECONDS, Client, ClientLoop
from bench.comparison import Progress, served_directory
from bench.processes import ProcessUsage, read_tree
from bench.report import markdown_table
from bench.scenarios import MIB
from bench.servers import HOST, OURS, SERVERS, RunningServer, running
from bench.soak_workload import NO_ANSWER, Task, Workload
from tests.support.relay import Link, Relay
from tftpd.access.paths import TEMPORARY

# Four times the difference that was measured without a leak. In half an hour 30,000 tasks end
# between the two measurements, so that a leak of 280 bytes per task shows.
MAX_MEMORY_GROWTH = 8 << 20  # bytes per process
OUTCOMES = ("done", "expected", "lost", "unexpected", "wrong")

_LINK = Link(0.01, 0.01, seed=7, delay=0.002)
_MAX_FLOWS = 2000  # of the relay, so that no flow is evicted
_MAX_NEW_THREADS = 30  # the reactor's pool (10) and the lookup pool (20) may have started
_MAX_LOST_SHARE = 0.001  # of all tasks; on a loaded machine a process may wait for a processor
_MAX_EXAMPLES = 20  # failures that are printed
_LOG_ERRORS = ("Traceback (most recent call last)", "Unhandled", "[critical")
_READY_SECONDS = 60.0  # limit for all workers to start
_SETTLE_SECONDS = 1.0  # until the connection to the status page is closed
_TASK_SECONDS = 120.0  # limit for the last tasks


@dataclass(frozen=True, slots=True)
class Plan:
    """Durations in seconds, and the rate of the load.

    Attributes:
        load: Duration of the load.
        workers: Worker processes of the server.
        rate: Tasks that start per second.
        max_tasks: Maximum of tasks at the same time.
        sample_interval: Time between two samples.
        reload_interval: Time between two reloads.
        idle_timeout: Time without an answer after which the server ends a transfer.
        rest: Time after the load, in which the last transfers end. Longer than `idle_timeout`.
        idle: Time without load in which wake-ups are counted, before and after the load.
        seed: Seed of the random tasks.
        surge: Time at the start in which tasks start without delay, up to the maximum. Memory for
            the largest load is then allocated before it is measured.
    """

    load: float
    workers: int = 1
    rate: float = 25.0
    max_tasks: int = 150
    sample_interval: float = 5.0
    reload_interval: float = 60.0
    idle_timeout: float = 30.0
    rest: float = 60.0
    idle: float = 5.0
    seed: int = 1
    surge: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """State of the server.

    Attributes:
        time: Seconds since the start of the load.
        processes: The daemon and its workers.
        sessions: Sessions, or -1 if the status page does not answer.
        temporary_files: Files of uploads that have not ended.
    """

    time: float
    processes: list[ProcessUsage]
    sessions: int
    temporary_files: int

    def __str__(self) -> str:
        processes = "; ".join(
            f"{one.rss_bytes / MIB:.1f} MiB, {one.descriptors} descriptors, {one.threads} threads"
            for one in self.processes
        )
        uses = f"{self.sessions} sessions, {self.temporary_files} temporary files"
        return f"{self.time:7.1f} s: {processes}; {uses}"


@dataclass(slots=True)
class SoakReport:
    """Results of a soak test.

    Attributes:
        load: Duration of the load in seconds.
        samples: One sample before the load, those under load, and one after the rest.
        outcomes: Number of tasks by kind and outcome.
        examples: Some failures that were not expected.
        wakeups: Wake-ups per second of the idle server, before and after the load.
        log_errors: Lines of the log that report a bug.
    """

    load: float
    samples: list[Sample] = field(default_factory=list)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    wakeups: list[float] = field(default_factory=list)
    log_errors: list[str] = field(default_factory=list)

    def count(self, task: Task) -> None:
        """Count a task that has ended."""
        failure = task.client.failure or task.check()
        if not failure:
            outcome = "done"
        elif "differs" in failure or "ends at" in failure:
            outcome = "wrong"
        elif failure.startswith(task.expected):
            outcome = "expected"
        else:
            outcome = "lost" if failure.startswith(NO_ANSWER) else "unexpected"
        self.outcomes[task.kind, outcome] += 1
        if outcome not in ("done", "expected") and len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"{outcome}: {task.kind}: {failure}")

    def total(self, outcome: str) -> int:
        """Return the number of tasks with an outcome."""
        return sum(count for (_, name), count in self.outcomes.items() if name == outcome)

    def problems(self) -> Iterator[str]:
        """Yield everything that grew, was left open or went wrong."""
        first, last = self.samples[0], self.samples[-1]
        if [one.pid for one in first.processes] != [one.pid for one in last.processes]:
            yield "processes of the server died"
        pairs = zip(first.processes, last.processes, strict=False)
        for number, (before, after) in enumerate(pairs):
            if after.descriptors > before.descriptors:
                yield f"{after.descriptors} descriptors, {before.descriptors} before"
            if after.threads > before.threads + _MAX_NEW_THREADS:
                yield f"{after.threads} threads, {before.threads} before"
            early, late = self._memory(number, sixth=1), self._memory(number, sixth=5)
            if early and late > early + MAX_MEMORY_GROWTH:
                yield f"{late / MIB:.1f} MiB of memory, {early / MIB:.1f} MiB after the warm-up"
        if last.sessions:
            yield f"{last.sessions} sessions are left (-1: the status page does not answer)"
        if last.temporary_files:
            yield f"{last.temporary_files} temporary files are left"
        yield from (f"the log has: {line}" for line in self.log_errors)
        max_lost = 1 + _MAX_LOST_SHARE * self.outcomes.total()
        for outcome, limit in {"wrong": 0, "unexpected": 0, "lost": max_lost}.items():
            if self.total(outcome) > limit:
                yield f"{self.total(outcome)} tasks ended as {outcome}"
        idle_before, idle_after = self.wakeups
        if idle_after > 2 * idle_before + 5:  # as from a timer of 0.2 s that still runs
            yield f"{idle_after:.1f} wake-ups per second when idle, {idle_before:.1f} before"

    def __str__(self) -> str:
        kinds = sorted({kind for kind, _ in self.outcomes})
        lines = [[kind, *(str(self.outcomes[kind, name]) for name in OUTCOMES)] for kind in kinds]
        some = [*self.samples[: -1 : max(1, len(self.samples) // 4)], self.samples[-1]]
        problems = [f"PROBLEM: {problem}" for problem in self.problems()] or ["no problem"]
        table = markdown_table(["task", *OUTCOMES], lines)
        return "\n".join([table, "", *map(str, some), *self.examples, *problems])

    def _memory(self, number: int, sixth: int) -> float:
        """Return the median memory of a process in one sixth of the load, counted from 0.

        The result is 0 if there is no sample, because the load was too short.
        """
        begin, end = sixth * self.load / 6, (sixth + 1) * self.load / 6
        groups = [sample.processes for sample in self.samples if begin <= sample.time <= end]
        return median([group[number].rss_bytes for group in groups if number < len(group)] or [0])


@dataclass
class SoakTest:
    """Soak test of a server that runs already.

    Attributes:
        plan: Durations and rate.
        workload: Configuration of the server, and the tasks.
        server: The server.
        progress: Called with a line for each sample.
    """

    plan: Plan
    workload: Workload
    server: RunningServer
    progress: Progress

    def __post_init__(self) -> None:
        self._report = SoakReport(self.plan.load)
        self._tasks: dict[Client, Task] = {}

    def run(self) -> SoakReport:
        """Run the load between two measurements without load."""
        self._measure_idle(at=-1.0)
        loop = ClientLoop(self._start_clients(), self._on_end, self.plan.max_tasks)
        loop.run(self.plan.load + _TASK_SECONDS)
        self._reload(with_temporary=False)
        time.sleep(self.plan.rest)
        self._measure_idle(at=self.plan.load + self.plan.rest)
        self._report.log_errors = find_log_errors(self.server.work)
        return self._report

    def _start_clients(self) -> Iterator[Client | None]:
        """Start tasks at the planned rate; take samples and reload the server."""
        plan, reloads = self.plan, 0
        began = next_start = time.monotonic()
        while (now := time.monotonic()) < began + plan.load:
            at = now - began
            if at >= plan.sample_interval * len(self._report.samples):
                self._sample(at)
            if at >= plan.reload_interval * (reloads + 1):
                self._reload(with_temporary=reloads % 2 == 0)
                reloads += 1
            if now < next_start:
                yield None
                continue
            # Starts that were missed at the maximum of tasks are not made up for.
            interval = 1 / plan.rate if at >= plan.surge else 0.0
            next_start = max(next_start, now - TICK_SECONDS) + interval
            task = self.workload.next_task()
            self._tasks[task.client] = task
            yield task.client

    def _on_end(self, client: Client) -> None:
        self._report.count(self._tasks.pop(client))

    def _measure_idle(self, at: float) -> None:
        """Wait until all workers answer, take a sample and count wake-ups."""
        deadline = time.monotonic() + _READY_SECONDS
        while count_sessions(self.workload.status) < 0 and time.monotonic() < deadline:
            time.sleep(_SETTLE_SECONDS)
        time.sleep(_SETTLE_SECONDS)
        self._sample(at)
        before = sum(process.wakeups for process in read_tree(self.server.pid))
        time.sleep(self.plan.idle)
        after = sum(process.wakeups for process in read_tree(self.server.pid))
        self._report.wakeups.append((after - before) / self.plan.idle)

    def _sample(self, at: float) -> None:
        prefix = os.fsdecode(TEMPORARY)
        temporary = len(list(self.workload.base.rglob(f"{prefix}*")))
        processes = read_tree(self.server.pid)  # before the connection to the status page
        sample = Sample(at, processes, count_sessions(self.workload.status), temporary)
        self._report.samples.append(sample)
        self.progress(str(sample))

    def _reload(self, with_temporary: bool) -> None:
        config = self.server.work / "tftpd.yaml"
        config.with_suffix(".new").write_text(self.workload.config(with_temporary))
        config.with_suffix(".new").rename(config)
        os.kill(self.server.pid, signal.SIGHUP)


def run_soak(plan: Plan, progress: Progress) -> SoakReport:
    """Start a server and run a soak test.

    Args:
        plan: Durations and rate.
        progress: Called with a line for each sample.
    """
    with served_directory() as root:
        workload = Workload(root, plan.seed, plan.workers, plan.idle_timeout)
        workload.create_files()
        config = workload.config(with_temporary=False)
        with (
            running(SERVERS[OURS], root, workload.direct, config) as server,
            Relay((HOST, workload.direct), _LINK, _MAX_FLOWS) as relay,
        ):
            workload.relay = relay.address[1]
            return SoakTest(plan, workload, server, progress).run()


def find_log_errors(work: Path) -> list[str]:
    """Return the lines that report a bug in the log files in `work`, at most 5."""
    texts = (path.read_text(errors="replace") for path in sorted(work.glob("log*")))
    lines = (line for text in texts for line in text.splitlines())
    return [line for line in lines if any(error in line for error in _LOG_ERRORS)][:5]


def count_sessions(status: Path) -> int:
    """Return the sessions that the status page shows, or -1 if a worker does not answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(10.0)
        try:
            sock.connect(str(status))
            sock.sendall(b"GET /status HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = sock.makefile("rb").read()
        except OSError:
            return -1
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    if not all(worker["answers"] for worker in document["workers"]):
        return -1
    return sum(number for group in document["sessions"].values() for number in group.values())
