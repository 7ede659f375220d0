"""What the completions of all shells share."""

from collections.abc import Iterable

from manuals.commands import Command, Kind, Option

BUILT = "Built by `make manuals`; changes to this file are lost."

HELP = Option(("-h", "--help"), None, "show a summary")


def every_option(command: Command) -> tuple[Option, ...]:
    """Its options, and the one that every command has."""
    return (HELP, *command.options)


def flags(options: Iterable[Option]) -> list[str]:
    """All spellings of `options`."""
    return [flag for option in options for flag in option.flags]


def single(text: str) -> str:
    """Text in single quotes, as bash and zsh have it."""
    return "'" + text.replace("'", r"'\''") + "'"


def last_kind(command: Command) -> Kind:
    """What all further operands are."""
    return command.operands[-1].value.kind if command.operands else Kind.OTHER
