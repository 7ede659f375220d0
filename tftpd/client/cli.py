"""The `tftpc` command: files from and to TFTP servers, and what such servers do.

Exit statuses: 0 done, 1 failed, 2 bad usage, 3 not found, 4 refused,
5 timed out, 130 interrupted. Of several files the first that failed counts,
and so it does of the commands of a script. A probe has failed that found
what breaks boots.
"""

import argparse
import gc
import sys
from collections.abc import Sequence

from tftpd.client.arguments import parser
from tftpd.client.jobs import TransferJob, UsageError, downloads, probed, uploads
from tftpd.client.urls import is_url

BAD_USAGE, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand, `prompt` where none is named; gives the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-") and words[0] not in _COMMANDS:
        words.insert(0, "prompt")
    arguments = parser().parse_args(words)
    try:
        return _COMMANDS[arguments.command](arguments)
    except (UsageError, ValueError) as error:
        print(f"tftpc: {error}", file=sys.stderr)
        return BAD_USAGE
    except KeyboardInterrupt:  # before there was a reactor to take it
        return INTERRUPTED


def _transfer(arguments: argparse.Namespace) -> int:
    jobs = uploads(arguments) if arguments.command == "put" else downloads(arguments)
    arguments.trace = arguments.verbose
    # Not before there is something to do: Twisted takes longer to import
    # than anybody wants to wait for help. What is imported is no garbage: to
    # look for some in it, now and at the end, takes a quarter of the start-up.
    gc.disable()
    from twisted.internet import reactor

    from tftpd.client.commands import CommandRunner
    from tftpd.client.reactor_runner import run

    gc.freeze()
    gc.enable()
    return run(reactor, CommandRunner(reactor, arguments, jobs).all())


def _prompt(arguments: argparse.Namespace) -> int:
    if is_url(arguments.host):
        raise UsageError(f"what is to become of {arguments.host}? say get or put")
    from twisted.internet import reactor

    from tftpd.client.commands import CommandRunner, settings_of
    from tftpd.client.reactor_runner import ReactorThread
    from tftpd.client.shell import run_shell

    settings_of(arguments)
    with ReactorThread(reactor) as background:

        def perform(asked: argparse.Namespace, jobs: list[TransferJob]) -> int:
            return background.result(CommandRunner(reactor, asked, jobs).all())

        return run_shell(arguments, perform)


def _probe(arguments: argparse.Namespace) -> int:
    remote = probed(arguments)
    from twisted.internet import reactor

    from tftpd.client.probe.command import probe
    from tftpd.client.reactor_runner import run

    return run(reactor, probe(reactor, arguments, remote))


_COMMANDS = {"get": _transfer, "put": _transfer, "probe": _probe, "prompt": _prompt}


if __name__ == "__main__":
    sys.exit(main())
