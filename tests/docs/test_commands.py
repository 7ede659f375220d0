"""Every command of the documents runs, and prints what its page shows."""

import argparse
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs import sandbox
from tests.docs.blocks import BLOCKS, PAGES, TOP, Block
from tests.support.daemons import CHECKOUT
from tftpd.client import arguments as tftpc
from tftpd.config.loader import build_schema
from tftpd.daemon import cli as tftpd

# Older entries of the change log name what existed then.
CURRENT = [page for page in [*TOP, *PAGES] if page.name != "CHANGELOG.md"]

RUN = ("sh", "console", "python")
LANGUAGES = {*RUN, "yaml", "text", "jinja", "json"}

# Begins of lines that only a command has.
_COMMAND = re.compile(
    r"^\$? ?(sudo )?(\.venv/bin/|/opt/tftpd/bin/)?"
    r"(tftpd|tftpc|twistd|make|curl|systemctl|journalctl|apt|apt-get|dnf|podman|docker|pip|python3?|tshark|"
    r"tcpdump|cat|echo|mkdir|ln|cp|ip|nft|atftp|tftp|busybox|dnsmasq) [-\w./]",
    re.MULTILINE,
)
# A synopsis has placeholders instead of values.
_SYNOPSIS = "[OPTION ...]"
_CODE = re.compile(r"`((?:tftpc|tftpd) [^`\n]+)`")


def runnable(block: Block) -> bool:
    return block.language in RUN


def test_every_block_has_a_known_language():
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []


def test_no_block_hides_a_command():
    hidden = [
        f"{block}: {line}"
        for block in BLOCKS
        if block.language not in RUN and _SYNOPSIS not in block.text
        for line in block.text.splitlines()
        if _COMMAND.match(line)
    ]
    assert hidden == []


def is_configuration(block: Block) -> bool:
    """A YAML block with top-level keys of the configuration."""
    keys = set(build_schema()["properties"])
    found = set(re.findall(r"^(\w+):", block.text, re.MULTILINE))
    return block.language == "yaml" and bool(found) and found <= keys


def pages() -> list[object]:
    """Pages with commands."""
    return [
        pytest.param([block for block in BLOCKS if block.page == page], id=page.stem)
        for page in [*TOP, *PAGES]
        if any(runnable(block) for block in BLOCKS if block.page == page)
    ]


# Each page needs other programs, and all of them together take a minute.
@pytest.mark.check
@pytest.mark.parametrize("blocks", pages())
def test_the_commands_of_a_page_run(blocks, tmp_path):
    chosen = [
        block
        for block in blocks
        if runnable(block) or is_configuration(block) or sandbox.template_name(block)
    ]
    text = "".join(block.text for block in chosen if runnable(block))
    is_started = "enable --now tftpd.service" in text
    needs_daemon = re.search(r"tftpc|curl|tftpd\.client|tftpd ctl", text) and not is_started
    # A reader of these pages runs `make serve`.
    is_tutorial = blocks[0].page.parent.name in ("tutorial", "zh") or "make serve" in text
    config = "SANDBOX/home/conf/tftpd.yaml" if is_tutorial else "SANDBOX/served.yaml"
    if "run --config lesson.yaml" in text:
        config = "SANDBOX/home/lesson.yaml"
    shown = [block for block in blocks if block.language == "text" and is_tutorial]
    lines = [line for block in shown for line in block.text.splitlines()]
    found = [re.match('(\\w+ ".*" by) [^ ]+(: [^,]+,)', line) for line in lines]
    logged = [f"{to_pattern(f[1])} [^ ]+{to_pattern(f[2])}" for f in found if f]
    outcomes = sandbox.run_blocks(
        tmp_path / "s", chosen, config if needs_daemon else "", logged if needs_daemon else ()
    )
    wrong = {
        str(block): f"status {outcome.status}\n{outcome.output}{outcome.errors}"
        for block, outcome in outcomes.items()
        if outcome.status != 0
    }
    assert not wrong, "\n".join(f"{place}: {text}" for place, text in wrong.items())
    for block, outcome in outcomes.items():
        if block.language == "console":
            compare(block, outcome.output)
    if lines:
        log = normalize(Path(config.replace("SANDBOX", str(tmp_path / "s")) + ".log").read_text())
        assert [line for line in lines if not re.search(to_pattern(normalize(line)), log)] == []


def to_pattern(line: str) -> str:
    """Return the regular expression for a line of a log; `...` stands for any text."""
    return ".*".join(re.escape(part) for part in line.split("..."))


def compare(block: Block, output: str) -> None:
    """Compare the output of the commands with the output that the block shows.

    A line `...` stands for any lines, and `...` in a line for any text.
    """
    printed = output.split(f"{sandbox.SEPARATOR}\n")
    for (command, shown), got in zip(sandbox.read_console(block.text), printed, strict=False):
        if shown:  # otherwise the page describes the output
            pattern = "".join(
                r"(?:.*\n)*" if line == "..." else to_pattern(line) + "\n"
                for line in normalize(shown).splitlines()
            )
            assert re.fullmatch(pattern, normalize(got)), f"{block}: {command}\nprints\n{got}"


def normalize(text: str) -> str:
    """Replace what differs from run to run: times, rates, port numbers and repeated packets."""
    text = re.sub(r"\d+\.\d+ MB/s", "RATE", text)
    text = re.sub(r"\(\d+ bytes/s\)", "(RATE)", text)
    text = re.sub(r"^ *\d+\.\d{6}", "TIME", text, flags=re.MULTILINE)
    text = re.sub(r"\b\d+\.\d{3} s\b", "TIME", text)
    text = re.sub(r"\b[1-9]\d* retransmitted", "N retransmitted", text)
    text = re.sub(r"\b\d+ retransmissions", "N retransmissions", text)
    text = re.sub(r"(\d\.\d+\.\d+\.\d+):[3-6]\d{4}\b", r"\1:PORT", text)
    kept: list[str] = []
    for line in text.splitlines(keepends=True):
        # On a busy machine packets are sent again.
        if not line.startswith("TIME ") or line not in kept:
            kept.append(line)
    return "".join(kept)


def test_every_substitute_is_used():
    text = "".join(block.text for block in BLOCKS if runnable(block))
    unused = [name for name in sandbox.SUBSTITUTES if not re.search(rf"\b{name}\b", text)]
    assert unused == []


@cache
def commands(program: str) -> dict[str, argparse.ArgumentParser]:
    parser = {"tftpc": tftpc.parser, "tftpd": tftpd.parser}[program]()
    found = subcommands(parser)
    for name, command in list(found.items()):
        found |= {f"{name} {inner}": each for inner, each in subcommands(command).items()}
    return found


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.stem)
def test_the_commands_in_the_text_exist(page):
    """`tftpd check FILE` between backticks: the subcommand and its options exist."""
    wrong = []
    for code in _CODE.findall(page.read_text()):
        program, *words = code.split()
        name = words[0]
        if name.isupper() or name[0] in "[<" or "." in name:  # tftpc HOST
            name = "prompt"
        if name == "--version":
            continue
        if name.startswith("-"):  # tftpc --no-options, of whatever subcommand
            name = next((n for n, c in commands(program).items() if name in c.format_help()), "")
        known = commands(program).get(" ".join([name, *words[1:2]])) or commands(program).get(name)
        options = [word.partition("=")[0] for word in words if re.match("--?[a-z46]", word)]
        if known is None or not set(options) <= known._option_string_actions.keys():
            wrong.append(code)
    assert wrong == []


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.stem)
def test_the_targets_in_the_text_exist(page):
    """`make serve` between backticks: the target exists."""
    makefile = (CHECKOUT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    named = set(re.findall(r"`make ([a-z][\w-]*)", page.read_text()))
    assert named <= targets


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.stem)
def test_the_modules_in_the_text_exist(page):
    """`python -m bench` between backticks: the module exists."""
    named = set(re.findall(r"`[^`\n]*python3? -m ([\w.]+)", page.read_text()))
    assert [name for name in named - {"venv", "pip"} if find_spec(name) is None] == []
