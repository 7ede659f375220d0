"""The `tftpd` command: run and install the daemon, check and explain a configuration."""

import argparse
import json
import os
import pwd
import re
import sys
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import tftpd
from tftpd.config.errors import ConfigError, Problem
from tftpd.config.loader import build_schema, load_settings
from tftpd.config.settings import Settings
from tftpd.daemon.explain.text import run_explain
from tftpd.daemon.import_map import import_map
from tftpd.daemon.install_units import install_units
from tftpd.daemon.logs import print_startup_error
from tftpd.daemon.service import EX_CONFIG

_EXIT_BAD_TEMPLATE = 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line. It stores the subcommand's function in `run`."""
    top = argparse.ArgumentParser(prog="tftpd", description="TFTP server on Twisted.")
    version = f"tftpd {tftpd.__version__}"
    top.add_argument("--version", action="version", version=version, help="show the version")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="serve in the foreground, like `twistd -n tftp`")
    run.add_argument("--config", "-c", required=True, metavar="FILE", help="configuration file")
    run.set_defaults(run=_run)

    help_text = "report all problems of a configuration and its templates"
    check = commands.add_parser("check", help=help_text)
    check.add_argument("config", metavar="FILE", help="configuration file")
    check.add_argument("--no-templates", action="store_true", help="do not check the templates")
    check.set_defaults(run=_check)

    _add_explain(commands)

    translate = commands.add_parser(
        "import-map", help="translate a map file of tftp-hpa into rewrite rules"
    )
    translate.add_argument(
        "map", metavar="FILE", help="the --map-file of in.tftpd; - reads standard input"
    )
    translate.set_defaults(run=import_map)

    schema = commands.add_parser("schema", help="print the JSON Schema of the configuration")
    schema.set_defaults(run=_print_schema)

    install = commands.add_parser("install-units", help="install systemd units and a configuration")
    add = install.add_argument
    help_text = "install the units in DIR/lib/systemd/system (default: %(default)s)"
    add("--prefix", default="/usr/local", metavar="DIR", help=help_text)
    add("--root", default="/", metavar="DIR", help="install everything below DIR, for a package")
    add("--socket", action="store_true", help="let systemd bind the port (socket activation)")
    add("--dry-run", action="store_true", help="print what would be done")
    add("--force", action="store_true", help="overwrite an existing configuration")
    install.set_defaults(run=install_units)
    return top


def _add_explain(commands: Any) -> None:
    explain = commands.add_parser(
        "explain",
        help="explain how the daemon would answer a request",
        description="Explains how the daemon would answer a request, and why. Changes nothing. "
        "Exits with 0 if the request is granted and 1 if it is refused.",
    )
    add = explain.add_argument
    add("--config", "-c", required=True, metavar="FILE", help="configuration file")
    add("--client", required=True, type=_address, metavar="ADDRESS", help="the client's address")
    add("--to", type=_address, metavar="ADDRESS", help="the request's destination address")
    help_text = "the client's MAC address (default: from this host's neighbour table)"
    add("--mac", type=_mac, metavar="MAC", help=help_text)
    add("--mode", default="octet", help="octet (the default) or netascii")
    help_text = "an option of the request, such as blksize=1468; may be repeated"
    add("--option", action="append", default=[], type=_option, metavar="NAME=VALUE", help=help_text)
    add("--user", type=_user, help="the user that the daemon runs as (twistd --uid); needs root")
    add("--json", action="store_true", help="print one JSON object")
    add("direction", choices=("read", "write"), help="the kind of request")
    add("name", type=os.fsencode, metavar="NAME", help="the requested file name")
    explain.set_defaults(run=run_explain)


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an IP address, got {text!r}") from None


def _mac(text: str) -> bytes:
    if not re.fullmatch(r"[0-9a-f]{2}([:-][0-9a-f]{2}){5}", text, re.IGNORECASE):
        raise argparse.ArgumentTypeError(f"expected a MAC address, got {text!r}")
    return bytes.fromhex(text.replace("-", "").replace(":", ""))


def _option(text: str) -> tuple[bytes, bytes]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return os.fsencode(name), os.fsencode(value)


def _user(text: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(text)) if text.isdigit() else pwd.getpwnam(text)
    except (KeyError, OverflowError):
        raise argparse.ArgumentTypeError(f"unknown user {text!r}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status.

    The status is 0 for success, 78 for a bad configuration and 2 for bad usage. It is 1 if
    `check` finds a bad template, if `explain` finds that the request is refused, if units
    cannot be installed, or if a map cannot be translated.
    """
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except ConfigError as error:
        print_startup_error(str(error))
        return EX_CONFIG


def _run(arguments: argparse.Namespace) -> int:
    from twisted.scripts.twistd import run

    sys.argv = ["twistd", "-n", "--pidfile=", "tftp", "--config", arguments.config]
    run()
    return 0


def _check(arguments: argparse.Namespace) -> int:
    settings = load_settings(Path(arguments.config))
    problems = [] if arguments.no_templates else list(_find_template_problems(settings))
    if problems:
        print_startup_error("\n".join(problems))
        return _EXIT_BAD_TEMPLATE
    print(f"{arguments.config}: no problems")
    return 0


def _find_template_problems(settings: Settings) -> Iterator[str]:
    """Yield `FILE:LINE: problem` for each template that cannot be used."""
    mounts = [mount for mount in settings.build_mounts() if mount.read and mount.read.templates]
    roots = {root.path: mount for mount in mounts for root in mount.roots}
    if roots:
        from tftpd.templates.sandbox import find_problems

        for root, mount in roots.items():
            for path, line, text in find_problems(root, mount):
                yield Problem(line, (), text).format(path)


def _print_schema(arguments: argparse.Namespace) -> int:
    print(json.dumps(build_schema(), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
