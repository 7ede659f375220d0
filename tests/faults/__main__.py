"""Runs the whole matrix, or the cells that are named.

    python -m tests.faults [--seeds N] [--short] [--jobs N] [CELL ...]

Exits with 1 where anything was wrong, and names the cells.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable

from tests.faults.cells import FAULTS, UNTOLD, Cell, whole
from tests.faults.judging import Verdict, directory, judge


def _judged(cell: Cell) -> Verdict:
    with directory() as root:
        return judge(cell, root)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="of each cell; default 2")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--part", type=int, default=1, help="only each so manieth cell")
    parser.add_argument("--short", action="store_true", help="no file beyond block 65535")
    parser.add_argument("cells", nargs="*", metavar="CELL", type=Cell.named)
    return parser.parse_args()


def main() -> int:
    """Run, and tell what was seen."""
    arguments = _arguments()
    cells = arguments.cells or list(whole(arguments.seeds, not arguments.short))[:: arguments.part]
    # The long ones first, so that the last process does not end alone.
    cells.sort(key=lambda cell: cell.octets // cell.blksize, reverse=True)
    began = time.monotonic()
    with multiprocessing.Pool(arguments.jobs) as pool:
        verdicts = pool.imap_unordered(_judged, cells, chunksize=8 if len(cells) > 1000 else 1)
        wrong = _tell(verdicts, talkative=bool(arguments.cells))
    print(f"{len(cells)} transfers in {time.monotonic() - began:.0f} s, {wrong} wrong")
    return 1 if wrong else 0


def _tell(verdicts: Iterable[Verdict], talkative: bool) -> int:
    """Print what is wrong, and a line for each fault; how many were wrong."""
    wrong = 0
    ran: Counter[str] = Counter()
    done: Counter[str] = Counter()
    unheard: Counter[str] = Counter()
    carried: Counter[str] = Counter()
    longest: dict[str, float] = dict.fromkeys(FAULTS | UNTOLD, 0.0)
    quiet: dict[str, float] = dict.fromkeys(FAULTS | UNTOLD, 0.0)
    for verdict in verdicts:
        if verdict.wrong or talkative:
            print(verdict.cell, *verdict.wrong or ["well"], verdict.error, sep="\n    ", flush=True)
            if talkative:
                print(f"    {verdict.ended:.3f} {verdict.quiet:.3f} s, {verdict.carried} datagrams")
        wrong += bool(verdict.wrong)
        for name in verdict.cell.faults:
            ran[name] += 1
            done[name] += verdict.done
            unheard[name] += verdict.unheard
            carried[name] += verdict.carried
            longest[name] = max(longest[name], verdict.ended)
            quiet[name] = max(quiet[name], verdict.quiet - verdict.ended)
    print("fault      transfers    done unheard  datagrams  longest  after")
    for name in (name for name in FAULTS | UNTOLD if ran[name]):
        numbers = f"{ran[name]:>10}{done[name]:>8}{unheard[name]:>8}{carried[name]:>11}"
        print(f"{name:<10}{numbers}{longest[name]:>9.0f}{quiet[name]:>7.0f}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
