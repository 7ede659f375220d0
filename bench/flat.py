"""Whether what was sampled in a soak is flat."""

from collections.abc import Sequence
from statistics import median

from bench.vitals import Record, Sample

# Of the time under load: what is measured before has come to its working set,
# caches, pools of threads, arenas, and what is at the end must be no more.
WARM_UP = 1 / 6
WINDOW = 1 / 6

# Octets of a process: four times what the medians of one that leaks nothing were
# seen to differ by. In half an hour, with 30,000 acts between the two times, a
# leak of 280 octets an act would show.
MEMORY_BOUND = 8 << 20

# What the reactor's pool of threads (10) and that of the openers (20) may come to.
_POOLS = 30

_LOST = 0.001  # of all acts: on a busy machine nobody has a processor all the time


def risen(record: Record) -> list[str]:
    """What is not flat, in words; empty if all is well."""
    before = [sample for sample in record.samples if sample.at < 0]
    after = [sample for sample in record.samples if sample.at > record.load]
    if not before or not after:
        return ["too short to tell"]
    first, last = before[-1], after[-1]
    if [process.pid for process in first.processes] != [one.pid for one in last.processes]:
        return ["processes died", *_of_outcomes(record)]
    return [
        *_of_processes(first, last),
        *_of_memory(record),
        *_left(last),
        *_of_outcomes(record),
    ]


def _of_processes(first: Sample, last: Sample) -> list[str]:
    found = []
    for was, now in zip(first.processes, last.processes, strict=True):
        if now.descriptors > was.descriptors:
            found.append(f"{was.pid}: {now.descriptors} descriptors, {was.descriptors} before")
        if now.threads > was.threads + _POOLS:
            found.append(f"{was.pid}: {now.threads} threads, {was.threads} before")
    return found


def _of_memory(record: Record) -> list[str]:
    """Of each process: the end of the load beside the time after warm-up."""
    load = record.load
    early = _between(record, WARM_UP * load, (WARM_UP + WINDOW) * load)
    late = _between(record, (1 - WINDOW) * load, load)
    if not early or not late:
        return ["too short to tell"]
    found = []
    for number, process in enumerate(early[0].processes):
        was, now = _memory(early, number), _memory(late, number)
        if now > was + MEMORY_BOUND:
            found.append(f"{process.pid}: {_mib(now)} in memory, {_mib(was)} after warm-up")
    return found


def _left(last: Sample) -> list[str]:
    found = []
    if last.sessions < 0:
        found.append("the status page does not answer")
    elif last.sessions:
        found.append(f"{last.sessions} sessions are left")
    if last.temporaries:
        found.append(f"{last.temporaries} temporary files are left")
    return found


def _of_outcomes(record: Record) -> list[str]:
    found = [f"the log has: {bug}" for bug in record.bugs]
    if wrong := record.total("wrong"):
        found.append(f"{wrong} transfers had wrong octets")
    if (lost := record.total("lost")) > max(1, _LOST * record.samples[-1].ended):
        found.append(f"{lost} acts came to no end: {record.told[0]}")
    if unexpected := record.total("unexpected"):
        found.append(f"{unexpected} acts ended as none should: {record.told[0]}")
    was, now = record.wakes
    if now > 2 * was + 5:  # a second: a timer of 0.2 s that nobody stopped
        found.append(f"{now:.1f} wake-ups a second at rest, {was:.1f} before")
    return found


def _between(record: Record, begin: float, end: float) -> list[Sample]:
    whole = len(record.samples[0].processes)
    return [s for s in record.samples if begin <= s.at <= end and len(s.processes) == whole]


def _memory(samples: Sequence[Sample], number: int) -> float:
    return median(sample.processes[number].memory for sample in samples)


def _mib(octets: float) -> str:
    return f"{octets / (1 << 20):.1f} MiB"
