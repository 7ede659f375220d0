"""The `tftpd` command: run and install the daemon, check and explain a configuration."""

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, redirect_stdout
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Any

from tftpd.config.errors import ConfigError, Problem, format_path
from tftpd.config.loader import build_schema, load_settings, load_settings_and_document
from tftpd.config.sections import ControlSection
from tftpd.config.settings import Settings
from tftpd.daemon.ctl import parse_duration, run_ctl
from tftpd.daemon.dhcp_config import SERVERS as DHCP_SERVERS
from tftpd.daemon.dhcp_config import dhcp_config
from tftpd.daemon.explain.text import run_explain
from tftpd.daemon.import_map import import_map
from tftpd.daemon.init_config import PURPOSES, init_config
from tftpd.daemon.install_units import install_units
from tftpd.daemon.logs import print_startup_error
from tftpd.daemon.online_check import ask_origins
from tftpd.daemon.service import CONFIG_VARIABLE, DEFAULT_CONFIG, EX_CONFIG, VERSION, default_config
from tftpd.protocol.errors import RequestRefused
from tftpd.templates.renderer import TemplateRenderer, find_problems

_EXIT_PROBLEM = 1  # of a template or an origin
_DIRECTIONS = ("read", "write")
_CONFIG_HELP = f"configuration file (default: ${CONFIG_VARIABLE} or {DEFAULT_CONFIG})"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line. It stores the subcommand's function in `run`."""
    top = argparse.ArgumentParser(prog="tftpd", description="TFTP server on Twisted.")
    help_text = "show the version and the data plane"
    top.add_argument("--version", action="version", version=VERSION, help=help_text)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="serve in the foreground, like `twistd -n tftp`")
    _add_config(run)
    run.set_defaults(run=_run)

    _add_init(commands)

    help_text = "report all problems of a configuration and its templates"
    check = commands.add_parser("check", help=help_text)
    _add_config(check)
    check.add_argument("--no-templates", action="store_true", help="do not check the templates")
    check.add_argument("--online", action="store_true", help="ask each origin once")
    check.set_defaults(run=_check)

    _add_explain(commands)

    translate = commands.add_parser(
        "import-map", help="translate a map file of tftp-hpa into rewrite rules"
    )
    translate.add_argument(
        "map", metavar="FILE", help="the --map-file of in.tftpd; - reads standard input"
    )
    translate.set_defaults(run=import_map)

    _add_ctl(commands)

    help_text = "print the lines of a DHCP server for the boot loaders in the directories"
    dhcp = commands.add_parser("dhcp-config", help=help_text)
    dhcp.add_argument("server", choices=DHCP_SERVERS, help="the program that reads the lines")
    _add_config(dhcp)
    help_text = "IPv4 address of this server (default: the first address of `listen`)"
    dhcp.add_argument("--address", type=_ipv4_address, metavar="ADDRESS", help=help_text)
    dhcp.set_defaults(run=dhcp_config)

    schema = commands.add_parser("schema", help="print the JSON Schema of the configuration")
    schema.set_defaults(run=_print_schema)

    install = commands.add_parser("install-units", help="install systemd units and a configuration")
    add = install.add_argument
    help_text = "install the units in DIR/lib/systemd/system (default: %(default)s)"
    add("--prefix", default="/usr/local", metavar="DIR", help=help_text)
    add("--root", default="/", metavar="DIR", help="install everything below DIR, for a package")
    add("--socket", action="store_true", help="let systemd bind the port (socket activation)")
    help_text = "also allow clients in these networks (IPAddressAllow=)"
    add("--networks", nargs="+", default=[], type=ip_network, metavar="NETWORK", help=help_text)
    add("--mac", action="store_true", help="allow the daemon to read MAC addresses (AF_NETLINK)")
    add("--dry-run", action="store_true", help="print what would be done")
    add("--force", action="store_true", help="overwrite an existing configuration")
    install.set_defaults(run=install_units)
    return top


def _add_config(command: argparse.ArgumentParser) -> None:
    """Add the configuration, as an operand and as an option."""
    command.add_argument(
        "config", nargs="?", default=argparse.SUPPRESS, metavar="FILE", help=_CONFIG_HELP
    )
    add = command.add_argument
    add("--config", "-c", default=default_config(), metavar="FILE", help=_CONFIG_HELP)


def _add_init(commands: Any) -> None:
    init = commands.add_parser("init", help="write a commented configuration")
    add = init.add_argument
    help_text = f"{', '.join(PURPOSES)} (asked for if it is missing)"
    add("purpose", nargs="?", choices=PURPOSES, metavar="PURPOSE", help=help_text)
    add("--root", metavar="DIR", help="directory of the files")
    help_text = "serve on this address only; may be repeated (default: all)"
    add("--address", action="append", type=_address, metavar="ADDRESS", help=help_text)
    add("--port", type=int, metavar="PORT", help="UDP port (default: 69)")
    help_text = "networks of the clients (default: all; for backups the private networks)"
    add("--clients", nargs="+", metavar="NETWORK", help=help_text)
    add("--http", action="store_true", help="serve the same files over HTTP, port 80")
    add("--no-status", action="store_true", help="without the status page on 127.0.0.1")
    add("--create", action="store_true", help="make the directory if it does not exist")
    help_text = f"{_CONFIG_HELP}; - is standard output"
    add("--output", "-o", default=default_config(), metavar="FILE", help=help_text)
    add("--force", action="store_true", help="replace an existing file")
    add("--yes", "-y", action="store_true", help="ask no questions")
    init.set_defaults(run=init_config)


def _add_ctl(commands: Any) -> None:
    help_text = "list and end transfers, set variables, reload or drain a daemon that runs"
    ctl = commands.add_parser("ctl", help=help_text)
    _add_ctl_options(ctl, ControlSection().socket, False)
    ctl.set_defaults(run=run_ctl)
    actions = ctl.add_subparsers(
        dest="action", required=True, metavar="ACTION", help="command for the daemon"
    )

    def add_action(name: str, about: str) -> argparse.ArgumentParser:
        action: argparse.ArgumentParser = actions.add_parser(name, help=about, description=about)
        _add_ctl_options(action, argparse.SUPPRESS, argparse.SUPPRESS)
        return action

    add_action("list", "list the running transfers")
    end = add_action("end", "end the transfers of a client")
    help_text = "address of a client, or address and port as list shows them"
    end.add_argument("client", metavar="CLIENT[:PORT]", help=help_text)
    set_ = add_action("set", "set template variables of one client")
    help_text = "MAC or IP address of a client"
    set_.add_argument("client", metavar="CLIENT", help=help_text)
    text = "value of a variable; lists, mappings and quoted text are JSON"
    set_.add_argument("values", nargs="+", metavar="NAME=VALUE", help=text)
    text = "end of the values: a time such as 90s, 30m, 12h or 7d from now"
    set_.add_argument("--expires", type=_duration, metavar="TIME", help=text)
    text = "end of the values: soon after the client has read a template"
    set_.add_argument("--once", action="store_true", help=text)
    unset = add_action("unset", "remove template variables of one client")
    unset.add_argument("client", metavar="CLIENT", help=help_text)
    text = "name of a variable (default: all)"
    unset.add_argument("names", nargs="*", metavar="NAME", help=text)
    add_action("variables", "list the template variables of single clients")
    add_action("reload", "reload the configuration")
    add_action("drain", "let running transfers finish, and stop the daemon")


def _add_ctl_options(parser: argparse.ArgumentParser, socket: str, json: Any) -> None:
    add = parser.add_argument
    add("--json", action="store_true", default=json, help="print one JSON object")
    help_text = "the socket of the daemon (default: %(default)s)"
    if socket == argparse.SUPPRESS:
        help_text = "the socket of the daemon"
    add("--socket", default=socket, metavar="PATH", help=help_text)


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_explain(commands: Any) -> None:
    explain = commands.add_parser(
        "explain",
        usage="tftpd explain [OPTION ...] --client ADDRESS [FILE] [read|write] NAME",
        help="explain how the daemon would answer a request",
        description="Explains how the daemon would answer a request, and why. Changes nothing. "
        "Exits with 0 if the request is granted and 1 if it is refused.",
    )
    add = explain.add_argument
    add("--config", "-c", metavar="FILE", help=_CONFIG_HELP)
    add("--client", required=True, type=_address, metavar="ADDRESS", help="the client's address")
    add("--to", type=_address, metavar="ADDRESS", help="the request's destination address")
    help_text = "the client's MAC address (default: from this host's neighbour table)"
    add("--mac", type=_mac, metavar="MAC", help=help_text)
    help_text = "the file that the client has read before, for the fallback sibling"
    add("--after", type=os.fsencode, default=b"", metavar="NAME", help=help_text)
    add("--mode", default="octet", help="octet (the default) or netascii")
    help_text = "an option of the request, such as blksize=1468; may be repeated"
    add("--option", action="append", default=[], type=_option, metavar="NAME=VALUE", help=help_text)
    add("--user", help="the user that the daemon runs as (twistd --uid); needs root")
    add("--json", action="store_true", help="print one JSON object")
    help_text = "the requested name, after the configuration file and read (the default) or write"
    add("words", nargs="+", metavar="NAME", help=help_text)
    explain.set_defaults(run=run_explain)


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an IP address, got {text!r}") from None


def _ipv4_address(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an IPv4 address, got {text!r}") from None


def _mac(text: str) -> bytes:
    if not re.fullmatch(r"[0-9a-f]{2}([:-][0-9a-f]{2}){5}", text, re.IGNORECASE):
        raise argparse.ArgumentTypeError(f"expected a MAC address, got {text!r}")
    return bytes.fromhex(text.replace("-", "").replace(":", ""))


def _option(text: str) -> tuple[bytes, bytes]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return os.fsencode(name), os.fsencode(value)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; `explain` takes its operands between options, too."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    if rest and (arguments.run is not run_explain or any(word[0] == "-" for word in rest if word)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if arguments.run is run_explain:
        *words, name = arguments.words + rest
        arguments.name = os.fsencode(name)
        arguments.direction = words.pop() if words and words[-1] in _DIRECTIONS else "read"
        arguments.config = arguments.config or (words.pop() if words else default_config())
        if words or ([name] == arguments.words and name in _DIRECTIONS):
            top.error("explain: expected [FILE] [read|write] NAME")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status.

    The status is 0 for success, 78 for a bad configuration and 2 for bad usage. It is 1 for other
    failures: a bad template, an origin that cannot be used, a refused request in `explain`, units
    that cannot be installed, a map that cannot be translated, or standard output that cannot be
    written.
    """
    arguments = _parse(argv)
    if arguments.run is _run:
        return int(arguments.run(arguments))
    output = io.StringIO()
    try:
        with redirect_stdout(output):
            status = int(arguments.run(arguments))
    except ConfigError as error:
        print_startup_error(str(error))
        return EX_CONFIG
    return status if _print_all(output.getvalue()) else 1


def _print_all(text: str) -> bool:
    """Print `text`; return False if that fails. A closed pipe is not reported."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print_startup_error(f"tftpd: standard output: {error.strerror}")
        return False
    return True


def _run(arguments: argparse.Namespace) -> int:
    from twisted.scripts.twistd import run

    sys.argv = ["twistd", "-n", "--pidfile=", "tftp", "--config", arguments.config]
    run()
    return 0


def _check(arguments: argparse.Namespace) -> int:
    settings = load_settings(Path(arguments.config))
    problems = [] if arguments.no_templates else list(_find_template_problems(settings))
    problems += _ask_origins(arguments.config, settings) if arguments.online else ()
    if problems:
        print_startup_error("\n".join(problems))
        return _EXIT_PROBLEM
    print(f"{arguments.config}: no problems")
    for index, listen in settings.expand_listen():
        family = "IPv6" if ":" in listen.address else "IPv4"
        protocol = "" if listen.protocol == "tftp" else f"{listen.protocol} "
        where = f"{listen.address} port {listen.port}"
        print(f"listen[{index}]: {where} receives {family} {protocol}requests")
    return 0


def _find_template_problems(settings: Settings) -> Iterator[str]:
    """Yield `FILE:LINE: problem` for each template that cannot be used."""
    mounts = [mount for mount in settings.build_mounts() if mount.read and mount.read.templates]
    roots = {root: mount for mount in mounts for root in mount.local_roots}
    if not roots:
        return
    with closing(TemplateRenderer(settings.limits.render_limits())) as renderer:
        try:
            renderer.start()
            for root, mount in roots.items():
                for path, line, text in find_problems(renderer, root, mount):
                    yield Problem(line, (), text).format(path)
        except (RequestRefused, OSError) as error:
            yield f"templates cannot be checked: {error}"


def _ask_origins(config: str, settings: Settings) -> Iterator[str]:
    """Print each origin that answers; yield `FILE:LINE: origins.NAME: reason` for the others."""
    _, document = load_settings_and_document(Path(config))
    for name, reason in ask_origins(settings):
        path = ("origins", name)
        if reason:
            yield Problem(document.line(path), path, reason).format(config)
        else:
            print(f"{format_path(path)}: {settings.origins[name].url} answers")


def _print_schema(arguments: argparse.Namespace) -> int:
    print(json.dumps(build_schema(), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
