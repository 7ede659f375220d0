"""`python -m fuzz`: feed a target, or all of them, what nobody would send."""

import argparse
import sys
from pathlib import Path

from fuzz.running import MISSING, available, merge, run
from fuzz.targets import NAMES


def main(arguments: list[str]) -> int:
    """Do what the command line says; 1 where something was found, 2 where nothing can be done."""
    options = _parser().parse_args(arguments)
    if not available():
        print(MISSING, file=sys.stderr)
        return 2
    targets = NAMES if options.all else options.targets
    if options.merge is not None:
        for target in targets:
            merge(target, options.merge / target)
        return 0
    found: list[Path] = []
    for target in targets:
        keep = options.keep and options.keep / target
        said = run(target, options.seconds, keep)
        print(said.line(), flush=True)
        found += said.findings
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*NAMES, []], metavar="TARGET")
    parser.add_argument("--all", action="store_true", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=float, default=60.0, help="of each target; 60")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what reached something new")
    parser.add_argument(
        "--merge", type=Path, metavar="DIR", help="add to the corpus what --keep has kept there"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
