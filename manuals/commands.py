"""What a command line may say, as values.

argparse has no public way to ask a parser for its arguments. This module
alone looks at where it keeps them (`_actions`, `_choices_actions` and
`_mutually_exclusive_groups`, the same in Python 3.11, 3.12 and 3.13), and asks for
none of argparse's own texts, which change from one Python to the next.
"""

import argparse
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a shell can offer for a value."""

    FILE = "file"
    DIRECTORY = "directory"
    HOST = "host"
    WORDS = "words"
    OTHER = "other"


_KINDS = {
    "FILE": Kind.FILE,
    "CONFIG": Kind.FILE,
    "DIR": Kind.DIRECTORY,
    "DIRECTORY": Kind.DIRECTORY,
    "HOST": Kind.HOST,
}


@dataclass(frozen=True, slots=True)
class Value:
    """What an option or an operand is given; `words` are all that it may be, if known."""

    name: str
    kind: Kind = Kind.OTHER
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """An option; `value` is None for a switch, `against` are flags that exclude it."""

    flags: tuple[str, ...]
    value: Value | None
    about: str
    against: tuple[str, ...] = ()
    required: bool = False


@dataclass(frozen=True, slots=True)
class Operand:
    """What has its place and no flag; `form` is how a synopsis has it."""

    value: Value
    form: str
    about: str
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A program, or one of its subcommands.

    `synopsis` has a line for each form; `about` is a line, `more` what there
    is to say beside it, in paragraphs.
    """

    name: str
    synopsis: tuple[str, ...]
    about: str
    more: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    operands: tuple[Operand, ...] = ()
    commands: tuple["Command", ...] = ()

    @property
    def word(self) -> str:
        """The last word of the name."""
        return self.name.split()[-1]


def command(parser: argparse.ArgumentParser) -> Command:
    """The program whose command line `parser` understands."""
    return _command(parser, parser.prog, "")


def shared(commands: Iterable[Command]) -> dict[Option, tuple[Command, ...]]:
    """The options that more than one of `commands` has, and the commands of each."""
    owners: dict[Option, tuple[Command, ...]] = {}
    for one in commands:
        for option in one.options:
            owners[option] = (*owners.get(option, ()), one)
    return {option: having for option, having in owners.items() if len(having) > 1}


def _command(parser: argparse.ArgumentParser, name: str, about: str) -> Command:
    options: list[Option] = []
    operands: list[Operand] = []
    commands: list[Command] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands += _subcommands(action, name)
        elif action.help == argparse.SUPPRESS or action.dest == "help":
            continue
        elif action.option_strings:
            options.append(_option(action, tuple(_excluding(parser, action))))
        else:
            operands.append(_operand(action))
    synopsis = (parser.usage or f"%(prog)s {_forms(options, operands)}") % {"prog": name}
    lines = tuple(line.strip() for line in synopsis.splitlines())
    more = tuple(_paragraphs(parser.description or ""))
    return Command(name, lines, about, more, tuple(options), tuple(operands), tuple(commands))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        if words := paragraph.split():
            yield " ".join(words)


def _forms(options: list[Option], operands: list[Operand]) -> str:
    """What follows the name of a command, in short."""
    free = ["[options]"] if not all(option.required for option in options) else []
    needed = [
        f"{max(option.flags, key=len)} {option.value.name}"
        for option in options
        if option.required and option.value
    ]
    return " ".join([*free, *needed, *(operand.form for operand in operands)])


def _subcommands(
    action: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str
) -> Iterator[Command]:
    helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
    for word, parser in action.choices.items():
        if word in helps:  # an alias, or one that is not to be seen, has none
            yield _command(parser, f"{name} {word}", helps[word])


def _option(action: argparse.Action, against: tuple[str, ...]) -> Option:
    value = None if action.nargs == 0 else _value(action)
    return Option(tuple(action.option_strings), value, _about(action), against, action.required)


def _excluding(parser: argparse.ArgumentParser, action: argparse.Action) -> Iterator[str]:
    for group in parser._mutually_exclusive_groups:
        if action in group._group_actions:
            for other in group._group_actions:
                if other is not action:
                    yield from other.option_strings


def _operand(action: argparse.Action) -> Operand:
    value = _value(action)
    match action.nargs:
        case None:
            form = value.name
        case "?":
            form = f"[{value.name}]"
        case "*":
            form = f"[{value.name} ...]"
        case int(count):
            form = " ".join([value.name] * count)
        case _:
            form = f"{value.name} ..."
    return Operand(value, form, _about(action), action.nargs not in (None, "?"))


def _value(action: argparse.Action) -> Value:
    """`FILE` and `FILE|DIR|-` are files, `octet|netascii` is one of two words."""
    if action.choices is not None:
        words = tuple(str(choice) for choice in action.choices)
        return Value(str(action.metavar or "|".join(words)), Kind.WORDS, words)
    name = action.metavar or action.dest.upper()
    if not isinstance(name, str):
        return Value(" ".join(name))
    parts = tuple(name.split("|"))
    if len(parts) > 1 and not any(part.isupper() for part in parts):
        return Value(name, Kind.WORDS, parts)
    return Value(name, next((_KINDS[part] for part in parts if part in _KINDS), Kind.OTHER))


def _about(action: argparse.Action) -> str:
    """The help with its `%(default)s` filled in, as argparse does."""
    names = {key: value for key, value in vars(action).items() if value is not argparse.SUPPRESS}
    return " ".join(((action.help or "") % names).split())
