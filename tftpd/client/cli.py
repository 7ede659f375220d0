"""The `tftpc` command: transfers files and tests TFTP servers.

Exit statuses: 0 done, 1 failed, 2 invalid command line, 3 file not found, 4 refused, 5 timed
out, 130 interrupted. With several files, and with the commands of a script, the first failure
determines the exit status. `probe` exits with 1 if it finds a problem that prevents boots.
"""

import argparse
import gc
import os
import sys

from tftpd.client.arguments import parser
from tftpd.client.errors import ExitStatus, LocalError, UsageError
from tftpd.client.jobs import is_url, parse_downloads, parse_probe, parse_uploads

# Modes in which closed standard streams are opened: the use of standard input or output then fails
# with EBADF, and messages get lost.
_CLOSED_STREAMS = {
    "stdin": ("r", os.O_WRONLY), "stdout": ("w", os.O_RDONLY), "stderr": ("w", os.O_WRONLY)
}  # fmt: skip


def main() -> int:
    """Run one subcommand and return the exit status.

    If the first argument is neither an option nor a subcommand, the subcommand is `prompt`.
    """
    for name, (mode, flags) in _CLOSED_STREAMS.items():
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode))
    try:
        return _run(sys.argv[1:])
    except (UsageError, ValueError, LocalError) as error:
        print(f"tftpc: {error}", file=sys.stderr)
        return ExitStatus.FAILED if isinstance(error, LocalError) else ExitStatus.BAD_USAGE
    except OSError as error:  # the errors of local files and sockets are `LocalError`
        print(f"tftpc: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        return ExitStatus.FAILED
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # was reported; the interpreter would flush and report it once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str]) -> int:
    if words and not words[0].startswith("-") and words[0] not in _COMMANDS:
        _check_host(*words)
        words.insert(0, "prompt")
    arguments = parser().parse_args(words)
    return _COMMANDS[arguments.command](arguments)


def _check_host(host: str, *words: str) -> None:
    """Raise `UsageError` if the first argument is a misspelt command, not the host of a prompt."""
    is_prompt = not words or words[0].startswith("-") or words[0].isdecimal()
    if is_url(host):
        raise UsageError('missing command: use "tftpc get URL" or "tftpc put FILE URL"')
    if is_prompt and not any(map(is_url, words)):
        return
    from difflib import get_close_matches  # slow to import

    hint = "".join(f'; did you mean "{name}"?' for name in get_close_matches(host, _COMMANDS, 1))
    if hint or not is_prompt:
        raise UsageError(f'unknown command "{host}"{hint}')


def _transfer(arguments: argparse.Namespace) -> int:
    parse = parse_uploads if arguments.command == "put" else parse_downloads
    jobs = parse(arguments)
    arguments.trace = arguments.verbose
    # Imported late, because the import takes too long for `--help`. The garbage collector is off
    # meanwhile: imported objects stay, and it would scan them now and at the exit.
    gc.disable()
    from tftpd.client.commands import CommandRunner

    gc.freeze()
    gc.enable()
    _check_data_plane()
    return CommandRunner(arguments, jobs).run_all()


def _prompt(arguments: argparse.Namespace) -> int:
    from tftpd.client.commands import CommandRunner, parse_settings
    from tftpd.client.shell import run_shell

    parse_settings(arguments)
    _check_data_plane()
    return run_shell(arguments, lambda *jobs: CommandRunner(*jobs).run_all())


def _check_data_plane() -> None:
    from tftpd import dataplane

    if dataplane.PROBLEM:
        raise UsageError(dataplane.PROBLEM)


def _probe(arguments: argparse.Namespace) -> int:
    remote = parse_probe(arguments)
    from twisted.internet import reactor

    from tftpd.client.probe.command import run_probe
    from tftpd.client.reactor_runner import run_reactor

    return run_reactor(reactor, run_probe(reactor, arguments, remote))


_COMMANDS = {"get": _transfer, "put": _transfer, "probe": _probe, "prompt": _prompt}


if __name__ == "__main__":
    sys.exit(main())
