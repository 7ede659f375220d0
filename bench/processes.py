"""CPU time, memory and other resources of processes, read from /proc."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_CPU_FIELDS = slice(11, 15)  # utime, stime, cutime, cstime, counted after the command name


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """Resources of one process.

    Attributes:
        pid: Process identifier.
        cpu_seconds: CPU time, including children that have ended and were waited for.
        pss_bytes: Proportional set size: shared pages count in proportion.
        rss_bytes: Resident set size.
        descriptors: Open file descriptors.
        threads: Threads.
        wakeups: Voluntary context switches since the start.
    """

    pid: int
    cpu_seconds: float
    pss_bytes: int
    rss_bytes: int
    descriptors: int
    threads: int
    wakeups: int


def read_tree(pid: int) -> list[ProcessUsage]:
    """Return the usage of `pid` and of its descendants, parents first."""
    found, pending = [], [pid]
    while pending:
        process = Path("/proc", str(pending.pop(0)))
        # A process may end while it is read; it is left out then.
        with suppress(FileNotFoundError, ProcessLookupError):
            found.append(_read_process(process))
            tasks = (process / "task").iterdir()
            children = [(task / "children").read_text().split() for task in tasks]
            pending += sorted(int(child) for line in children for child in line)
    return found


def memory_bytes(pid: int) -> int:
    """Return the memory (PSS) of a process and its descendants."""
    return sum(process.pss_bytes for process in read_tree(pid))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its descendants."""
    return sum(process.cpu_seconds for process in read_tree(pid))


def _read_process(process: Path) -> ProcessUsage:
    # The command name is in parentheses and may contain spaces.
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    status = _read_table(process / "status")
    return ProcessUsage(
        pid=int(process.name),
        cpu_seconds=sum(map(int, fields[_CPU_FIELDS])) * _TICK_SECONDS,
        pss_bytes=int(_read_table(process / "smaps_rollup").get("Pss", "0")) << 10,
        rss_bytes=int(status.get("VmRSS", "0")) << 10,
        descriptors=len(os.listdir(process / "fd")),
        threads=int(status["Threads"]),
        wakeups=int(status["voluntary_ctxt_switches"]),
    )


def _read_table(path: Path) -> dict[str, str]:
    """Return the first word of each value in a file with lines of the form `Key: value kB`."""
    pairs = (line.partition(":") for line in path.read_text().splitlines())
    return {key: (value.split() or [""])[0] for key, _, value in pairs}
