"""Run all cells of the matrix of faults, or the cells that are named.

    python -m tests.faults [--seeds N] [--short] [--jobs N] [CELL ...]

Prints each transfer that fails a check. Exits with 1 if there is any.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable

from tests.faults.cell_runner import Verdict, run_cell, temporary_directory
from tests.faults.cells import FAULTS, UNDETECTABLE, Cell, all_cells


def _run(cell: Cell) -> Verdict:
    with temporary_directory() as root:
        return run_cell(cell, root)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="seeds for each cell (2)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--part", type=int, default=1, help="run every Nth cell only (1)")
    parser.add_argument("--short", action="store_true", help="no file beyond block 65535")
    parser.add_argument("cells", nargs="*", metavar="CELL", type=Cell.parse)
    return parser.parse_args()


def main() -> int:
    """Run the cells and print the results; return the exit status."""
    arguments = _arguments()
    cells = arguments.cells or list(all_cells(arguments.seeds, not arguments.short))
    if not arguments.cells:
        cells = cells[:: arguments.part]
    # Long transfers first, so that no process is still busy with one when the others end.
    cells.sort(key=lambda cell: cell.wire_bytes // cell.blksize, reverse=True)
    start = time.monotonic()
    with multiprocessing.Pool(arguments.jobs) as pool:
        verdicts = pool.imap_unordered(_run, cells, chunksize=8 if len(cells) > 1000 else 1)
        failed = _print_results(verdicts, verbose=bool(arguments.cells))
    print(f"{len(cells)} transfers in {time.monotonic() - start:.0f} s, {failed} failed")
    return 1 if failed else 0


def _print_results(verdicts: Iterable[Verdict], verbose: bool) -> int:
    """Print the failures and a line for each fault; return the number of failed transfers."""
    failed = 0
    transfers: Counter[str] = Counter()
    complete: Counter[str] = Counter()
    unconfirmed: Counter[str] = Counter()
    datagrams: Counter[str] = Counter()
    longest: dict[str, float] = dict.fromkeys(FAULTS | UNDETECTABLE, 0.0)
    idle_after: dict[str, float] = dict.fromkeys(FAULTS | UNDETECTABLE, 0.0)
    for verdict in verdicts:
        if verdict.failures or verbose:
            lines = verdict.failures or ["all checks passed"]
            print(verdict.cell, *lines, verdict.error, sep="\n    ", flush=True)
            if verbose:
                times = f"{verdict.client_end:.3f} {verdict.idle_at:.3f} s"
                print(f"    {times}, {verdict.datagrams} datagrams")
        failed += bool(verdict.failures)
        for name in verdict.cell.faults:
            transfers[name] += 1
            complete[name] += verdict.complete
            unconfirmed[name] += verdict.unconfirmed
            datagrams[name] += verdict.datagrams
            longest[name] = max(longest[name], verdict.client_end)
            idle_after[name] = max(idle_after[name], verdict.idle_at - verdict.client_end)
    print("fault      transfers complete unconfirmed  datagrams  longest  idle after")
    for name in (name for name in FAULTS | UNDETECTABLE if transfers[name]):
        counts = f"{transfers[name]:>10}{complete[name]:>9}{unconfirmed[name]:>12}"
        times = f"{longest[name]:>9.0f}{idle_after[name]:>12.0f}"
        print(f"{name:<10}{counts}{datagrams[name]:>11}{times}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
