"""`python -m tests.mutation [FLOOR ...]`: are faults that are put into a floor seen by its tests?

mutmut puts them in, one at a time, in a copy of the tree. Each floor is asked
by its own tests only. What survives is printed as a difference; it is killed
by a test that says what it breaks, or explained in tests/mutation/known.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from tests.mutation.known import Mutant, known, mutant

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Floor:
    """Modules to change, and the tests that have to see it."""

    modules: str
    tests: tuple[str, ...]


FLOORS = {
    "protocol": Floor("tftpd/protocol/*", ("tests/protocol",)),
    "access": Floor(
        "tftpd/access/*",
        ("tests/access", "tests/server/test_names.py", "tests/server/test_roots.py"),
    ),
}

# What mutmut notes of a mutant: pytest's exit code, or the signal that ended it.
_VERDICTS = {0: "survived", 1: "killed", 3: "killed", 5: "no test", 33: "no test"}


def copied(floor: Floor, tree: Path) -> None:
    """Make `tree` a copy of the checkout that mutmut can run in."""
    tree.mkdir(parents=True, exist_ok=True)
    for name in ("tftpd", "tests", "setup.cfg", "pyproject.toml"):
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, dirs_exist_ok=True)
        else:
            shutil.copy(source, tree / name)
    lines = [
        "",
        "[mutmut]",
        "source_paths = tftpd",
        f"only_mutate = {floor.modules}",
        "timeout_multiplier = 3",
        "timeout_constant = 10",
        "pytest_add_cli_args_test_selection =",
        *(f"    {tests}" for tests in floor.tests),
        "pytest_add_cli_args =",
        *(f"    {word}" for word in ("-p", "no:cacheprovider", "-p", "tests.mutation.fewer")),
        "",
    ]
    with (tree / "setup.cfg").open("a") as settings:
        settings.write("\n".join(lines))


def verdicts(tree: Path) -> dict[str, str]:
    """What became of each mutant, by its name."""
    made: dict[str, str] = {}
    for noted in sorted(tree.glob("mutants/tftpd/**/*.meta")):
        for name, code in json.loads(noted.read_text())["exit_code_by_key"].items():
            made[name] = "not run" if code is None else _VERDICTS.get(code, "timed out")
    return made


def changed(tree: Path, name: str) -> list[str]:
    """The lines that a mutant has in place of others."""
    shown = subprocess.run(
        [sys.executable, "-m", "mutmut", "show", name], cwd=tree, capture_output=True, text=True
    )
    lines = [line for line in shown.stdout.splitlines() if line[:1] in ("-", "+")]
    return [line for line in lines if not line.startswith(("---", "+++"))]


def unexplained(floor: str, tree: Path, found: dict[str, str]) -> int:
    """How many mutants no test has seen and nobody has explained; prints them.

    As `known/FLOOR.txt` has them, but for the reason.
    """
    count, reasons = 0, known(floor)
    again: set[Mutant] = set()
    for name, verdict in found.items():
        if verdict in ("killed", "timed out"):
            continue
        lines = changed(tree, name) if verdict == "survived" else []
        written = mutant(name, lines)
        again.add(written)
        if written not in reasons:
            count += 1
            print(f"# {name}: {verdict}", "", written[0], *lines, "", sep="\n", flush=True)
    for written in reasons.keys() - again:
        print("# explained, and not found:", *written, "", sep="\n")
    return count


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and print; 1 where a mutant lives on that is not explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("floors", nargs="*", metavar="FLOOR", help=f"of {', '.join(FLOORS)}")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--trees", type=Path, help="directory to keep, and to go on from")
    parser.add_argument("--only", nargs="*", default=[], help="names of mutants to ask again")
    parser.add_argument("--report", action="store_true", help="only tell what is known")
    options = parser.parse_args(arguments)
    unknown = set(options.floors) - set(FLOORS)
    if unknown:
        parser.error(f"no such floor: {', '.join(sorted(unknown))}")
    status = 0
    trees = options.trees or Path(mkdtemp(prefix="tftpd-mutants-"))
    for name in options.floors or FLOORS:
        tree = trees / name
        if not options.report:
            copied(FLOORS[name], tree)
            command = [sys.executable, "-m", "mutmut", "run", *options.only]
            command += ["--max-children", str(options.processes)]
            with (trees / f"{name}.log").open("w") as log:
                subprocess.run(command, cwd=tree, stdout=log, stderr=log, check=False)
        found = verdicts(tree)
        left = unexplained(name, tree, found)
        if left or not found:
            status = 1
        counts = Counter(found.values())
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        print(f"{name}: {len(found)} mutants: {told}; {left} unexplained", flush=True)
    print(f"the trees are in {trees}")
    return status


if __name__ == "__main__":
    sys.exit(main())
