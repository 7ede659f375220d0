"""A parser, read into values."""

import argparse

from manuals.commands import Command, Kind, Operand, Option, Value, command, shared


def _parser():
    return argparse.ArgumentParser(prog="prog", description="A program.")


def test_options_and_operands_become_values():
    parser = _parser()
    parser.add_argument("what", nargs="+", metavar="FILE", help="what to read")
    parser.add_argument("-o", "--output", metavar="FILE|DIR|-", required=True, help="where to")
    parser.add_argument("--mode", metavar="octet|netascii")
    parser.add_argument("--level", choices=[1, 2])
    parser.add_argument("--port", type=int, default=69, help="a port (%(default)s), 100%%")
    assert command(parser) == Command(
        "prog",
        ("prog [options] --output FILE|DIR|- FILE ...",),
        "",
        ("A program.",),
        (
            Option(("-o", "--output"), Value("FILE|DIR|-", Kind.FILE), "where to", required=True),
            Option(("--mode",), Value("octet|netascii", Kind.WORDS, ("octet", "netascii")), ""),
            Option(("--level",), Value("1|2", Kind.WORDS, ("1", "2")), ""),
            Option(("--port",), Value("PORT"), "a port (69), 100%"),
        ),
        (Operand(Value("FILE", Kind.FILE), "FILE ...", "what to read", repeats=True),),
    )


def test_switches_that_exclude_each_other_say_so():
    parser = _parser()
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-q", "--quiet", action="store_true")
    group.add_argument("--json", action="store_true")
    quiet, json = command(parser).options
    assert (quiet.against, json.against) == (("--json",), ("-q", "--quiet"))
    assert quiet.value is None


def test_subcommands_have_names_forms_and_what_they_share():
    parser = _parser()
    commands = parser.add_subparsers(metavar="COMMAND")
    usage = "%(prog)s URL\n       %(prog)s HOST PATH"
    get = commands.add_parser("get", help="read", aliases=["fetch"], usage=usage)
    put = commands.add_parser("put", help="write", description="Write\n  it.\n\n  All.")
    commands.add_parser("hidden")
    for one in (get, put):
        one.add_argument("--port", metavar="PORT", help="where")
    got, written = command(parser).commands
    assert (got.name, got.word, got.about) == ("prog get", "get", "read")
    assert got.synopsis == ("prog get URL", "prog get HOST PATH")
    assert (written.about, written.more) == ("write", ("Write it.", "All."))
    assert written.synopsis == ("prog put [options]",)
    assert shared([got, written]) == {got.options[0]: (got, written)}


def test_what_is_not_to_be_seen_is_not_seen():
    parser = _parser()
    parser.add_argument("--secret", help=argparse.SUPPRESS)
    assert command(parser).options == ()


def test_forms_of_operands_are_those_of_a_synopsis():
    parser = _parser()
    parser.add_argument("one")
    parser.add_argument("two", nargs=2)
    parser.add_argument("may", nargs="?", metavar="DIR")
    parser.add_argument("many", nargs="*")
    one, two, may, many = command(parser).operands
    assert [one.form, two.form, may.form] == ["ONE", "TWO TWO", "[DIR]"]
    assert (many.form, may.value.kind, many.repeats) == ("[MANY ...]", Kind.DIRECTORY, True)
