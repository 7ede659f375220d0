"""Completions for zsh, by its `_arguments`."""

from collections.abc import Iterator

from manuals.commands import Command, Kind, Operand, Option, Value
from manuals.shells import BUILT, every_option, single

_SCRIPT = """\
#compdef {name}
# {built}

_{name}() {{
    local curcontext=$curcontext state line
    local -a commands
    typeset -A opt_args

    _arguments -C \\
{options}
        '1: :->command' \\
        '*:: :->argument'

    case $state in
    command)
        commands=(
{words}
        )
        _describe command commands
        ;;
    argument)
        curcontext=${{curcontext%:*:*}}:{name}-$line[1]:
        case $line[1] in
{commands}
        esac
        ;;
    esac
}}

_{name} "$@"
"""

_COMMAND = """\
        {word})
            _arguments \\
{arguments}
            ;;"""

_ACTIONS = {
    Kind.FILE: "_files",
    Kind.DIRECTORY: "_files -/",
    Kind.HOST: "_hosts",
    Kind.OTHER: " ",
}


def completion(program: Command) -> str:
    """The script for `program`."""
    options = [single(spec) for option in every_option(program) for spec in _specs(option)]
    words = [single(f"{command.word}:{_plain(command.about)}") for command in program.commands]
    return _SCRIPT.format(
        name=program.name,
        built=BUILT,
        options="\n".join(f"        {spec} \\" for spec in options),
        words="\n".join(f"            {word}" for word in words),
        commands="\n".join(map(_command, program.commands)),
    )


def _command(command: Command) -> str:
    specs = [spec for option in every_option(command) for spec in _specs(option)]
    specs += map(_operand, command.operands)
    arguments = " \\\n".join(" " * 16 + single(spec) for spec in specs)
    return _COMMAND.format(word=command.word, arguments=arguments)


def _specs(option: Option) -> Iterator[str]:
    """What `_arguments` takes, for each spelling; an option is offered once."""
    alone = "(- *)" if option.flags[-1] in ("--help", "--version") else ""
    excluded = " ".join((*option.flags, *option.against))
    several = len(option.flags) + len(option.against) > 1
    for flag in option.flags:
        equals = "=" if option.value and flag.startswith("--") else ""
        before = alone or (f"({excluded})" if several else "")
        value = f":{_value(option.value)}" if option.value else ""
        yield f"{before}{flag}{equals}[{_plain(option.about)}]{value}"


def _operand(operand: Operand) -> str:
    # Where nothing can be offered, one of no words: with the message that is
    # meant for it zsh only lists the options that would fit, too.
    unknown = f"{_plain(operand.value.name.lower())}:()"
    value = unknown if operand.value.kind is Kind.OTHER else _value(operand.value)
    return f"{'*' if operand.repeats else ''}:{value}"


def _value(value: Value) -> str:
    action = f"({' '.join(value.words)})" if value.words else _ACTIONS[value.kind]
    return f"{_plain(value.name.lower())}:{action}"


def _plain(text: str) -> str:
    """Text without a meaning to `_arguments`."""
    for mark in "\\[]:":
        text = text.replace(mark, "\\" + mark)
    return text.replace("`", "")
