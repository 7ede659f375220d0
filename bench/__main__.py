"""Measurements of the server and the client.

load     measure tftpd in the scenarios
peers    compare tftpd with other servers in the scenarios
clients  compare tftpc with other client programs
calls    count the Python calls of a small request, up to its first DATA
tables   write the tables of a report of peers or clients into a document
profile  show the functions that take the time in a scenario (needs py-spy)
soak     run a mixed load, and check that the server is afterwards as it was before
hostile  measure the effect of attacks on a well-behaved client
http     measure files over HTTP, against nginx
origins  measure files at an object store and a web server, against local files
fleet    measure four servers behind a router: restarts, a kill, machines that boot (root)

Without names, load and peers run all scenarios, profile runs three of them, peers and clients use
all programs that are installed, and hostile measures tftpd with all attacks.
"""

import argparse
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from bench.calls import count_calls, describe_calls
from bench.client_programs import PROGRAMS, compare_clients
from bench.comparison import compare_servers
from bench.fleet import describe_fleet, draw_chart, measure_fleet
from bench.hostile import ATTACKS, measure_attacks
from bench.origins import MEASUREMENTS, measure_origins
from bench.profiler import profile
from bench.report import Report, Row, describe_run
from bench.scenarios import MIB, SCENARIOS
from bench.servers import OUR_CLIENT, OURS, SERVERS, Unavailable, read_version
from bench.soak import Plan, run_soak
from bench.web import measure_web

_PROFILED = ("lock1468x32", "win64x32", "up1468")


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit status."""
    options = _parse(arguments)
    # Thousands of clients need as many descriptors, also in the servers, which inherit the limit.
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        return _COMMANDS[options.command](options)
    except Unavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2


def _parse(arguments: list[str]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m bench", description=__doc__, formatter_class=layout)
    add = parser.add_argument
    add("command", nargs="?", choices=_COMMANDS, default="peers", help="default: peers")
    for option, names in {
        "scenarios": list(SCENARIOS),
        "servers": list(SERVERS),
        "clients": list(PROGRAMS),
        "attacks": list(ATTACKS),
        "measurements": list(MEASUREMENTS),
    }.items():
        text = f"some of: {', '.join(names)}"
        add(f"--{option}", nargs="+", choices=names, metavar="NAME", help=text)
    add("--rounds", type=int, default=3, help="measurements of each program (3)")
    add(
        "--json",
        type=Path,
        help="file for the report of load, peers, clients and fleet; read by tables",
    )
    add("--chart", type=Path, help="SVG file for the chart of peers and fleet")
    add("--document", type=Path, help="Markdown file whose tables are replaced")
    text = "size of the file of clients in MiB (16 in lock-step, 256 with windows)"
    add("--size", type=int, help=text)
    add("--machines", type=int, default=10_000, help="machines of the simulation of fleet (10000)")
    add("--minutes", type=float, default=30.0, help="duration of the load of soak (30)")
    add("--workers", type=int, default=1, help="worker processes of the server of soak (1)")
    add("--rate", type=float, default=25.0, help="tasks per second of soak (25)")
    add("--seed", type=int, default=1, help="seed of the random tasks of soak (1)")
    return parser.parse_args(arguments)


def _peers(options: argparse.Namespace) -> int:
    names = options.servers or ([OURS] if options.command == "load" else SERVERS)
    servers = [SERVERS[name] for name in names]
    scenarios = {name: SCENARIOS[name] for name in options.scenarios or SCENARIOS}
    rows = compare_servers(servers, scenarios, options.rounds, _progress)
    return _finish(options, [server.name for server in servers], rows)


def _clients(options: argparse.Namespace) -> int:
    servers = [SERVERS[name] for name in options.servers or SERVERS if SERVERS[name].uploads]
    clients = options.clients or list(PROGRAMS)
    size = options.size and options.size * MIB
    rows = compare_clients(clients, servers, size, options.rounds, _progress)
    return _finish(options, clients, list(rows))


def _finish(options: argparse.Namespace, programs: list[str], rows: list[Row]) -> int:
    versions = {name: read_version(name) for name in programs}
    ours = [name for name in programs if name.split()[0] in (OURS, OUR_CLIENT)]
    report = Report(ours, describe_run(options.rounds, versions), programs, rows)
    if options.json:
        report.write(options.json)
    _write(report, options)
    return 0 if any(row.medians() for row in rows) else 1


def _tables(options: argparse.Namespace) -> int:
    _write(Report.read(options.json), options)
    return 0


def _write(report: Report, options: argparse.Namespace) -> None:
    if options.chart:
        report.write_chart(options.chart)
    if options.document:
        report.write_section(options.document)
    print(report)


def _profile(options: argparse.Namespace) -> int:
    for name in options.scenarios or _PROFILED:
        print(f"{name}, {SCENARIOS[name].describe()}: {profile(SCENARIOS[name])}\n")
    return 0


def _calls(options: argparse.Namespace) -> int:
    print(describe_calls(count_calls()))
    return 0


def _soak(options: argparse.Namespace) -> int:
    load = options.minutes * 60
    surge = min(60.0, load / 10)
    plan = Plan(load, options.workers, options.rate, seed=options.seed, surge=surge)
    report = run_soak(plan, _progress)
    print(report)
    return 1 if any(report.problems()) else 0


def _hostile(options: argparse.Namespace) -> int:
    attacks = options.attacks or list(ATTACKS)
    for name in options.servers or [OURS]:
        table = measure_attacks(SERVERS[name], attacks, options.rounds, _progress)
        print(f"Time to read a file, and time to the first packet: {name}\n\n{table}\n")
    return 0


def _origins(options: argparse.Namespace) -> int:
    names = options.measurements or list(MEASUREMENTS)
    print(measure_origins(names, options.rounds, _progress))
    return 0


def _fleet(options: argparse.Namespace) -> int:
    report = measure_fleet(options.machines, options.rounds, _progress)
    if options.json:
        options.json.write_text(json.dumps(report))
    if options.chart:
        options.chart.write_text(draw_chart(report["simulation"]["timeline"]))
    print(describe_fleet(report))
    return 0


def _http(options: argparse.Namespace) -> int:
    print(measure_web(options.rounds, _progress))
    return 0


def _progress(line: str) -> None:
    print(line, file=sys.stderr)


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "load": _peers,
    "peers": _peers,
    "clients": _clients,
    "tables": _tables,
    "calls": _calls,
    "profile": _profile,
    "soak": _soak,
    "hostile": _hostile,
    "http": _http,
    "origins": _origins,
    "fleet": _fleet,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
