"""The command line of `tftpc`. No network, no Twisted: help comes at once."""

import argparse
from math import inf

import tftpd
from tftpd.protocol.negotiation import Mode


def parser() -> argparse.ArgumentParser:
    """What understands it; `command` names the subcommand."""
    top = argparse.ArgumentParser(prog="tftpc", description="A TFTP client.")
    version = f"tftpc {tftpd.__version__}"
    top.add_argument("--version", action="version", version=version, help="show the version")
    commands = top.add_subparsers(required=True, metavar="COMMAND", dest="command")

    get = commands.add_parser(
        "get", help="read files from a server",
        usage="%(prog)s [options] URL ...\n       %(prog)s [options] HOST[:PORT] PATH ...",
    )  # fmt: skip
    get.add_argument(
        "what", nargs="+", metavar="URL",
        help="tftp://host[:port]/path[;mode=octet|netascii], or else a host and paths on it",
    )  # fmt: skip
    get.add_argument("-o", "--output", metavar="FILE", help="a file, a directory, or - for stdout")
    get.add_argument(
        "--max-size", type=natural, metavar="OCTETS", help="refuse larger files (none)"
    )
    _add_common(get)

    put = commands.add_parser(
        "put", help="write files to a server", usage="%(prog)s [options] FILE ... URL"
    )
    put.add_argument(
        "what", nargs="+", metavar="FILE",
        help="files, or - for stdin; then tftp://host[:port]/path, for several with a / at its end",
    )  # fmt: skip
    put.set_defaults(output=None, max_size=None)
    _add_common(put)

    probe = commands.add_parser("probe", help="see what a server does, and why a boot may fail")
    probe.add_argument(
        "what", nargs="+", metavar="URL", help="tftp://host[:port]/path; or HOST[:PORT] PATH"
    )
    probe.add_argument("--json", action="store_true", help="one JSON object")
    _add_way(probe, 5.0)

    prompt = commands.add_parser(
        "prompt", help="ask for commands, or read them from stdin; the word itself may be left out"
    )
    prompt.add_argument("host", metavar="HOST", help="the server, a name or an address")
    prompt.add_argument("at", nargs="?", type=port, metavar="PORT", help="its port (69)")
    prompt.set_defaults(quiet=False, verbose=False, trace=False, json=False)
    prompt.set_defaults(output=None, max_size=None)
    _add_request(prompt)
    return top


def natural(text: str) -> int:
    """A number without a sign; raises `ArgumentTypeError`, as those below."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a whole number, not {text}")
    return int(text)


def port(text: str) -> int:
    """A UDP port."""
    number = natural(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"1 to 65535, not {text}")
    return number


def mode(text: str) -> Mode:
    """A transfer mode."""
    spelled = Mode.parse(text.encode())
    if spelled is None:
        raise argparse.ArgumentTypeError(f"octet or netascii, not {text}")
    return spelled


def _add_common(parser: argparse.ArgumentParser) -> None:
    _add_request(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    how.add_argument("-v", "--verbose", action="store_true", help="say each packet")
    how.add_argument("--json", action="store_true", help="one JSON object for each file")


def _add_request(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--mode", type=mode, default=Mode.OCTET, metavar="octet|netascii",
        help="where the URL names none (octet); netascii translates the ends of lines",
    )  # fmt: skip
    add(
        "--blksize", type=natural, metavar="OCTETS",
        help="octets of a block, 8 to 65464 (what the path takes whole)",
    )  # fmt: skip
    add(
        "--windowsize", type=natural, metavar="BLOCKS",
        help="blocks of a window, at most 2 MiB of them (16; of large blocks fewer)",
    )  # fmt: skip
    add(
        "--timeout", type=natural, metavar="SECONDS",
        help="between repeats, 1 to 255, for both ends (measured)",
    )  # fmt: skip
    add(
        "--rollover", type=natural, metavar="0|1",
        help="the block number after 65535 (not asked for)",
    )  # fmt: skip
    _add_way(parser, 30.0)


def _add_way(parser: argparse.ArgumentParser, patience: float) -> None:
    """How the server is reached, and how long it is waited for."""
    add = parser.add_argument
    add("--port", type=port, default=69, metavar="PORT", help="where the URL names none (69)")
    add(
        "--patience", type=_seconds, default=patience, metavar="SECONDS",
        help=f"give up on a server that is silent for so long ({patience:g})",
    )  # fmt: skip
    add("--local", metavar="ADDRESS", help="our own address (any)")
    add("--encoding", default="utf-8", metavar="NAME", help="of names on the server (utf-8)")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < inf:
        raise argparse.ArgumentTypeError(f"a number of seconds, not {text}")
    return seconds
