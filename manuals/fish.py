"""Completions for fish."""

from collections.abc import Iterator

from manuals.commands import Command, Kind, Option, Value
from manuals.shells import BUILT, every_option, last_kind


def completion(program: Command) -> str:
    """The script for `program`."""
    return "\n".join(_lines(program)) + "\n"


def _lines(program: Command) -> Iterator[str]:
    complete = f"complete -c {program.name}"
    yield f"# fish completion for {program.name}. {BUILT}"
    yield ""
    yield f"{complete} -f"
    for option in every_option(program):
        yield f"{complete} -n __fish_use_subcommand {_option(option)}"
    for command in program.commands:
        within = f"{complete} -n '__fish_seen_subcommand_from {command.word}'"
        yield ""
        about = _quoted(command.about)
        yield f"{complete} -n __fish_use_subcommand -a {command.word} -d {about}"
        for option in every_option(command):
            yield f"{within} {_option(option)}"
        if last_kind(command) is not Kind.OTHER:
            yield f"{within} {_offer(command.operands[-1].value)}"


def _option(option: Option) -> str:
    spelled = [
        f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags
    ]
    value = [_needed(option.value), _offer(option.value)] if option.value else []
    return " ".join(filter(None, [*spelled, *value, "-d", _quoted(option.about)]))


def _needed(value: Value) -> str:
    """-r: a value follows; -x: and it is no file."""
    return "-r" if value.kind is Kind.FILE else "-x"


def _offer(value: Value) -> str:
    match value.kind:
        case Kind.FILE:
            return "-F"
        case Kind.DIRECTORY:
            return "-a '(__fish_complete_directories)'"
        case Kind.HOST:
            return "-a '(__fish_print_hostnames)'"
        case Kind.WORDS:
            return f"-a {_quoted(' '.join(value.words))}"
    return ""


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("`", "") + "'"
