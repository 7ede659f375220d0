"""The manual pages: the texts of `text/`, and in them what the program knows of itself."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from manuals import prose
from manuals.commands import Command, Option, shared
from manuals.keys import Key, Mappings
from manuals.roff import Page

Build = Callable[[Page], None]


def page(text: str, source: str, parts: Mapping[str, Build]) -> str:
    """The roff of a page; `parts` build what its text has in braces.

    `source` is what the page belongs to, a name and a version. Raises
    `prose.Malformed` for a text that has not all of `parts`, or others.
    """
    head, blocks = prose.read(text)
    wanted = sorted(block.name for block in blocks if isinstance(block, prose.Built))
    if wanted != sorted(parts):
        raise prose.Malformed(f"{head.name}: built are {sorted(parts)}, the text has {wanted}")
    made = Page(head, source)
    for block in blocks:
        match block:
            case prose.Section(level, title):
                made.section(title, level)
            case prose.Paragraph(said):
                made.paragraph(said)
            case prose.Term(terms, about):
                made.term(terms, about)
            case prose.Example(lines):
                made.example(lines)
            case prose.Built(name):
                parts[name](made)
    return str(made)


def of_command(command: Command) -> dict[str, Build]:
    """What the page of a command line is built from."""
    return {
        "synopsis": partial(_synopsis, command),
        "options": partial(options, command.options),
        "commands": partial(_commands, command.commands),
    }


def of_keys(mappings: Iterable[Mappings]) -> dict[str, Build]:
    """What the page of a configuration is built from."""
    return {"keys": partial(_keys, list(mappings))}


def _synopsis(command: Command, page: Page) -> None:
    every = [form for one in command.commands for form in one.synopsis] or command.synopsis
    page.synopsis(map(_form, every))


def _form(line: str) -> str:
    """A form with its marks: words are typed, names in capitals and in brackets are not."""
    line = line.replace("[options]", "[OPTION ...]")
    line = re.sub(r"[A-Z][A-Z_]*(?![a-z])", lambda name: f"*{name[0].lower()}*", line)
    return re.sub(r"(?<![*\w])[a-z0-9-][\w-]*(?![*\w])", r"`\g<0>`", line)


def _commands(commands: Iterable[Command], page: Page) -> None:
    """Each command with what it alone has, then what several have."""
    together = shared(commands)
    for one in commands:
        page.section(one.word, 2)
        for said in (one.about, *one.more):
            page.paragraph(_sentence(said))
        for operand in one.operands:
            page.term([_form(operand.form)], _sentence(operand.about))
        options([option for option in one.options if option not in together], page)
        if groups := _among(one, together):
            page.paragraph(f"And the options of {', and those of '.join(groups)}, below.")
    owners = dict.fromkeys(together.values())
    for having in owners:
        page.section(f"Options of {_names(having)}", 2)
        options([option for option, theirs in together.items() if theirs == having], page)


def _among(command: Command, together: Mapping[Option, tuple[Command, ...]]) -> list[str]:
    """The groups of common options that a command has."""
    return [_names(having) for having in dict.fromkeys(together.values()) if command in having]


def _names(commands: Iterable[Command]) -> str:
    return _and([f"`{command.word}`" for command in commands])


def _and(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def options(of: Iterable[Option], page: Page) -> None:
    """A term for each option."""
    for option in of:
        flags = ", ".join(f"`{flag}`" for flag in sorted(option.flags, key=len))
        value = f" {_form(option.value.name)}" if option.value else ""
        said = _sentence(option.about)
        if option.against:
            excluded = " or ".join(f"`{flag}`" for flag in option.against if flag[:2] == "--")
            said = f"{said} Not together with {excluded}."
        page.term([flags + value], said)


def _sentence(about: str) -> str:
    """A help text as a sentence; one that begins with a name stays as it is."""
    if not about:
        return ""
    first = about if re.match(r"\S*[:/`]", about) else about[0].upper() + about[1:]
    return first if first.endswith((".", "!", "?")) else f"{first}."


def _keys(mappings: list[Mappings], page: Page) -> None:
    """The outermost keys, then a section for each mapping within."""
    for mapping in mappings:
        if mapping.path:
            page.section(f"`{mapping.path}`", 2)
            page.paragraph(mapping.about)
        for key in mapping.keys:
            page.term([f"`{key.name}`"], _key(key))


def _key(key: Key) -> str:
    """`The UDP port (from 1 to 65535; by default 69).`"""
    default = f"by default `{key.default}`" if key.default is not None else ""
    said = "; ".join(filter(None, [key.values, "required" if key.required else default]))
    return f"{key.about.rstrip('.')} ({said})." if said else _sentence(key.about)
