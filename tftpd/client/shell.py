"""The prompt that people know from tftp(1): one server, and commands for it.

Commands may be shortened to what is unmistakable. Read from a file or a
pipe they are a script: no prompt is shown, and the first that failed
decides the exit status.
"""

import cmd
import os
import shlex
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape, iglob
from math import inf
from pathlib import Path
from typing import Any

from tftpd.client.arguments import mode, natural, port
from tftpd.client.commands import settings_of
from tftpd.client.jobs import TransferJob, UsageError, remote_of, target
from tftpd.client.urls import Remote
from tftpd.protocol.negotiation import Mode

BAD_USAGE = 2
_REMEMBERED = 1000  # lines of history
_SWITCH = {"on": True, "off": False}
_STATUS = (("host", "port"), ("mode", "blksize", "windowsize", "timeout"), ("verbose", "trace"))

JobRunner = Callable[[Namespace, list[TransferJob]], int]
"""Does the jobs on the terms of a command line; gives the exit status."""


def run_shell(arguments: Namespace, perform: JobRunner) -> int:
    """Take commands until there are no more; gives the exit status."""
    prompt = Shell(arguments, perform)
    if not sys.stdin.isatty():
        prompt.use_rawinput = False
        prompt.prompt = ""
        prompt.cmdloop()
        return prompt.status
    with _history():
        while True:
            try:
                prompt.cmdloop()
                return 0
            except KeyboardInterrupt:  # takes a line back, or ended a transfer
                print("^C")


class Shell(cmd.Cmd):
    """The commands, and what they change. `status` is that of the first that failed."""

    prompt = "tftp> "
    doc_header = "Commands (help COMMAND says more):"

    def __init__(self, arguments: Namespace, perform: JobRunner) -> None:
        super().__init__()
        self.status = 0
        self._now = arguments
        self._perform = perform
        self._spoken_of: set[str] = set()  # names on the server
        if arguments.at is not None:
            arguments.port = arguments.at

    def do_connect(self, line: str) -> None:
        """connect HOST [PORT]: the server of the commands that follow"""
        host, *at = self._words(line, "connect", 1, 2)
        self._now.port = port(at[0]) if at else self._now.port
        self._now.host = host

    def do_get(self, line: str) -> None:
        """get FILE; get REMOTE LOCAL; get FILE FILE FILE ...: read files, to - the terminal"""
        names = self._words(line, "get", 1)
        to = os.path.expanduser(names.pop()) if len(names) == 2 else None
        remotes = [self._remote(name) for name in names]
        self._do("get", [TransferJob(remote, target(remote, to)) for remote in remotes], to)

    def do_put(self, line: str) -> None:
        """put FILE; put LOCAL REMOTE; put FILE FILE ... DIRECTORY/: write files"""
        files = self._words(line, "put", 1)
        to = files.pop() if len(files) > 1 else ""
        if len(files) > 1:
            to = to.rstrip("/") + "/"
        into = not to or to.endswith("/")
        paths = [Path(file).expanduser() for file in files]
        names = [to + path.name if into else to for path in paths]
        pairs = zip(names, paths, strict=True)
        self._do("put", [TransferJob(self._remote(name), path) for name, path in pairs])

    def do_mode(self, line: str) -> None:
        """mode [octet|netascii]: how files travel"""
        self._set("mode", line, mode)

    def do_binary(self, line: str) -> None:
        """binary: mode octet"""
        self._words(line, "binary", 0, 0)
        self._now.mode = Mode.OCTET

    def do_ascii(self, line: str) -> None:
        """ascii: mode netascii"""
        self._words(line, "ascii", 0, 0)
        self._now.mode = Mode.NETASCII

    def do_blksize(self, line: str) -> None:
        """blksize [OCTETS|auto]: of a block; auto is what the path takes whole"""
        self._set("blksize", line, _natural_or_auto)

    def do_windowsize(self, line: str) -> None:
        """windowsize [BLOCKS|auto]: blocks of a window; auto is 16, of large blocks fewer"""
        self._set("windowsize", line, _natural_or_auto)

    def do_timeout(self, line: str) -> None:
        """timeout [SECONDS|auto]: between repeats of both ends; auto measures it"""
        self._set("timeout", line, _natural_or_auto)

    def do_verbose(self, line: str) -> None:
        """verbose [on|off]: say more of each transfer"""
        self._turn("verbose", line)

    def do_trace(self, line: str) -> None:
        """trace [on|off]: say each packet"""
        self._turn("trace", line)

    def do_status(self, line: str) -> None:
        """status: the server, and what the other commands have set"""
        self._words(line, "status", 0, 0)
        for names in _STATUS:
            self._say(", ".join(f"{name} {_shown(getattr(self._now, name))}" for name in names))

    def do_quit(self, line: str) -> bool:
        """quit: leave, as the end of the input does"""
        self._words(line, "quit", 0, 0)
        return True

    do_exit = do_quit

    def do_EOF(self, line: str) -> bool:
        """End of the input: leave"""
        if self.prompt:
            self._say("")
        return True

    def emptyline(self) -> bool:
        """Nothing was said: nothing is done, nor done again."""
        return False

    def default(self, line: str) -> None:
        """What is no command."""
        word = line.split()[0]
        if self.completenames(word):
            raise UsageError(f"{word} may be {' or '.join(self.completenames(word))}")
        raise UsageError(f"no such command: {word}; ? lists them")

    def onecmd(self, line: str) -> bool:
        """Do what the line says, or say what is wrong with it."""
        try:
            return bool(super().onecmd(line))
        except (UsageError, ValueError, ArgumentTypeError) as error:
            print(f"tftpc: {error}", file=sys.stderr, flush=True)
            self._ended(BAD_USAGE)
            return False

    def parseline(self, line: str) -> tuple[str | None, str | None, str]:
        """As `cmd` does, with # before remarks and with shortened commands."""
        command, rest, line = super().parseline("" if line.lstrip().startswith("#") else line)
        if command and not hasattr(self, f"do_{command}"):
            meant = self.completenames(command)
            command = meant[0] if len(meant) == 1 else command
        return command, rest, line

    def get_names(self) -> list[str]:
        """What help and completion know of."""
        return [name for name in super().get_names() if name not in ("do_EOF", "do_exit")]

    def complete_get(self, text: str, line: str, begin: int, end: int) -> list[str]:
        """Names that were spoken of; a server does not tell which it has."""
        return _beginning(text, self._spoken_of)

    def complete_put(self, text: str, line: str, begin: int, end: int) -> list[str]:
        """Files of ours."""
        found = iglob(escape(text) + "*")
        return sorted(path + "/" if os.path.isdir(path) else path for path in found)

    def complete_mode(self, text: str, line: str, begin: int, end: int) -> list[str]:
        """The modes."""
        return _beginning(text, map(_shown, Mode))

    def complete_trace(self, text: str, line: str, begin: int, end: int) -> list[str]:
        """What it may be."""
        return _beginning(text, _SWITCH)

    complete_verbose = complete_trace

    def _remote(self, name: str) -> Remote:
        self._spoken_of.add(name)
        return remote_of(self._now.host, name, self._now.encoding)

    def _do(self, command: str, jobs: list[TransferJob], output: str | None = None) -> None:
        asked = _changed(self._now, command=command, output=output)
        self._ended(self._perform(asked, jobs))

    def _ended(self, status: int) -> None:
        self.status = self.status or status

    def _words(self, line: str, command: str, least: int, most: float = inf) -> list[str]:
        words = shlex.split(line)
        if not least <= len(words) <= most:
            raise UsageError(getattr(self, f"do_{command}").__doc__)
        return words

    def _set(self, name: str, line: str, read: Callable[[str], Any]) -> None:
        for word in self._words(line, name, 0, 1):
            tried = _changed(self._now, **{name: read(word)})
            settings_of(tried)
            self._now = tried
        self._say(f"{name} {_shown(getattr(self._now, name))}")

    def _turn(self, name: str, line: str) -> None:
        value = not getattr(self._now, name)
        for word in self._words(line, name, 0, 1):
            if word not in _SWITCH:
                raise UsageError(f"{name} is on or off, not {word}")
            value = _SWITCH[word]
        setattr(self._now, name, value)
        self._say(f"{name} {_shown(value)}")

    def _say(self, text: str) -> None:
        print(text, file=self.stdout, flush=True)


def _changed(arguments: Namespace, **changes: Any) -> Namespace:
    return Namespace(**{**vars(arguments), **changes})


def _natural_or_auto(text: str) -> int | None:
    return None if text == "auto" else natural(text)


def _shown(value: Any) -> str:
    if isinstance(value, Mode):
        return value.value.decode()
    if isinstance(value, bool):
        return "on" if value else "off"
    return "auto" if value is None else str(value)


def _beginning(text: str, words: Any) -> list[str]:
    return sorted(word for word in words if word.startswith(text))


@contextmanager
def _history() -> Iterator[None]:
    """Lines of earlier prompts, and those of this one for later ones."""
    try:
        import readline
    except ImportError:  # Python was built without
        yield
        return
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(state, "tftpc_history")
    readline.set_completer_delims(" \t\n")  # names have slashes and dashes in them
    readline.set_history_length(_REMEMBERED)
    with suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
