"""Command line of `tftpc`. Imports neither the network code nor Twisted, so that help is fast."""

import argparse
from contextlib import suppress
from math import inf

import tftpd
from tftpd.client.errors import UsageError
from tftpd.client.settings import IDLE_TIMEOUT_SECONDS, MAX_SIZE_BYTES, MIN_MAX_RATE, MIN_RATE
from tftpd.protocol.negotiation import Mode

_PROBE_TIMEOUT_SECONDS = 5.0
_MAX_PARALLEL = 256
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}  # as curl has them
_MODE_ALIASES = {"binary": "octet", "ascii": "netascii"}


class _PrintVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from tftpd import dataplane  # late, as in `cli`

        print(f"tftpc {tftpd.__version__} (data plane: {dataplane.NAME})")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return the argument parser; `command` in the result is the name of the subcommand."""
    top = argparse.ArgumentParser(prog="tftpc", description="TFTP client")
    help_text = "print the version and the data plane"
    top.add_argument("--version", action=_PrintVersion, nargs=0, help=help_text)
    # For the commands that do not have all of these options.
    top.set_defaults(output=None, quiet=False, verbose=False, trace=False, json=False)
    top.set_defaults(retry=0, parallel=1, has_globs=False, checksum=None)
    commands = top.add_subparsers(required=True, metavar="COMMAND", dest="command")

    get = commands.add_parser(
        "get", help="read files from a server",
        usage="%(prog)s [options] URL ...\n       %(prog)s [options] HOST[:PORT] PATH ...",
    )  # fmt: skip
    get.add_argument(
        "what", nargs="+", metavar="URL",
        help="tftp://host[:port]/path[;mode=octet|netascii], or a host and the paths of files",
    )  # fmt: skip
    get.add_argument(
        "-o", "--output", metavar="FILE",
        help="local file, directory, or - for standard output (default: the name on the server)",
    )  # fmt: skip
    get.add_argument(
        "--max-size", type=parse_natural, default=MAX_SIZE_BYTES, metavar="BYTES",
        help="fail if a file is larger (default: 4 GiB)",
    )  # fmt: skip
    get.add_argument(
        "-g", "--globoff", action="store_false", dest="has_globs",
        help="{a,b} and [1-5] in a URL have no special meaning (default: several files)",
    )  # fmt: skip
    _add_transfer_options(get)

    put = commands.add_parser(
        "put", help="write files to a server",
        usage="%(prog)s [options] FILE ... URL\n"
        "       %(prog)s [options] FILE ... HOST[:PORT] PATH",
    )  # fmt: skip
    put.add_argument(
        "what", nargs="+", metavar="FILE",
        help="local files, or - for standard input; then the URL, or a host and a path, "
        "which must end with / if there are several files",
    )  # fmt: skip
    _add_transfer_options(put)
    _add_first_block(put)

    probe = commands.add_parser("probe", help="test how a server behaves and why a boot may fail")
    probe.add_argument(
        "what", nargs="+", metavar="URL", help="tftp://host[:port]/path, or HOST[:PORT] PATH"
    )
    probe.add_argument("--json", action="store_true", help="print one JSON object")
    _add_server_options(probe, _PROBE_TIMEOUT_SECONDS)

    prompt = commands.add_parser(
        "prompt", help="interactive mode, or commands from standard input; short form: tftpc HOST"
    )
    prompt.add_argument("host", metavar="HOST", help="server: host name or IP address")
    prompt.add_argument(
        "at", nargs="?", type=parse_port, metavar="PORT", help="server port (default: 69)"
    )
    _add_request_options(prompt)
    _add_first_block(prompt)
    return top


def parse_natural(text: str) -> int:
    """Parse a non-negative integer; raise `UsageError` for other text."""
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f'not a non-negative integer: "{text}"')
    return int(text)


def parse_port(text: str) -> int:
    """Parse a UDP port; raise `UsageError` for other text."""
    port = parse_natural(text)
    if not 1 <= port <= 65535:
        raise UsageError(f"invalid port {text}: a port is 1 to 65535")
    return port


def parse_mode(text: str) -> Mode:
    """Parse a transfer mode or its name in tftp(1); raise `UsageError` for other text."""
    mode = Mode.parse(_MODE_ALIASES.get(text.lower(), text).encode())
    if mode is None:
        raise UsageError(f'invalid mode "{text}": use octet (binary) or netascii (ascii)')
    return mode


def _add_transfer_options(parser: argparse.ArgumentParser) -> None:
    _add_request_options(parser)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("-q", "--quiet", action="store_true", help="print only errors")
    output.add_argument(
        "-v", "--verbose", action="store_true", help="print every packet and the agreed options"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each file")
    parser.add_argument(
        "--checksum", choices=["sha256"], metavar="sha256",
        help="also print the SHA-256 of each file",
    )  # fmt: skip
    parser.add_argument(
        "--retry", type=parse_natural, default=0, metavar="N",
        help="repeat a transfer up to N times after a timeout, ERROR 0 or ERROR 3 (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--parallel", type=_parse_count, default=1, metavar="N",
        help="transfer up to N files at the same time, 1 to 256 (default: 1)",
    )  # fmt: skip


def _add_request_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode", type=parse_mode, default=Mode.OCTET, metavar="octet|netascii",
        help="transfer mode if the URL has none (default: octet); netascii converts line ends",
    )  # fmt: skip
    parser.add_argument(
        "--blksize", type=parse_natural, metavar="BYTES",
        help="block size, 8 to 65464 (default: the largest that needs no IP fragmentation)",
    )  # fmt: skip
    parser.add_argument(
        "--windowsize", type=parse_natural, metavar="BLOCKS",
        help="blocks in a window, up to 2 MiB (default: 16, fewer if the blocks are large)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=parse_natural, metavar="SECONDS",
        help="retransmission interval of both sides, 1 to 255 (default: measured)",
    )  # fmt: skip
    parser.add_argument(
        "--rollover", type=parse_natural, metavar="0|1",
        help="block number after 65535: 0 or 1 (default: do not request the option)",
    )  # fmt: skip
    parser.add_argument(
        "--no-options", action="store_false", dest="has_options",
        help="send a request without options (default: only if the server ignores or refuses them)",
    )  # fmt: skip
    parser.add_argument(
        "--min-rate", type=parse_natural, default=MIN_RATE, metavar="BYTES",
        help=f"fail below this rate per second in twice --patience (default: {MIN_RATE}; 0: off)",
    )  # fmt: skip
    parser.add_argument(
        "--limit-rate", type=parse_rate, dest="max_rate", metavar="BYTES",
        help="bytes per second of each file, at least 2k; k, M and G are units (default: no limit)",
    )  # fmt: skip
    _add_server_options(parser, IDLE_TIMEOUT_SECONDS)


def _add_first_block(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--first-block", type=parse_natural, default=1, metavar="0|1",
        help="number of the first block of an upload; 0 for servers that count from 0 (default: 1)",
    )  # fmt: skip


def _add_server_options(parser: argparse.ArgumentParser, idle_timeout: float) -> None:
    parser.add_argument(
        "--port", type=parse_port, default=69, metavar="PORT",
        help="server port if the URL has none (default: 69)",
    )  # fmt: skip
    parser.add_argument(
        "--patience", type=parse_seconds, default=idle_timeout, dest="idle_timeout",
        metavar="SECONDS",
        help=f"fail if the server sends nothing for this time (default: {idle_timeout:g})",
    )  # fmt: skip
    local = parser.add_mutually_exclusive_group()
    local.add_argument(
        "--local", metavar="ADDRESS", help="local IP address to send from (default: any)"
    )
    for option, version, address in (("-4", "IPv4", "0.0.0.0"), ("-6", "IPv6", "::")):
        local.add_argument(
            option, action="store_const", const=address, dest="local", help=f"use {version} only"
        )
    parser.add_argument(
        "--encoding", type=_parse_encoding, default="utf-8", metavar="NAME",
        help="encoding of file names on the server (default: utf-8)",
    )  # fmt: skip


def parse_seconds(text: str) -> float:
    """Parse a non-negative number of seconds; raise `UsageError` for other text."""
    with suppress(ValueError):
        seconds = float(text)
        if 0 <= seconds < inf:
            return seconds
    raise UsageError(f'not a number of seconds: "{text}"')


def parse_rate(text: str) -> int:
    """Parse a number of bytes with an optional unit; raise `UsageError` for other text."""
    unit = _UNITS.get(text[-1:].lower(), 1)
    rate = parse_natural(text if unit == 1 else text[:-1]) * unit
    if rate < MIN_MAX_RATE:
        raise UsageError(f'the limit "{text}" is below {MIN_MAX_RATE} bytes per second')
    return rate


def _parse_count(text: str) -> int:
    count = parse_natural(text)
    if not 1 <= count <= _MAX_PARALLEL:
        raise UsageError(f"invalid number {text}: 1 to {_MAX_PARALLEL} files at the same time")
    return count


def _parse_encoding(text: str) -> str:
    try:
        "a".encode(text)
    except LookupError as error:
        raise UsageError(str(error)) from error
    return text
