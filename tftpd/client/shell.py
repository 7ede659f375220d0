"""Interactive mode of `tftpc`, with the commands of tftp(1).

A command may be shortened to any unambiguous prefix. If standard input is not a terminal, it is
a script: no prompt is printed, and the first failure determines the exit status.
"""

import cmd
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape, glob, iglob
from math import inf
from pathlib import Path
from typing import Any

from tftpd.client.arguments import parse_mode, parse_natural, parse_port, parse_seconds
from tftpd.client.commands import parse_settings
from tftpd.client.errors import ExitStatus, LocalError, UsageError
from tftpd.client.jobs import RemoteFile, TransferJob, destination, remote_file
from tftpd.protocol.negotiation import Mode

_MAX_HISTORY_LINES = 1000
_SWITCH_VALUES = {"on": True, "off": False}
_STATUS_LINES = ("host port", "mode blksize windowsize", "rexmt timeout", "verbose trace")
# Commands of tftp(1) and the options of the command line that have the same meaning.
_OPTIONS = {"rexmt": "timeout", "timeout": "idle_timeout"}

JobRunner = Callable[[Namespace, list[TransferJob]], int]
"""Runs jobs with the settings of a command line; returns the exit status."""


def run_shell(arguments: Namespace, run_jobs: JobRunner) -> int:
    """Read and run commands until the end of the input; return the exit status."""
    shell = Shell(arguments, run_jobs)
    if not sys.stdin.isatty():
        shell.use_rawinput = False
        shell.prompt = ""
        shell.cmdloop()
        return shell.status
    with _history():
        while True:
            try:
                shell.cmdloop()
                return 0
            except KeyboardInterrupt:  # discards the current line, or cancels a transfer
                print("^C")


class Shell(cmd.Cmd):
    """Command interpreter; `status` is the exit status of the first command that failed.

    Args:
        arguments: The parsed command line; the commands change it.
        run_jobs: Runs transfers.
    """

    prompt = "tftp> "
    doc_header = 'Commands ("help COMMAND" explains one):'

    def __init__(self, arguments: Namespace, run_jobs: JobRunner) -> None:
        super().__init__()
        self.status = 0
        self._arguments = arguments
        self._run_jobs = run_jobs
        self._remote_names: set[str] = set()  # for completion
        if arguments.at is not None:
            arguments.port = arguments.at

    def do_connect(self, line: str) -> None:
        """Usage: connect HOST [PORT] - use this server for the next commands."""
        host, *ports = self._split(line, "connect", 1, 2)
        self._arguments.port = parse_port(ports[0]) if ports else self._arguments.port
        self._arguments.host = host

    def do_get(self, line: str) -> None:
        """Usage: get FILE; get REMOTE LOCAL; get FILE FILE FILE ... - read files."""
        names = self._split(line, "get", 1)
        output = os.path.expanduser(names.pop()) if len(names) == 2 else None
        remotes = [self._remote_file(name) for name in names]
        jobs = [TransferJob(remote, destination(remote, output)) for remote in remotes]
        self._transfer("get", jobs, output)

    def do_put(self, line: str) -> None:
        """Usage: put FILE; put LOCAL REMOTE; put FILE ... DIRECTORY/ - FILE may be *.cfg."""
        files = self._split(line, "put", 1)
        to = files.pop() if len(files) > 1 else ""
        paths = [path for file in files for path in _expand(file)]
        if len(paths) > 1 and to:
            to = to.rstrip("/") + "/"
        is_directory = not to or to.endswith("/")
        names = [to + path.name if is_directory else to for path in paths]
        pairs = zip(names, paths, strict=True)
        self._transfer("put", [TransferJob(self._remote_file(name), path) for name, path in pairs])

    def do_mode(self, line: str) -> None:
        """Usage: mode [octet|netascii] - print or set the transfer mode."""
        self._set("mode", line, parse_mode)

    def do_binary(self, line: str) -> None:
        """Usage: binary - set the transfer mode to octet."""
        self._split(line, "binary", 0, 0)
        self._arguments.mode = Mode.OCTET

    def do_ascii(self, line: str) -> None:
        """Usage: ascii - set the transfer mode to netascii."""
        self._split(line, "ascii", 0, 0)
        self._arguments.mode = Mode.NETASCII

    def do_blksize(self, line: str) -> None:
        """Usage: blksize [BYTES|auto] - block size; auto: the largest without fragmentation."""
        self._set("blksize", line, _parse_natural_or_auto)

    def do_windowsize(self, line: str) -> None:
        """Usage: windowsize [BLOCKS|auto] - blocks in a window; auto: 16, fewer large blocks."""
        self._set("windowsize", line, _parse_natural_or_auto)

    def do_rexmt(self, line: str) -> None:
        """Usage: rexmt [SECONDS|auto] - retransmission interval of both sides; auto measures it."""
        self._set("rexmt", line, _parse_natural_or_auto)

    def do_timeout(self, line: str) -> None:
        """Usage: timeout [SECONDS] - fail if the server sends nothing for this time."""
        self._set("timeout", line, parse_seconds)

    def do_verbose(self, line: str) -> None:
        """Usage: verbose [on|off] - print the agreed options of each transfer."""
        self._switch("verbose", line)

    def do_trace(self, line: str) -> None:
        """Usage: trace [on|off] - print every packet."""
        self._switch("trace", line)

    def do_status(self, line: str) -> None:
        """Usage: status - print the server and the settings."""
        self._split(line, "status", 0, 0)
        for names in _STATUS_LINES:
            self._print(", ".join(map(self._format_setting, names.split())))

    def do_quit(self, line: str) -> bool:
        """Usage: quit - leave; the end of the input does the same."""
        self._split(line, "quit", 0, 0)
        return True

    do_exit = do_quit

    def do_EOF(self, line: str) -> bool:
        """Leave at the end of the input."""
        if self.prompt:
            self._print("")
        return True

    def emptyline(self) -> bool:
        """Do nothing; by default, `cmd` repeats the last command."""
        return False

    def default(self, line: str) -> None:
        """Raise `UsageError` for an unknown or ambiguous command."""
        word = line.split()[0]
        if self.completenames(word):
            commands = " or ".join(self.completenames(word))
            raise UsageError(f'ambiguous command "{word}": {commands}')
        raise UsageError(f'unknown command "{word}": type ? for a list')

    def onecmd(self, line: str) -> bool:
        """Run one command; print an error message if it is invalid."""
        try:
            return bool(super().onecmd(line))
        except (UsageError, ValueError, LocalError) as error:
            print(f"tftpc: {error}", file=sys.stderr, flush=True)
            is_local = isinstance(error, LocalError)
            self.status = self.status or (ExitStatus.FAILED if is_local else ExitStatus.BAD_USAGE)
            return False

    def parseline(self, line: str) -> tuple[str | None, str | None, str]:
        """Parse a line as `cmd` does, with comments (#) and shortened commands."""
        command, rest, line = super().parseline("" if line.lstrip().startswith("#") else line)
        if command and not hasattr(self, f"do_{command}"):
            matches = self.completenames(command)
            command = matches[0] if len(matches) == 1 else command
        return command, rest, line

    def get_names(self) -> list[str]:
        """Return the names that help and completion use, without aliases."""
        return [name for name in super().get_names() if name not in ("do_EOF", "do_exit")]

    def complete_get(self, text: str, line: str, begin: int, end: int) -> list[str]:
        """Return remote names that were used before; TFTP cannot list a directory."""
        return _with_prefix(text, self._remote_names)

    def complete_put(self, text: str, line: str, begin: int, end: int) -> list[str]:
        """Return matching local files."""
        found = iglob(escape(text) + "*")
        return sorted(path + "/" if os.path.isdir(path) else path for path in found)

    def complete_mode(self, text: str, line: str, begin: int, end: int) -> list[str]:
        """Return matching transfer modes."""
        return _with_prefix(text, map(_format_value, Mode))

    def complete_trace(self, text: str, line: str, begin: int, end: int) -> list[str]:
        """Return matching values of a switch."""
        return _with_prefix(text, _SWITCH_VALUES)

    complete_verbose = complete_trace

    def _remote_file(self, name: str) -> RemoteFile:
        self._remote_names.add(name)
        return remote_file(self._arguments.host, name, self._arguments.encoding)

    def _transfer(self, command: str, jobs: list[TransferJob], output: str | None = None) -> None:
        arguments = _replace(self._arguments, command=command, output=output)
        status = self._run_jobs(arguments, jobs)
        self.status = self.status or status

    def _split(self, line: str, command: str, minimum: int, maximum: float = inf) -> list[str]:
        words = shlex.split(line)
        if not minimum <= len(words) <= maximum:
            raise UsageError(getattr(self, f"do_{command}").__doc__)
        return words

    def _set(self, name: str, line: str, parse: Callable[[str], Any]) -> None:
        for word in self._split(line, name, 0, 1):
            changed = _replace(self._arguments, **{_OPTIONS.get(name, name): parse(word)})
            parse_settings(changed)
            self._arguments = changed
        self._print(self._format_setting(name))

    def _switch(self, name: str, line: str) -> None:
        toggled = "off" if getattr(self._arguments, name) else "on"
        self._set(name, line or toggled, _parse_switch)

    def _format_setting(self, name: str) -> str:
        return f"{name} {_format_value(getattr(self._arguments, _OPTIONS.get(name, name)))}"

    def _print(self, text: str) -> None:
        print(text, file=self.stdout, flush=True)


def _replace(arguments: Namespace, **changes: Any) -> Namespace:
    return Namespace(**{**vars(arguments), **changes})


def _parse_natural_or_auto(text: str) -> int | None:
    return None if text == "auto" else parse_natural(text)


def _parse_switch(text: str) -> bool:
    if text not in _SWITCH_VALUES:
        raise UsageError(f'invalid value "{text}": use on or off')
    return _SWITCH_VALUES[text]


def _expand(pattern: str) -> list[Path]:
    """Return the files that match a pattern, or the path itself if there are none."""
    path = Path(pattern).expanduser()
    found = [] if path.exists() else map(Path, sorted(glob(str(path))))
    return list(found) or [path]


def _format_value(value: Any) -> str:
    if isinstance(value, Mode):
        return value.value.decode()
    if isinstance(value, bool):
        return "on" if value else "off"
    return "auto" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _with_prefix(prefix: str, words: Iterable[str]) -> list[str]:
    return sorted(word for word in words if word.startswith(prefix))


@contextmanager
def _history() -> Iterator[None]:
    """Load the command history of earlier sessions, and save it at the end."""
    try:
        import readline
    except ImportError:  # this Python was built without readline
        yield
        return
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(state, "tftpc_history")
    readline.set_completer_delims(" \t\n")  # file names contain slashes and dashes
    readline.set_history_length(_MAX_HISTORY_LINES)
    with suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
