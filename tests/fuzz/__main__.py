"""Fuzz with atheris: `python -m tests.fuzz [TARGET ...] [-LIBFUZZER_OPTION=VALUE ...]`."""

import argparse
import importlib.util
import logging
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.harness import CORPUS, TESTS, all_targets, load_target, memory_directory

_COMMAND = [sys.executable, "-m", "tests.fuzz", "--in-process"]
_DICTIONARY = Path(__file__).parent / "templates.dict"
# An input that takes longer than 20 s or more than 2 GiB is a finding.
_OPTIONS = ["-max_len=2048", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]


def main(arguments: list[str]) -> int:
    """Run the command; return 1 if there is a finding."""
    if arguments[:1] == ["--in-process"]:
        _fuzz_in_this_process(*arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(all_targets()))
    parser.add_argument("--seconds", type=int, default=60, help="time for each target (60)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write new inputs to DIR/TARGET")
    chosen, options = parser.parse_known_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed; install it with: pip install 'tftpd[fuzz]'")
    options = [f"-max_total_time={chosen.seconds}", *options]
    results = [_fuzz(name, chosen.keep, options) for name in chosen.targets or all_targets()]
    return 0 if all(results) else 1


def _fuzz(target: str, keep: Path | None, options: list[str]) -> bool:
    """Fuzz one target in a process of its own; return False if there was a finding."""
    with tempfile.TemporaryDirectory(prefix="tftpd-fuzz-", dir=memory_directory()) as scratch:
        new_inputs = (keep or Path(scratch)).absolute() / target
        new_inputs.mkdir(parents=True, exist_ok=True)
        directories = [new_inputs, *CORPUS.glob(target)]
        done = subprocess.run(
            [*_COMMAND, target, *options, f"-artifact_prefix={Path.cwd()}/fuzz-", *directories],
            cwd=TESTS.parent,
            env={**os.environ, "TMPDIR": scratch},
            capture_output=True,
            text=True,
            errors="replace",
        )
    executions, coverage = (
        max(map(int, re.findall(pattern, done.stderr)), default=0)
        for pattern in (r"number_of_executed_units: *(\d+)", r" cov: (\d+)")
    )
    print(f"{target:28} {executions:9} executions, coverage {coverage}", flush=True)
    if done.returncode != 0:
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n", file=sys.stderr)
    return done.returncode == 0


def _fuzz_in_this_process(target: str, *options: str) -> None:
    """Fuzz one target; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["tftpd", "yaml", "jinja2"]):
        check = load_target(target)
    logging.disable()
    dictionary = [f"-dict={_DICTIONARY}"] if target == "templates" else []
    # To merge, libFuzzer starts this command again, through a shell and without quotes.
    atheris.Setup([" ".join([*_COMMAND, target]), *_OPTIONS, *dictionary, *options], check)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
