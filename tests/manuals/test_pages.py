"""Manual pages: from text and values to roff, and what readers make of it."""

import argparse
import subprocess

import pytest

from manuals import pages, prose
from manuals.built import files
from manuals.commands import command
from manuals.roff import marked
from tests.support.programs import program
from tftpd.client import arguments as client
from tftpd.config.loader import schema
from tftpd.daemon import cli as daemon

PAGES = {name: text for name, text in files().items() if name.parts[1] == "man"}
HEAD = "# prog(1), 2020-02-02: does things\n"
LIMIT = 60


@pytest.fixture(params=PAGES, ids=lambda name: name.name)
def page(request, tmp_path):
    """A page on disk."""
    path = tmp_path / request.param.name
    path.write_text(PAGES[request.param])
    return str(path)


def _run(*arguments):
    run = [program(arguments[0]), *arguments[1:]]
    return subprocess.run(run, capture_output=True, text=True, timeout=LIMIT)


def test_mandoc_has_nothing_to_say_of_it(page):
    done = _run("mandoc", "-T", "lint", "-W", "style", page)
    assert (done.stdout, done.returncode) == ("", 0)


def test_groff_has_nothing_to_say_of_it(page):
    done = _run("groff", "-man", "-ww", "-Tutf8", page)
    assert (done.stderr, done.returncode) == ("", 0)


def _read(name):
    """What a reader sees, each run of blanks as one."""
    (roff,) = [text for path, text in PAGES.items() if path.name == name]
    run = [program("mandoc"), "-T", "ascii"]
    shown = subprocess.run(run, input=roff, capture_output=True, text=True, timeout=LIMIT).stdout
    plain = "".join(now for now, after in zip(shown, shown[1:] + " ", strict=True) if after != "\b")
    return " ".join(plain.replace("\b", "").split())


@pytest.mark.parametrize(("name", "parser"), [("tftpc.1", client), ("tftpd.8", daemon)])
def test_a_page_has_every_command_and_every_option(name, parser):
    shown, top = _read(name), command(parser.parser())
    assert [one.word for one in top.commands if f"{one.name} " not in shown] == []
    options = [option for one in (top, *top.commands) for option in one.options]
    assert options
    assert [flag for option in options for flag in option.flags if flag not in shown] == []


def test_a_page_has_every_key():
    shown = _read("tftpd.yaml.5")
    models = [schema(), *schema()["$defs"].values()]
    keys = [key for model in models for key in model.get("properties", ())]
    assert [key for key in keys if f" {key} " not in shown] == []


def test_a_page_has_its_sections():
    assert [line for line in PAGES[_path("tftpc.1")].splitlines() if line.startswith(".SH")] == [
        ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH OPTIONS", ".SH COMMANDS",
        '.SH "THE PROMPT"', '.SH "THE PROBE"', '.SH "EXIT STATUS"', ".SH EXAMPLES",
        ".SH ENVIRONMENT", ".SH FILES",
        '.SH "SEE ALSO"',
    ]  # fmt: skip


def _path(name):
    return next(path for path in PAGES if path.name == name)


def test_a_new_subcommand_shows_by_itself():
    parser = argparse.ArgumentParser(prog="prog")
    commands = parser.add_subparsers()
    for word in ("old", "new"):
        one = commands.add_parser(word, help=f"what is {word}")
        one.add_argument("--port", metavar="PORT", help="where")
    one.add_argument("--only", action="store_true", help="what is its own")
    text = HEAD + "\n## Commands\n\n{synopsis}\n\n{options}\n\n{commands}\n"
    roff = pages.page(text, "prog 1", pages.of_command(command(parser)))
    assert roff.endswith(r"""
.SS new
What is new.
.TP
\fB\%\-\-only\fR
What is its own.
.PP
And the options of \fB\%old\fR and \fB\%new\fR, below.
.SS "Options of \fB\%old\fR and \fB\%new\fR"
.TP
\fB\%\-\-port\fR \fI\%port\fR
Where.
""")


@pytest.mark.parametrize("text", [HEAD, HEAD + "\n{keys}\n\n{more}\n", "prog: does things\n"])
def test_a_text_that_leaves_something_out_is_told(text):
    with pytest.raises(prose.Malformed):
        pages.page(text, "prog 1", pages.of_keys([]))


def test_text_becomes_roff():
    text = (
        HEAD
        + r"""
## Some things

One. Two with `a-b` and *name*,
in -x a\b:

    .first 'line'

      last

`-a`, `-b`
`-c`
: A term. And
  its meaning.

.Last
"""
    )
    assert (
        pages.page(text, "prog 1", {})
        == r""".\" Built by `make manuals`; changes to this file are lost.
.TH PROG 1 2020-02-02 "prog 1"
.ad l
.SH NAME
prog \- does things
.SH "SOME THINGS"
One.
Two with \fB\%a\-b\fR and \fI\%name\fR, in \-x a\eb:
.PP
.RS 4
.EX
\&.first \(aqline\(aq

  last
.EE
.RE
.TP
\fB\%\-a\fR, \fB\%\-b\fR
.TQ
\fB\%\-c\fR
A term.
And its meaning.
.PP
\&.Last
"""
    )


def test_what_is_typed_can_be_copied():
    assert marked("`a-'^~`") == r"\fB\%a\-\(aq\(ha\(ti\fR"
    assert marked("well-known 2*3 and 4*5") == "well-known 2*3 and 4*5"
