"""The `tftpc` command: files from and to TFTP servers.

Exit statuses: 0 done, 1 failed, 2 bad usage, 3 not found, 4 refused,
5 timed out, 130 interrupted. Of several files the first that failed counts.
"""

import argparse
import sys
from collections.abc import Sequence

from tftpd.client.arguments import parser
from tftpd.client.jobs import Usage, downloads, uploads

BAD_USAGE, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; gives the exit status."""
    arguments = parser().parse_args(argv)
    try:
        return _COMMANDS[arguments.command](arguments)
    except (Usage, ValueError) as error:
        print(f"tftpc: {error}", file=sys.stderr)
        return BAD_USAGE
    except KeyboardInterrupt:  # before there was a reactor to take it
        return INTERRUPTED


def _transfer(arguments: argparse.Namespace) -> int:
    jobs = uploads(arguments) if arguments.command == "put" else downloads(arguments)
    # Not before there is something to do: Twisted takes longer to import
    # than anybody wants to wait for help.
    from twisted.internet import reactor

    from tftpd.client.reacting import run
    from tftpd.client.running import Run

    return run(reactor, Run(reactor, arguments, jobs).all())


_COMMANDS = {"get": _transfer, "put": _transfer}


if __name__ == "__main__":
    sys.exit(main())
