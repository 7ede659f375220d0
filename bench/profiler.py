"""Profile of our server under the load of a scenario, sampled by py-spy."""

import signal
import subprocess
from collections import Counter

from bench.comparison import served_directory
from bench.generator import generate_load
from bench.load import create_file
from bench.processes import cpu_seconds
from bench.report import markdown_table
from bench.scenarios import Scenario
from bench.servers import OURS, SERVERS, Unavailable, find_program, running

_PY_SPY_OPTIONS = ["--subprocesses", "--function", "--rate", "500", "--format", "raw"]
_MAX_FUNCTIONS = 25
_STOP_SECONDS = 30.0


def profile(scenario: Scenario) -> str:
    """Return the time per block and a table of the functions that take it.

    Raises:
        Unavailable: py-spy is not installed, or may not trace processes.
    """
    with served_directory() as root, running(SERVERS[OURS], root) as server:
        create_file(root / scenario.file, scenario.size)
        job = scenario.job(server.port, root)
        output = server.work / "samples"
        command = [find_program("py-spy"), "record", *_PY_SPY_OPTIONS]
        command += ["--pid", str(server.pid), "--output", str(output)]
        sampler = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert sampler.stdout is not None
        sampler.stdout.readline()  # the sampler is attached, or has failed
        try:
            cpu_before = cpu_seconds(server.pid)
            result = generate_load(job, root)
            cpu = cpu_seconds(server.pid) - cpu_before
        finally:
            sampler.send_signal(signal.SIGINT)
            messages, _ = sampler.communicate(timeout=_STOP_SECONDS)
        if not output.exists():
            raise Unavailable(f"py-spy failed: {messages.decode(errors='replace').strip()}")
        blocks = job.transfers * (scenario.size // job.blksize + 1)
        return (
            f"{result.seconds * 1e6 / blocks:.2f} us per block, {cpu * 1e6 / blocks:.2f} us of CPU;"
            f" {result.failed} of {job.transfers} transfers failed\n\n"
            f"{summarise(output.read_text())}"
        )


def summarise(samples: str) -> str:
    """Return a table of the functions that were running most often.

    Args:
        samples: Lines of the form `function (file);function (file) COUNT`, as py-spy writes them.
    """
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        functions = stack.split(";")
        if functions[-1].startswith("Condition.wait "):
            continue  # an idle thread of a pool
        own[functions[-1]] += int(count)
        total.update(dict.fromkeys(functions, int(count)))
    lines = [
        [f"{count / own.total():.1%}", f"{total[function] / own.total():.1%}", function]
        for function, count in own.most_common(_MAX_FUNCTIONS)
    ]
    return markdown_table(["own", "with callees", "function"], lines)
