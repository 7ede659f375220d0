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
