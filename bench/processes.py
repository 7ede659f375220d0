"""What a process and its descendants use, as Linux's /proc tells it."""

import os
from dataclasses import dataclass

_TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds
_CPU = slice(11, 15)  # utime, stime, cutime, cstime: counted from the field after the name


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of CPU, children that ended included, and octets of memory.

    Memory is the proportional share (PSS): what processes share counts once.
    """

    cpu: float
    memory: int


@dataclass(frozen=True, slots=True)
class Process:
    """What one process holds: octets in memory (RSS), descriptors, and threads."""

    pid: int
    memory: int
    descriptors: int
    threads: int


def usage(pid: int) -> Usage:
    """The sum over `pid` and its descendants; what has ended meanwhile counts nothing."""
    cpu, memory, waiting = 0.0, 0, [pid]
    while waiting:
        process = waiting.pop()
        try:
            cpu += _cpu(process)
            memory += _memory(process)
            waiting += _children(process)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return Usage(cpu, memory)


def processes(pid: int) -> list[Process]:
    """`pid` and its descendants, parents first; none that ended meanwhile."""
    found: list[Process] = []
    for process in _family(pid):
        try:
            said = _said(process)
            descriptors = len(os.listdir(f"/proc/{process}/fd"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        memory = int(said["VmRSS"].split()[0]) << 10
        found.append(Process(process, memory, descriptors, int(said["Threads"])))
    return found


def wakes(pid: int) -> int:
    """How often `pid` and its descendants have waited for something and were woken."""
    return sum(int(_said(process)["voluntary_ctxt_switches"]) for process in _family(pid))


def _family(pid: int) -> list[int]:
    family, waiting = [], [pid]
    while waiting:
        process = waiting.pop(0)
        try:
            waiting += sorted(_children(process))
        except (FileNotFoundError, ProcessLookupError):
            continue
        family.append(process)
    return family


def _said(pid: int) -> dict[str, str]:
    lines = (line.partition(":") for line in _read(pid, "status").splitlines())
    return {key: value.strip() for key, _, value in lines}


def _cpu(pid: int) -> float:
    # The name in parentheses may hold spaces.
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return sum(map(int, fields[_CPU])) * _TICK


def _memory(pid: int) -> int:
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        found += map(int, _read(pid, f"task/{thread}/children").split())
    return found


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}") as file:
        return file.read()
