"""The `tftpd` command: run the daemon, check a configuration, export its schema."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import tftpd
from tftpd.config.loading import load, schema
from tftpd.config.problems import ConfigError
from tftpd.daemon.service import EX_CONFIG


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit status is 0, 78 for a bad configuration, 2 for bad usage."""
    arguments = _parser().parse_args(argv)
    status: int = arguments.run(arguments)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tftpd", description="A TFTP server on Twisted.")
    parser.add_argument("--version", action="version", version=f"tftpd {tftpd.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="serve in the foreground, as `twistd -n tftp` does")
    run.add_argument("--config", "-c", required=True, metavar="FILE", help="the YAML file")
    run.set_defaults(run=_run)

    check = commands.add_parser("check", help="report every problem of a configuration")
    check.add_argument("config", metavar="CONFIG", help="the YAML file")
    check.set_defaults(run=_check)

    export = commands.add_parser("schema", help="print the JSON Schema of the configuration")
    export.set_defaults(run=_schema)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from twisted.scripts.twistd import run

    sys.argv = ["twistd", "-n", "--pidfile=", "tftp", "--config", arguments.config]
    run()
    return 0


def _check(arguments: argparse.Namespace) -> int:
    try:
        load(Path(arguments.config))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EX_CONFIG
    print(f"{arguments.config}: no problems")
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    print(json.dumps(schema(), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
