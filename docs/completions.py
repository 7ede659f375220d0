"""Writes the completions of bash, zsh and fish: `python docs/completions.py share`.

shtab writes the scripts from the argparse parsers; what it leaves out is corrected here.
"""

import argparse
import re
import sys
from pathlib import Path

import shtab

from tftpd.client import arguments as client
from tftpd.daemon import cli as daemon

PATHS = {
    "bash": "bash-completion/completions/{}",
    "zsh": "zsh/site-functions/_{}",
    "fish": "fish/vendor_completions.d/{}.fish",
}
HOST = {
    "bash": "_tftpd_hosts",
    "zsh": "_hosts",
    "fish": "(__fish_print_hostnames)",
    "preamble": {"bash": '_tftpd_hosts() { compgen -A hostname -- "$1"; }'},
}
COMPLETERS = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "HOST": HOST}

# bash passes `--mode=octet` as three words, and shtab expects two.
JOIN_WORDS = Path(__file__).with_name("join_words.bash").read_text()


def add_completers(parser: argparse.ArgumentParser) -> None:
    """Tell shtab which values each option and operand may have."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                add_completers(command)
        elif action.metavar in COMPLETERS:
            action.complete = COMPLETERS[action.metavar]  # type: ignore[attr-defined]
        elif "|" in str(action.metavar):
            action.choices = str(action.metavar).split("|")
        elif not action.option_strings and not action.choices:
            # Without an action zsh prints a message instead of the only option that matches.
            action.complete = {"zsh": "()"}  # type: ignore[attr-defined]


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script of one shell."""
    script = shtab.complete(parser, shell)
    script = re.sub(r"(?<=\{\n)(?=  local completing_word=)", lambda _: JOIN_WORDS, script)
    if shell == "zsh":
        # Accept `--option=value`, and complete each operand of a list, not the first alone.
        script = re.sub(r'(--[\w-]+)(\}"|)(\[.*\]:)', r"\1=\2\3", script)
        script = script.replace('"(*):', '"*:')
    # The instructions to copy the file are wrong for an installed one.
    script = re.sub(r"# Usage:\n(#.*\n)*", "# Written by `make docs`.\n", script)
    return re.sub(r"[ \t]+\n", "\n", script).rstrip() + "\n"


def write_completions(share: Path) -> None:
    """Write the scripts of both programs below the directory `share`."""
    for parser in (client.parser(), daemon.parser()):
        add_completers(parser)
        for shell, name in PATHS.items():
            path = share / name.format(parser.prog)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(completion(parser, shell), encoding="utf-8")


if __name__ == "__main__":
    write_completions(Path(sys.argv[1]))
