"""Completions for bash 4 and newer. They need nothing, bash-completion included.

bash hands over `--mode=octet` as three words and `tftp://host` as three, too.
"""

from collections.abc import Iterable, Iterator

from manuals.commands import Command, Kind, Operand, Value
from manuals.shells import BUILT, every_option, flags

_SCRIPT = """\
# bash completion for {name}. {built}

_{name}()
{{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    local command= operands=0 valued={valued} index word
    COMPREPLY=()
    if [[ $current == = ]]; then
        current=
    elif [[ $previous == = ]]; then
        previous=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi

    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${{COMP_WORDS[index]}}
        case $word in
        -?*)
            if [[ " $valued " == *" $word "* ]]; then
                [[ ${{COMP_WORDS[index + 1]}} == = ]] && ((index++))
                ((index++))
            fi
            ;;
        :*) ;; # within a URL
        *)
            if [[ -z $command ]]; then
                command=$word
                case $command in
{commands}
                esac
            elif [[ ${{COMP_WORDS[index - 1]}} != *: ]]; then
                ((operands++))
            fi
            ;;
        esac
    done

    case "$command $previous" in
{values}
    esac
    if [[ " $valued " == *" $previous "* || $previous == *: || $current == :* ]]; then
        return
    fi
    case "$command $current" in
{flags}
    esac
    case "$command $operands" in
{operands}
    esac
}}

_{name}_offer()
{{
    local how=$1 current=$2
    case $how in
    file) # readline itself has a better try at ~ and at what is in quotes
        compopt -o filenames -o default 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        ;;
    directory)
        compopt -o filenames -o dirnames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "$current")
        ;;
    host) mapfile -t COMPREPLY < <(compgen -A hostname -- "$current") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$how" -- "$current") ;;
    esac
}}

complete -F _{name} {name}
"""


def completion(program: Command) -> str:
    """The script for `program`."""
    every = [program, *program.commands]
    return _SCRIPT.format(
        name=program.name,
        built=BUILT,
        valued=_quoted(_valued(program)),
        commands=_indented(16, map(_begun, program.commands)),
        values=_indented(4, (line for one in every for line in _values(program, one))),
        flags=_indented(4, (_flags(program, one) for one in every)),
        operands=_indented(4, _operands(program)),
    )


def _begun(command: Command) -> str:
    return f"{command.word}) valued={_quoted(_valued(command))} ;;"


def _valued(command: Command) -> str:
    """The flags that a word follows."""
    return " ".join(flags(option for option in command.options if option.value))


def _values(program: Command, command: Command) -> Iterator[str]:
    for option in command.options:
        if option.value and (offer := _offer(program, option.value)):
            spelled = " | ".join(
                _quoted(f"{_within(program, command)} {flag}") for flag in option.flags
            )
            yield f"{spelled}) {offer} && return ;;"


def _flags(program: Command, command: Command) -> str:
    words = " ".join(flags(every_option(command)))
    pattern = f'"{_within(program, command)} "-*'
    return f'{pattern}) _{program.name}_offer {_quoted(words)} "$current" && return ;;'


def _operands(program: Command) -> Iterator[str]:
    words = " ".join(command.word for command in program.commands)
    yield f'" "*) _{program.name}_offer {_quoted(words)} "$current" ;;'
    for command in program.commands:
        for place, operand in enumerate(command.operands):
            if offer := _offer(program, operand.value):
                yield f"{_place(command, operand, place)}) {offer} ;;"


def _place(command: Command, operand: Operand, place: int) -> str:
    """The pattern of the operand at `place`, or of all from there."""
    if operand.repeats:
        return f'"{command.word} "*'
    return f'"{command.word} {place}"'


def _offer(program: Command, value: Value) -> str:
    if value.kind is Kind.OTHER:
        return ""
    how = " ".join(value.words) if value.kind is Kind.WORDS else value.kind.value
    return f'_{program.name}_offer {_quoted(how)} "$current"'


def _within(program: Command, command: Command) -> str:
    return "" if command is program else command.word


def _quoted(words: str) -> str:
    return f'"{words}"' if " " in words or not words else words


def _indented(depth: int, lines: Iterable[str]) -> str:
    return "\n".join(" " * depth + line for line in lines)
