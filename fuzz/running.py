"""Runs of atheris, one after the other until the time is over, and what they say."""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FINDINGS = HERE / "findings"

MISSING = "atheris is not installed: pip install 'tftpd[fuzz]', where there is a wheel of it"

_MOST_FINDINGS = 5  # then there is something to mend first
_SLOW = 20  # seconds of one input, which is a finding then
_MEMORY = 2048  # MiB, likewise
_SPARE = 60.0  # seconds to read the corpus and to end

_DONE = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_COVERED = re.compile(r"cov: (\d+)")
_ARTIFACT = re.compile(r"Test unit written to (.+)")


@dataclass
class Said:
    """What was seen of one target. `findings` are files."""

    target: str
    executions: int = 0
    coverage: int = 0  # branches and values that libFuzzer tells apart
    seconds: float = 0.0
    findings: list[Path] = field(default_factory=list)

    def line(self) -> str:
        """One line for people."""
        return (
            f"{self.target:10} {self.executions:9,} executions in {self.seconds:6.0f} s, "
            f"coverage {self.coverage:5}, findings {len(self.findings)}"
        )


def available() -> bool:
    """Whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


def run(target: str, seconds: float, keep: Path | None = None) -> Said:
    """Fuzz `target` for so long; inputs that reach something new stay in `keep`."""
    said = Said(target)
    began = time.monotonic()
    with _place() as temporary:
        corpus = keep or temporary / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        while said.seconds < seconds and len(said.findings) < _MOST_FINDINGS:
            left = max(1, round(seconds - said.seconds))
            _once(said, [f"-max_total_time={left}", str(corpus), str(CORPUS / target)], left)
            said.seconds = time.monotonic() - began
    return said


def merge(target: str, found: Path) -> None:
    """Add to the corpus what is in `found` and reaches what the corpus does not."""
    with _place():
        _once(Said(target), ["-set_cover_merge=1", str(CORPUS / target), str(found)], 600)


@contextmanager
def _place() -> Iterator[Path]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tftpd-fuzz-", dir=memory) as made:
        before = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = made
        try:
            yield Path(made)
        finally:
            if before is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = before


def _once(said: Said, arguments: list[str], seconds: float) -> None:
    """One process; what it found is told as it comes."""
    for place in (CORPUS, FINDINGS):
        (place / said.target).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fuzz.guided", said.target]
    command += [f"-timeout={_SLOW}", f"-rss_limit_mb={_MEMORY}", "-print_final_stats=1"]
    command += [f"-artifact_prefix={FINDINGS / said.target}/", *arguments]
    done = subprocess.run(
        command,
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds + _SPARE + _SLOW,
        check=False,
    )
    _read(said, done.stderr)
    artifact = _ARTIFACT.search(done.stderr)
    if artifact is not None:
        said.findings.append(Path(artifact[1]))
        print(done.stdout[-4000:], done.stderr[-3000:], sep="\n", file=sys.stderr)
    elif done.returncode != 0:
        raise RuntimeError(f"the fuzzer ended by itself:\n{done.stderr[-3000:]}")


def _read(said: Said, told: str) -> None:
    executed = _DONE.search(told)
    said.executions += int(executed[1]) if executed else 0
    for covered in _COVERED.finditer(told):
        said.coverage = max(said.coverage, int(covered[1]))
