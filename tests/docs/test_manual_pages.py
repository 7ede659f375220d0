"""The committed manual pages: complete, and free of faults that mandoc and groff report."""

import argparse
import re
import subprocess

import pytest

from tests.support.daemons import CHECKOUT
from tests.support.programs import program
from tftpd.client import arguments as client
from tftpd.config.loader import build_schema
from tftpd.daemon import cli as daemon
from tftpd.daemon.service import Options

PAGES = sorted((CHECKOUT / "share/man").rglob("*.[1-9]"))
LIMIT = 60  # seconds


def _run(*arguments):
    run = [program(arguments[0]), *map(str, arguments[1:])]
    done = subprocess.run(run, capture_output=True, text=True, timeout=LIMIT)
    return done.returncode, done.stderr or done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_reports_no_warning(page):
    assert _run("mandoc", "-T", "lint", "-W", "warning", page) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_groff_reports_no_warning(page):
    assert _run("groff", "-t", "-man", "-ww", "-Tutf8", "-z", page) == (0, "")


def _source(name):
    """Return the roff of a page with plain hyphens and without fonts."""
    (page,) = [page for page in PAGES if page.name == name]
    return re.sub(r"\\f[BIPR]", "", page.read_text().replace(r"\-", "-"))


def _terms(name):
    """Return the described keys or options of a page."""
    return re.findall(r"^\.B (.+)$", _source(name), re.MULTILINE)


def test_the_page_of_the_configuration_describes_every_key():
    terms = set(_terms("tftpd.yaml.5"))
    prefixes = {"", *(term.rpartition(".")[0] + "." for term in terms)}
    models = {"(outermost)": build_schema(), **build_schema()["$defs"]}
    missing = [
        name
        for name, model in models.items()
        if "properties" in model
        and not any(terms >= {prefix + key for key in model["properties"]} for prefix in prefixes)
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("name", "parser"), [("tftpc.1", client.parser()), ("tftpd.8", daemon.parser())]
)
def test_a_page_describes_every_command_and_every_option(name, parser):
    source, described = _source(name), ", ".join(_terms(name)).split(", ")
    (commands,) = [
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    ]
    assert [word for word in commands.choices if f"\n.SS {word}\n" not in source] == []
    flags = [
        flag
        for one in (parser, *commands.choices.values())
        for action in one._actions
        for flag in action.option_strings
    ]
    assert {flag for flag in flags if flag not in {term.split()[0] for term in described}} == set()


def test_the_page_of_the_daemon_describes_the_options_of_its_twistd_plugin():
    described = _terms("tftpd.8")
    for long, short, *_ in Options.optParameters:
        assert f"-{short} FILE, --{long} FILE" in described
