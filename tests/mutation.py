"""Run mutmut, which changes one thing at a time in `tftpd` and runs the tests: `make mutants`.

The section `[mutmut]` of setup.cfg says which packages are changed. A mutant that survives shows
a missing test, or it is equivalent to the original: `encode("UTF-8")` for `encode("utf-8")`, `None`
for `False`, or another first value of an attribute that is set before it is read. Equivalent
mutants stay; the limit below leaves space for them. For each other survivor:

1. `mutmut show NAME` prints its difference.
2. Write a test that fails with this difference, beside the tests of the module.
3. `make mutants MUTANTS=NAME` tries this mutant again.
"""

import json
import subprocess
import sys
from pathlib import Path

_MUTMUT = [sys.executable, "-m", "mutmut"]
_STATISTICS = Path("mutants/mutmut-cicd-stats.json")
_MAX_SURVIVORS = 0.05  # of all mutants; 3 % were equivalent when all survivors were read


def main(arguments: list[str]) -> int:
    """Try all mutants or the named ones; return 1 if too many survive."""
    subprocess.run([*_MUTMUT, "run", *arguments], check=True)
    results = subprocess.run([*_MUTMUT, "results"], check=True, capture_output=True, text=True)
    print(*(line for line in results.stdout.splitlines() if "not checked" not in line), sep="\n")
    subprocess.run([*_MUTMUT, "export-cicd-stats"], check=True)
    counts = json.loads(_STATISTICS.read_text())
    survivors = counts["survived"] + counts["no_tests"]
    print(f"{survivors} of {counts['total']} mutants survived")
    return int(survivors > _MAX_SURVIVORS * counts["total"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
