"""Four daemons behind a router that spreads requests: restarts, failures and many machines.

    machines (10.9.0.0/16) - router (nft jhash) - 4 nodes (10.8.N.2)

Each is a network namespace. The router translates 10.96.0.69 port 69 to the address of a node. A
balancer asks each node for /health ten times a second. It sends new clients to nodes that answer
200, and deletes the flows of a node that does not answer at all.
"""

import http.client
import json
import os
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from bench.generator import compile_program
from bench.servers import Unavailable, find_program
from tests.support.daemons import CHECKOUT, twistd, until
from tests.support.hosts import Host, host

NODES = (1, 2, 3, 4)
ADDRESS = "10.96.0.69"
KIB, MIB = 1 << 10, 1 << 20

_SOURCE = Path(__file__).with_name("machines.c")
_FIRST_MACHINE = "10.9.1.0"
_CHECK_SECONDS = 0.1
_MAX_SILENT_CHECKS = 4  # a node that refuses connections is dead at once
_DRAIN_DELAY_SECONDS = 3.0  # longer than the first repetitions of a request
_CLIENT_TIMEOUT_SECONDS, _CLIENT_RETRIES = 1.0, 5
_LIMIT_SECONDS = 1800.0
_ROLLING_SECONDS = 40.0  # time in which machines start during a rolling restart
_STARTS_WITHIN_SECONDS = 120.0  # on a machine with other work
_STATUS_PORT = 9169

_FILES = {"boot": 20 * KIB, "large": MIB, "loader": 42 * KIB, "module": 118 * KIB, "menu": KIB}
_IMAGE = {"image": 8 * MIB}
_MISSES = 9  # names that a loader tries before `menu`, as PXELINUX does

Progress = Callable[[str], None]


def make_rules(nodes: list[int]) -> str:
    """Return the ruleset of the router that spreads new flows over nodes."""
    table = "table ip tftp\ndelete table ip tftp\n"
    if not nodes:
        return table
    targets = ", ".join(f"{n} : {_node_address(node)}" for n, node in enumerate(nodes))
    return (
        f"{table}table ip tftp {{\n  chain prerouting {{\n"
        "    type nat hook prerouting priority dstnat;\n"
        f"    ip daddr {ADDRESS} udp dport 69 "
        f"dnat to jhash ip saddr . udp sport mod {len(nodes)} map {{ {targets} }}\n  }}\n}}\n"
    )


def _node_address(node: int) -> str:
    return f"10.8.{node}.2"


@dataclass
class Load:
    """Machines that boot.

    Attributes:
        machines: Number of machines.
        at_once: Largest number of machines that boot at the same time.
        files: Requested names, and the names of the files that they are equal to; None if the
            server must refuse the name.
        per_second: Machines that start in a second; 0 for no limit.
        windowsize: Requested window in blocks of 1428 bytes.
    """

    machines: int
    at_once: int
    files: list[tuple[str, str | None]]
    per_second: float = 0.0
    windowsize: int = 64


@dataclass
class Outcome:
    """Result of a load.

    Attributes:
        seconds: Duration of each successful boot.
        failures: Reason of each failed one.
        timeline: Seconds, running machines, ended machines and bytes, twice a second.
    """

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    timeline: list[tuple[float, int, int, int]] = field(default_factory=list)

    @property
    def duration(self) -> float:
        """Seconds until the last machine has ended."""
        return self.timeline[-1][0]

    def quantile(self, share: float) -> float:
        """Return the duration that this share of the successful boots does not exceed."""
        return sorted(self.seconds)[int(share * (len(self.seconds) - 1))]


class Balancer:
    """Health checks and rules of the router, in a thread."""

    def __init__(self, router: Host) -> None:
        self._router = router
        self._ended = threading.Event()
        self.ready: list[int] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the checks during the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join()

    def _run(self) -> None:
        silent = dict.fromkeys(NODES, _MAX_SILENT_CHECKS)
        with self._router.entered():
            while not self._ended.wait(_CHECK_SECONDS):
                codes = {node: _check_health(node) for node in NODES}
                ready, dead = [], []
                for node, code in codes.items():
                    was_silent = silent[node] >= _MAX_SILENT_CHECKS
                    silent[node] = {None: silent[node] + 1, 0: _MAX_SILENT_CHECKS}.get(code, 0)
                    is_silent = silent[node] >= _MAX_SILENT_CHECKS
                    if code == http.client.OK or (code is None and node in self.ready):
                        ready += [] if is_silent else [node]
                    if is_silent and not was_silent:
                        dead.append(node)
                if ready != self.ready:
                    self._router.run("nft", "-f", "-", input=make_rules(ready).encode())
                    self.ready = ready
                for node in dead:
                    # Exits with 1 if there was no flow.
                    delete = ("conntrack", "-D", "-p", "udp", "--reply-src", _node_address(node))
                    self._router.attempt(*delete)


def _check_health(node: int) -> int | None:
    """Return the status code of /health; 0 if the node refuses, None if it is too slow."""
    try:
        return fetch(node, "/health")[0]
    except TimeoutError:
        return None
    except (OSError, http.client.HTTPException):
        return 0


def fetch(node: int, path: str, timeout: float = 2.0) -> tuple[int, bytes]:
    """Return the status code and the body of a page of a node, in the router's namespace."""
    connection = http.client.HTTPConnection(_node_address(node), _STATUS_PORT, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class Fleet:
    """Namespaces, nodes and balancer. Use it as a context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Fleet":
        with ExitStack() as stack:
            self._directory = Path(stack.enter_context(TemporaryDirectory(prefix="tftpd-fleet-")))
            self._machines, self._router = (stack.enter_context(host()) for _ in range(2))
            self._hosts = {node: stack.enter_context(host()) for node in NODES}
            self._connect()
            self._write_files()
            stack.callback(self._kill_all)
            for node in NODES:
                self.start(node)
            self._balancer = Balancer(self._router)
            stack.enter_context(self._balancer.running())
            self.await_ready(*NODES)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _connect(self) -> None:
        machines, router = self._machines, self._router
        _link(machines, "10.7.0.2", router, "10.7.0.1", "machines")
        # All addresses of the network belong to this host.
        machines.run("ip", "route", "add", "local", "10.9.0.0/16", "dev", "lo")
        router.run("ip", "route", "add", "10.9.0.0/16", "via", "10.7.0.2")
        for node, node_host in self._hosts.items():
            _link(node_host, _node_address(node), router, f"10.8.{node}.1", f"node{node}")
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")

    def _write_files(self) -> None:
        root = self._directory / "root"
        root.mkdir()
        for name, size in {**_FILES, **_IMAGE}.items():
            (root / name).write_bytes(os.urandom(size))
        document = {
            "listen": [{"address": "0.0.0.0", "mode": "single-port"}],
            "directories": [{"path": "/", "root": str(root), "read": True}],
            "status": {"address": "0.0.0.0", "port": _STATUS_PORT},
            "drain_delay": _DRAIN_DELAY_SECONDS,
            "log": {"level": "warn"},
        }
        for node in NODES:
            text = yaml.safe_dump({**document, "node": f"node{node}"})
            (self._directory / f"{node}.yaml").write_text(text)

    def start(self, node: int) -> None:
        """Start the daemon of a node."""
        command = twistd("tftp", "--config", str(self._directory / f"{node}.yaml"))
        with (self._directory / f"{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                self._hosts[node].enter(*command),
                env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
                cwd=self._directory,
                stdout=log,
                stderr=log,
            )

    def await_ready(self, *nodes: int) -> None:
        """Wait until the balancer sends clients to these nodes."""
        until(lambda: set(nodes) <= set(self._balancer.ready), _STARTS_WITHIN_SECONDS)

    def restart(self, node: int) -> None:
        """Stop a node as a rolling restart does, start it again, and wait until it is ready."""
        process = self._processes[node]
        process.send_signal(signal.SIGTERM)
        process.wait(_STARTS_WITHIN_SECONDS)
        until(lambda: node not in self._balancer.ready, _STARTS_WITHIN_SECONDS)
        self.start(node)
        self.await_ready(node)

    def kill(self, node: int) -> int:
        """Kill a node with SIGKILL; return the number of transfers that it had just before."""
        with self._router.entered():
            status = json.loads(fetch(node, "/status", _STARTS_WITHIN_SECONDS)[1])
        self._processes[node].kill()
        self._processes[node].wait()
        states = status["sessions"]["read"]
        return int(states["opening"] + states["running"])

    def run(self, load: Load) -> Outcome:
        """Let machines boot, and return the result when the last one has ended."""
        program = compile_program(_SOURCE)
        numbers = (
            *(load.machines, load.at_once, load.per_second, 1428, load.windowsize),
            *(_CLIENT_TIMEOUT_SECONDS, _CLIENT_RETRIES, _LIMIT_SECONDS),
        )
        command = [program, ADDRESS, "69", _FIRST_MACHINE, *(f"{float(n)}" for n in numbers)]
        for name, content in load.files:
            command += [name, "-" if content is None else str(self._directory / "root" / content)]
        done = subprocess.run(
            self._machines.enter(*command), capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            raise Unavailable(f"machines: {done.stderr.strip() or done.returncode}")
        return _parse(done.stdout)

    def usage(self) -> dict[int, tuple[float, float]]:
        """Return the CPU seconds and the peak memory in MiB of each node's daemon."""
        return {node: _usage(process.pid) for node, process in self._processes.items()}

    def _kill_all(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


def _link(one: Host, one_address: str, router: Host, router_address: str, name: str) -> None:
    """Connect a host to the router, which is its default gateway."""
    peer = ("peer", "name", name, "netns", str(router.pid))
    one.run("ip", "link", "add", "eth0", "type", "veth", *peer)
    for place, address, interface in ((one, one_address, "eth0"), (router, router_address, name)):
        place.run("ip", "address", "add", f"{address}/24", "dev", interface)
        place.run("ip", "link", "set", interface, "up")
    one.run("ip", "route", "add", "default", "via", router_address)


def _usage(pid: int) -> tuple[float, float]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    status = Path(f"/proc/{pid}/status").read_text()
    return seconds, int(status.partition("VmHWM:")[2].split()[0]) / KIB


def _parse(output: str) -> Outcome:
    outcome = Outcome()
    for line in output.splitlines():
        kind, _, text = line.partition(" ")
        if kind == "ok":
            outcome.seconds.append(float(text))
        elif kind == "failed":
            outcome.failures.append(text)
        elif kind == "at":
            time, *counts = text.split()
            running, ended, n_bytes = map(int, counts)
            outcome.timeline.append((float(time), running, ended, n_bytes))
    return outcome


@contextmanager
def _meanwhile(action: Callable[[], None], delay: float = 1.0) -> Iterator[None]:
    """Run an action in a thread during the block, `delay` seconds after its start."""
    problems: list[BaseException] = []

    def work() -> None:
        time.sleep(delay)
        try:
            action()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if problems:
        raise problems[0]


def measure_rolling_restart(fleet: Fleet, machines: int) -> dict[str, Any]:
    """Restart all nodes one after the other while machines read a file of 20 KiB."""
    rolled = 0.0
    began = time.monotonic()

    def roll() -> None:
        nonlocal rolled
        for node in NODES:
            fleet.restart(node)
        rolled = time.monotonic() - began

    with _meanwhile(roll):
        outcome = fleet.run(Load(machines, 500, [("boot", "boot")], machines / _ROLLING_SECONDS))
    return {**_summary(outcome), "rolled_seconds": rolled}


def measure_kill(fleet: Fleet, machines: int) -> dict[str, Any]:
    """Kill a node while machines read a file of 1 MiB."""
    running = 0

    def kill() -> None:
        nonlocal running
        running = fleet.kill(NODES[0])

    with _meanwhile(kill):
        outcome = fleet.run(Load(machines, 200, [("large", "large")]))
    fleet.start(NODES[0])
    fleet.await_ready(*NODES)
    return {**_summary(outcome), "ran_there": running}


def simulate(fleet: Fleet, machines: int) -> dict[str, Any]:
    """Let machines boot: three small files, nine names that do not exist, and 8 MiB."""
    missing: list[tuple[str, str | None]] = [(f"conf/{n}-%", None) for n in range(_MISSES)]
    files: list[tuple[str, str | None]] = [("loader", "loader"), ("module", "module")]
    files += [*missing, ("menu", "menu"), ("image", "image")]
    before = fleet.usage()
    outcome = fleet.run(Load(machines, 400, files))
    after = fleet.usage()
    seconds = outcome.duration
    return {
        **_summary(outcome),
        "duration": seconds,
        "megabytes_per_second": outcome.timeline[-1][3] / seconds / 1e6,
        "requests_per_second": machines * len(files) / seconds,
        "cpu_shares": [(after[node][0] - before[node][0]) / seconds for node in NODES],
        "peak_mib": [after[node][1] for node in NODES],
        "timeline": outcome.timeline,
    }


def _summary(outcome: Outcome) -> dict[str, Any]:
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {
        "ok": len(outcome.seconds),
        "failed": len(outcome.failures),
        "reasons": sorted(set(outcome.failures))[:10],
        **{name: outcome.quantile(share) for name, share in shares.items() if outcome.seconds},
    }


def measure_fleet(
    machines: int, rounds: int, progress: Progress, boots: int = 20_000, reads: int = 1_500
) -> dict[str, Any]:
    """Measure restarts, kills and a simulation.

    Args:
        machines: Machines of the simulation.
        rounds: Number of rolling restarts, and of kills.
        progress: Called with a line after each measurement.
        boots: Machines that boot during a rolling restart.
        reads: Machines that boot while a node is killed.

    Raises:
        Unavailable: A program is missing.
    """
    for name in ("nft", "conntrack", "sysctl"):
        find_program(name)
    report: dict[str, Any] = {"rolling": [], "kill": []}
    with Fleet() as fleet:
        for _ in range(rounds):
            report["rolling"].append(measure_rolling_restart(fleet, boots))
            progress(f"rolling restart: {report['rolling'][-1]}")
            report["kill"].append(measure_kill(fleet, reads))
            progress(f"kill: {report['kill'][-1]}")
        report["simulation"] = simulate(fleet, machines)
        progress(f"simulation: {machines} machines in {report['simulation']['duration']:.0f} s")
    return report


def describe_fleet(report: dict[str, Any]) -> str:
    """Return the tables of a report."""
    lines = [
        "| measurement | failed | p50 | p99 | longest |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, text in {
        "rolling": "{total:,} boots of 20 KiB, all nodes restarted in {rolled_seconds:.0f} s",
        "kill": "{total:,} boots of 1 MiB, a node killed with {ran_there} transfers",
    }.items():
        for run in report[name]:
            total = run["ok"] + run["failed"]
            times = " | ".join(f"{run[key]:.3f} s" for key in ("p50", "p99", "max"))
            lines.append(f"| {text.format(total=total, **run)} | {run['failed']} | {times} |")
        if report[name]:
            median = statistics.median(run["p99"] for run in report[name])
            lines.append(f"| median of p99 | | | {median:.3f} s | |")
    found = report["simulation"]
    lines += [
        "",
        "| simulation | |",
        "| --- | --- |",
        f"| machines, failed | {found['ok'] + found['failed']:,}, {found['failed']} |",
        f"| duration | {found['duration']:.0f} s |",
        f"| throughput | {found['megabytes_per_second']:.0f} MB/s |",
        f"| requests | {found['requests_per_second']:.0f} per second |",
        "| boot of a machine, p50, p99, longest | "
        f"{found['p50']:.1f} s, {found['p99']:.1f} s, {found['max']:.1f} s |",
        "| CPU of each node, in processors | "
        f"{', '.join(f'{share:.2f}' for share in found['cpu_shares'])} |",
        "| peak memory of each node, in MiB | "
        f"{', '.join(f'{size:.0f}' for size in found['peak_mib'])} |",
    ]
    return "\n".join(lines)


_WIDTH, _HEIGHT, _MARGIN = 720, 300, 60


def draw_chart(timeline: list[tuple[float, int, int, int]]) -> str:
    """Return an SVG chart of a simulation: throughput, and machines that have booted."""
    span = timeline[-1][0]
    step = max(1, len(timeline) // 200)
    points = [*timeline[:-1:step], timeline[-1]]
    rates = [
        (after[0], (after[3] - before[3]) / max(after[0] - before[0], 1e-3) / 1e6)
        for before, after in pairwise(points)
    ]
    top_rate, top_ended = max(rate for _, rate in rates), timeline[-1][2]
    ended = [(seconds, count) for seconds, _, count, _ in points]

    def line(values: Sequence[tuple[float, float]], top: float, color: str) -> str:
        places = " ".join(
            f"{_MARGIN + seconds / span * _WIDTH:.1f},"
            f"{_MARGIN + _HEIGHT - value / top * _HEIGHT:.1f}"
            for seconds, value in values
        )
        return f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{places}"/>'

    def text(x: float, y: float, words: str, color: str, anchor: str) -> str:
        return f'<text x="{x}" y="{y}" fill="{color}" text-anchor="{anchor}">{words}</text>'

    bottom, right = _MARGIN + _HEIGHT, _MARGIN + _WIDTH
    blue, orange, gray = "#1f6fb4", "#c4570f", "#555"
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{right + _MARGIN}" '
            f'height="{bottom + _MARGIN}" font-family="sans-serif" font-size="13">',
            '<rect width="100%" height="100%" fill="#fff"/>',
            f'<path d="M{_MARGIN} {_MARGIN}V{bottom}H{right}V{_MARGIN}" fill="none" '
            f'stroke="{gray}"/>',
            line(rates, top_rate, blue),
            line(ended, top_ended, orange),
            text(_MARGIN, 30, f"throughput, at most {top_rate:.0f} MB/s", blue, "start"),
            text(right, 30, f"machines that have booted, {top_ended:,}", orange, "end"),
            text(_MARGIN - 8, _MARGIN + 5, f"{top_rate:.0f}", blue, "end"),
            text(_MARGIN - 8, bottom, "0", blue, "end"),
            text(right + 8, bottom, "0", orange, "start"),
            text(_MARGIN, bottom + 20, "0 s", gray, "middle"),
            text(right, bottom + 20, f"{span:.0f} s", gray, "middle"),
            "</svg>\n",
        )
    )
