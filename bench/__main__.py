"""`python -m bench`: compare servers or clients, see where a block's time goes, draw a chart."""

import argparse
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from bench import chart, course, flat, hostile, load, measure, table, versus
from bench.attacks import ATTACKS
from bench.commands import COMMANDS, Command
from bench.report import Report
from bench.scenarios import PROFILED, SCENARIOS
from bench.servers import SERVERS, Missing, Server, brought
from bench.vitals import Record

_MODES = ("run", "clients", "profile", "hostile", "chart", "soak", "course")
_AGAINST = ["tftpd", "in.tftpd", "atftpd"]  # the servers that take uploads

AnyProgram = TypeVar("AnyProgram", Server, Command)


def main(arguments: list[str]) -> int:
    """Do what the command line says; the exit status."""
    options = _parser().parse_args(_with_mode(arguments))
    _raise_descriptors()
    status: int = options.do(options)
    return status


def _with_mode(arguments: list[str]) -> list[str]:
    """`run` is what is meant where no mode is named."""
    if arguments and (arguments[0] in _MODES or arguments[0] in ("-h", "--help")):
        return arguments
    return ["run", *arguments]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    modes = parser.add_subparsers(required=True)
    run = modes.add_parser("run", help="compare the servers (the default)")
    run.add_argument("--scenarios", type=_names, default=list(SCENARIOS), help="names, by commas")
    run.add_argument("--servers", type=_names, help="names, by commas; all that are found")
    run.add_argument("--rounds", type=_positive, default=3)
    run.add_argument("--processes", type=_positive, default=load.default_processes())
    run.add_argument("--json", type=Path, help="write the report there")
    run.add_argument("--chart", type=Path, help="draw the report there, as SVG")
    run.add_argument(
        "--command",
        type=_server,
        action="append",
        default=[],
        metavar="NAME=CMD",
        help="another server, or another command of a known one; "
        "{port}, {root}, {work} and {user} are filled in",
    )
    run.set_defaults(do=_run)
    programs = modes.add_parser("clients", help="compare tftpc with other clients")
    programs.add_argument("--servers", type=_names, default=_AGAINST, help="names, by commas")
    programs.add_argument("--clients", type=_names, default=list(COMMANDS), help="by commas")
    programs.add_argument("--size", type=_positive, default=64, metavar="MIB", help="64")
    programs.add_argument("--rounds", type=_positive, default=5)
    programs.set_defaults(do=_clients)
    where = modes.add_parser("profile", help="where the time of one block goes in the daemon")
    where.add_argument("--scenarios", type=_names, default=list(PROFILED))
    where.set_defaults(do=_profile)
    bears = modes.add_parser("hostile", help="what attacks cost an honest client")
    bears.add_argument("--servers", type=_names, default=["tftpd"], help="names, by commas")
    bears.add_argument("--attacks", type=_names, default=list(ATTACKS), help="names, by commas")
    bears.add_argument("--rounds", type=_positive, default=3)
    bears.set_defaults(do=_hostile)
    draw = modes.add_parser("chart", help="draw a report that was written with --json")
    draw.add_argument("json", type=Path)
    draw.add_argument("svg", type=Path)
    draw.set_defaults(do=_chart)
    long = modes.add_parser("soak", help="mixed load, after which all must be as it was")
    long.add_argument("--minutes", type=_minutes, default=30.0, help="of load; 30")
    long.add_argument("--workers", type=_positive, default=1)
    long.add_argument("--rate", type=_positive, default=25, help="acts a second; 25")
    long.add_argument("--seed", type=int, default=1)
    long.add_argument("--json", type=Path, help="write the record there")
    long.set_defaults(do=_soak)
    drawn = modes.add_parser("course", help="draw what `soak` wrote with --json")
    drawn.add_argument("json", type=Path, nargs="+")
    drawn.add_argument("svg", type=Path)
    drawn.set_defaults(do=_course)
    return parser


def _run(options: argparse.Namespace) -> int:
    known = SERVERS | {server.name: server for server in options.command}
    wrong = _unknown(options.scenarios, SCENARIOS) or _unknown(options.servers or [], known)
    if wrong:
        return _complain(wrong)
    present, left_out = _present([known[name] for name in options.servers or known])
    for name, why in left_out.items():
        print(f"left out: {name}: {why}", file=sys.stderr)
    if not present:
        return _complain("no server is left")
    bench = measure.Bench(present, options.processes, lambda line: print(line, file=sys.stderr))
    rows = bench.measure([SCENARIOS[name] for name in options.scenarios], options.rounds)
    command = measure.command_line()
    report = measure.report(rows, present, left_out, options.rounds, command)
    if options.json:
        report.write(options.json)
    if options.chart:
        chart.draw(report, options.chart)
    print(table.text(report), end="")
    return 0


def _clients(options: argparse.Namespace) -> int:
    wrong = _unknown(options.clients, COMMANDS) or _unknown(options.servers, SERVERS)
    if wrong:
        return _complain(wrong)
    commands, no_commands = _present([COMMANDS[name] for name in options.clients])
    servers, no_servers = _present([SERVERS[name] for name in options.servers])
    for name, why in (no_commands | no_servers).items():
        print(f"left out: {name}: {why}", file=sys.stderr)
    if not commands or not servers:
        return _complain("no client or no server is left")
    bench = versus.Versus(commands, servers, lambda line: print(line, file=sys.stderr))
    rows = bench.measure(options.size, options.rounds)
    print(versus.text(bench, rows, measure.about(options.rounds, measure.command_line())), end="")
    return 0


def _profile(options: argparse.Namespace) -> int:
    wrong = _unknown(options.scenarios, SCENARIOS)
    if wrong:
        return _complain(wrong)
    from bench.profile import profiles  # brings the reactor

    for profile in profiles([SCENARIOS[name] for name in options.scenarios]):
        print(profile, end="\n\n")
    return 0


def _hostile(options: argparse.Namespace) -> int:
    wrong = _unknown(options.attacks, ATTACKS) or _unknown(options.servers, SERVERS)
    if wrong:
        return _complain(wrong)
    present, left_out = _present([SERVERS[name] for name in options.servers])
    for name, why in left_out.items():
        print(f"left out: {name}: {why}", file=sys.stderr)
    print(
        f"`{measure.command_line()}`: how many times as long as alone (and until the first block)"
    )
    for server in present:
        rows = hostile.measure(
            server, options.attacks, options.rounds, lambda line: print(line, file=sys.stderr)
        )
        print(f"\n{server.name}\n\n{hostile.text(rows)}")
    return 0


def _chart(options: argparse.Namespace) -> int:
    try:
        report = Report.read(options.json)
    except (OSError, ValueError, KeyError) as error:
        return _complain(f"{options.json}: {error}")
    chart.draw(report, options.svg)
    return 0


def _soak(options: argparse.Namespace) -> int:
    from bench.soak import Plan, soak

    load = 60 * options.minutes
    plan = Plan(
        load, options.workers, float(options.rate), seed=options.seed, surge=min(60.0, load / 10)
    )
    record = soak(plan, lambda line: print(line, file=sys.stderr))
    if options.json:
        record.write(options.json)
    print(course.text(record), end="")
    return 1 if flat.risen(record) else 0


def _course(options: argparse.Namespace) -> int:
    try:
        records = [Record.read(path) for path in options.json]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _complain(str(error))
    course.draw(records, options.svg)
    return 0


def _present(programs: Sequence[AnyProgram]) -> tuple[list[AnyProgram], dict[str, str]]:
    """Those that can be run here, and why the others cannot."""
    present, left_out = [], {}
    for program in programs:
        try:
            program.check()
        except Missing as missing:
            left_out[program.name] = str(missing)
        else:
            present.append(program)
    return present, left_out


def _unknown(names: list[str], known: Mapping[str, object]) -> str:
    unknown = [name for name in names if name not in known]
    return f"unknown: {', '.join(unknown)}; there are {', '.join(known)}" if unknown else ""


def _complain(why: str) -> int:
    print(f"bench: {why}", file=sys.stderr)
    return 2


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value < 10_000:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def _server(text: str) -> Server:
    try:
        return brought(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _raise_descriptors() -> None:
    """Thousands of clients need as many descriptors, here and in the servers."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
