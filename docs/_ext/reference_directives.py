"""Sphinx directives that document the configuration keys and the command lines.

Both read what the program itself uses: the pydantic models and the argparse parsers.
"""

import json
from argparse import Action, ArgumentParser, _SubParsersAction
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from docutils.nodes import Node
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tftpd.client import arguments as client
from tftpd.config.loader import build_schema
from tftpd.daemon import cli as daemon

Schema = Mapping[str, Any]

SCHEMA: Schema = build_schema()
PARSERS = {"tftpc": client.parser, "tftpd": daemon.parser}
TYPE_NAMES = {"array": "list", "number": "seconds", "object": "mapping"}


class ConfigKeys(SphinxDirective):
    """`{config-keys} PATH` lists the keys of a mapping such as `directories[].read`.

    Without PATH it lists the keys of the outermost mapping.
    """

    optional_arguments = 1

    def run(self) -> list[Node]:
        """Return one `confval` description for each key."""
        self.env.note_reread()
        path = "".join(self.arguments)
        mapping = dict(mappings(SCHEMA))[path]
        text = ""
        for name, key in mapping["properties"].items():
            about = describe_key(key, required=name in mapping.get("required", ()))
            text += f"```{{confval}} {join_path(path, name)}\n{about}\n```\n"
        return self.parse_text_to_nodes(text)


class CommandOptions(SphinxDirective):
    """`{command-options} PROGRAM COMMAND ...` lists what exactly these commands have.

    These are operands and options. Without COMMAND it lists the options of the program itself.
    """

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[Node]:
        """Return one `option` description for each option, and a definition for each operand."""
        self.env.note_reread()
        program, *commands = self.arguments[0].split()
        scope = " ".join([program, *commands]) if len(commands) == 1 else program
        text = f":::{{program}} {scope}\n:::\n"
        for description, owners in argument_owners(PARSERS[program]()).items():
            text += description if owners == set(commands or [""]) else ""
        return self.parse_text_to_nodes(text)


def mappings(value: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield the path and the schema of each mapping at or below `value`."""
    value = resolve(value)
    for name, key in value.get("properties", {}).items():
        yield from mappings(key, join_path(path, name))
    if "properties" in value:
        yield path, value
    if "items" in value:
        yield from mappings(value["items"], f"{path}[]")
    for named in value.get("patternProperties", {}).values():
        yield from mappings(named, join_path(path, "NAME"))
    for alternative in value.get("anyOf", ()):
        yield from mappings(alternative, path)


def join_path(path: str, name: str) -> str:
    """Return the path of the key `name` in the mapping at `path`."""
    return f"{path}.{name}" if path else name


def resolve(value: Schema) -> Schema:
    """Return a schema with the definition that its `$ref` names."""
    name = value.get("$ref", "").rpartition("/")[2]
    return {**SCHEMA["$defs"][name], **value} if name else value


def describe_key(key: Schema, *, required: bool) -> str:
    """Return the description of a key, then its type and its default."""
    default = format_default(key)
    facts = [describe_type(key)]
    if required or default:
        facts.append("required" if required else f"default: `{default}`")
    return f"{resolve(key)['description'].rstrip('.')} ({'; '.join(facts)})."


def describe_type(key: Schema) -> str:
    """Return the type of a value and its range, such as `integer from 1 to 65535`."""
    match resolve(key):
        case {"anyOf": _} if is_size(key):
            return "size"
        case {"anyOf": kinds}:
            return " or ".join(describe_type(kind) for kind in kinds if kind.get("type") != "null")
        case {"enum": words}:
            return " or ".join(f"`{word}`" for word in words).replace(" or ", ", ", len(words) - 2)
        case {"type": ["string", "integer"]}:
            return "octal number"
        case {"type": kind, "minimum": low, "maximum": high}:
            return f"{TYPE_NAMES.get(kind, kind)} from {low:.10g} to {high:.10g}"
        case {"type": kind, "exclusiveMinimum": 0, "maximum": high}:
            return f"{TYPE_NAMES.get(kind, kind)} above 0, at most {high:.10g}"
        case other:
            return str(TYPE_NAMES.get(other["type"], other["type"]))


def is_size(key: Schema) -> bool:
    """Return True for a number of bytes, which may have a unit."""
    return any("[kKmMgGtT]" in kind.get("pattern", "") for kind in key.get("anyOf", ()))


def format_default(key: Schema) -> str:
    """Return the default as it is written in a configuration; empty for none and for a mapping."""
    default = key.get("default")
    if default in (None, []) or "{" in json.dumps(default):
        return ""
    if is_size(key) and default % (1 << 20) == 0:
        return f"{default >> 20}MiB"
    return json.dumps(default).strip('"').removesuffix(".0")


def argument_owners(parser: ArgumentParser) -> dict[str, set[str]]:
    """Return the description of each argument and the commands that have it ("": the program).

    A command also has the arguments of its own commands, such as those of `tftpd ctl set`.
    """
    owners = defaultdict(set)

    def collect(command: str, parser: ArgumentParser, inherited: set[str]) -> None:
        for action in parser._actions:
            if isinstance(action, _SubParsersAction):
                names = inherited | {each.dest for each in parser._actions}
                for name, subparser in action.choices.items():
                    collect(command or name, subparser, names if command else set())
            elif action.dest not in inherited | {"help", "command"}:
                owners[describe_argument(action)].add(command)

    collect("", parser, set())
    return owners


def describe_argument(action: Action) -> str:
    """Return the description of an option or operand."""
    value = str(action.metavar or "|".join(action.choices or ()) or action.dest.upper())
    about = ((action.help or "") % vars(action)).rstrip(".")
    if "://" not in about.partition(" ")[0]:
        about = about[:1].upper() + about[1:]
    if not action.option_strings:
        return f"`{value}`\n: {about}.\n\n"
    flags = sorted(action.option_strings, key=len)
    forms = flags if action.nargs == 0 else [f"{flag} {value}" for flag in flags]
    return f"```{{option}} {', '.join(forms)}\n{about}.\n```\n"


def setup(app: Sphinx) -> None:
    """Register the directives."""
    app.add_directive("config-keys", ConfigKeys)
    app.add_directive("command-options", CommandOptions)
