"""The `tftpd` command: run and install the daemon, check and explain a configuration."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tftpd.config.loading import load, schema
from tftpd.config.problems import ConfigError
from tftpd.daemon.arguments import parser
from tftpd.daemon.explain import explained
from tftpd.daemon.importing import imported
from tftpd.daemon.installing import installed
from tftpd.daemon.logs import complain
from tftpd.daemon.service import EX_CONFIG


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    The exit status is 0, 78 for a bad configuration, 2 for bad usage, and 1
    where `explain` finds that the request is refused, units cannot be installed,
    or a map cannot be imported.
    """
    arguments = parser().parse_args(argv)
    return _COMMANDS[arguments.command](arguments)


def _run(arguments: argparse.Namespace) -> int:
    from twisted.scripts.twistd import run

    sys.argv = ["twistd", "-n", "--pidfile=", "tftp", "--config", arguments.config]
    run()
    return 0


def _check(arguments: argparse.Namespace) -> int:
    try:
        load(Path(arguments.config))
    except ConfigError as error:
        complain(str(error))
        return EX_CONFIG
    print(f"{arguments.config}: no problems")
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    print(json.dumps(schema(), indent=2))
    return 0


_COMMANDS = {
    "run": _run,
    "check": _check,
    "explain": explained,
    "import-map": imported,
    "schema": _schema,
    "install-units": installed,
}


if __name__ == "__main__":
    raise SystemExit(main())
