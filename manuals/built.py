"""Every file that is built, in the layout in which it is installed."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from twisted.python.usage import CompleteFiles

import tftpd
from manuals import bash, fish, pages, prose, zsh
from manuals.commands import Command, Option, Value, command
from manuals.keys import mappings
from tftpd.client import arguments as client
from tftpd.config.loader import schema
from tftpd.daemon import cli as daemon
from tftpd.daemon.service import Options as Plugin

TEXTS = Path(__file__).parent / "text"

_SOURCE = f"tftpd {tftpd.__version__}"


def files() -> dict[PurePosixPath, str]:
    """The text of each file, by its path beneath the prefix of an installation."""
    tftpc, server = command(client.parser()), command(daemon.parser())
    plugin = {"plugin": lambda page: pages.options(twistd_options(Plugin), page)}
    return dict(
        [
            _page("tftpc.1", pages.of_command(tftpc)),
            _page("tftpd.8", pages.of_command(server) | plugin),
            _page("tftpd.yaml.5", pages.of_keys(mappings(schema()))),
            *_completions(tftpc),
            *_completions(server),
        ]
    )


def twistd_options(options: Any) -> list[Option]:
    """The options of twistd's plugin, whose class is `options`."""
    actions = options.compData.optActions
    files = [name for name, action in actions.items() if isinstance(action, CompleteFiles)]
    switches = getattr(options, "optFlags", ())
    return [
        Option(_flags(long, short), Value("FILE" if long in files else long.upper()), about)
        for long, short, _, about, *_ in options.optParameters
    ] + [Option(_flags(long, short), None, about) for long, short, about in switches]


def _flags(long: str, short: str | None) -> tuple[str, ...]:
    return (f"-{short}", f"--{long}") if short else (f"--{long}",)


def _page(name: str, parts: dict[str, pages.Build]) -> tuple[PurePosixPath, str]:
    text = (TEXTS / f"{name}.md").read_text(encoding="utf-8")
    section = prose.read(text)[0].section
    return PurePosixPath(f"share/man/man{section}/{name}"), pages.page(text, _SOURCE, parts)


def _completions(program: Command) -> Iterator[tuple[PurePosixPath, str]]:
    share, name = PurePosixPath("share"), program.name
    yield share / "bash-completion/completions" / name, bash.completion(program)
    yield share / "zsh/site-functions" / f"_{name}", zsh.completion(program)
    yield share / "fish/vendor_completions.d" / f"{name}.fish", fish.completion(program)
