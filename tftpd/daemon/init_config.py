"""`tftpd init`: write a commented configuration for a purpose, from options or questions."""

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tftpd.access.mounts import parse_root
from tftpd.access.placeholders import InvalidPlaceholder
from tftpd.config.errors import ConfigError, format_path
from tftpd.config.loader import load_settings

_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")
_PRIVATE_NETWORKS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10")


@dataclass(frozen=True)
class _Purpose:
    """A kind of server.

    Attributes:
        text: Description for people.
        root: Default directory of the files.
        has_http: Its clients may also read over HTTP.
        takes_uploads: Its clients store files.
        directory: The other keys of the entry of `directories`, with comments.
    """

    text: str
    root: str
    has_http: bool
    takes_uploads: bool
    directory: str


_PURPOSES = {
    "boot": _Purpose(
        "machines boot from it (PXE, UEFI, iPXE, U-Boot)",
        "/srv/tftp",
        True,
        False,
        """\
    read:
      templates: true          # NAME.j2 is rendered for each client that requests NAME
    symlinks: inside           # links may point anywhere below the root
    fallbacks: [drive, trailing, prefix, case]   # names as Windows and old firmware write them
""",
    ),
    "backups": _Purpose(
        "network devices store their configurations on it",
        "/srv/backups",
        False,
        True,
        """\
    read: false                # true: devices may read what they stored
    write:
      create: true
      overwrite: true          # false: an existing name gets ERROR 6
      keep: 10                 # versions of each file that is written again, in .versions
      max_size: 16MiB          # of one file
      quota: 10GiB             # of all files together
      min_free: 1GiB           # of the file system
      mode: 0640               # configurations contain passwords
""",
    ),
    "mirror": _Purpose(
        "it serves files that other programs put there, such as firmware",
        "/srv/mirror",
        True,
        False,
        """\
    read:
      world_readable: true     # only files that all users of this host may read
    symlinks: deny
""",
    ),
}
PURPOSES = tuple(_PURPOSES)


class _InitError(Exception):
    """The configuration is not written. The text is one line."""


def init_config(arguments: argparse.Namespace) -> int:
    """Write the configuration and print the next steps; return the exit status."""
    try:
        if sys.stdin is not None and sys.stdin.isatty() and not arguments.yes:
            _ask_missing(arguments)
        if arguments.purpose is None:
            raise _InitError(f"missing purpose: one of {', '.join(PURPOSES)}")
        return _write(arguments, _compose(arguments))
    except (_InitError, OSError, EOFError) as error:
        text = str(error) or "no answer"
        if isinstance(error, OSError):
            text = f"{error.filename}: {error.strerror}"
        print(f"tftpd: {text}", file=sys.stderr)
        return 1


def _ask_missing(arguments: argparse.Namespace) -> None:
    """Ask for each value that the command line does not have."""
    if arguments.purpose is None:
        lines = [f"  {name:8} {purpose.text}" for name, purpose in _PURPOSES.items()]
        print("Purposes of a server:", *lines, sep="\n", file=sys.stderr)
        arguments.purpose = _ask("Purpose", PURPOSES[0], PURPOSES)
    purpose = _PURPOSES[arguments.purpose]
    if arguments.root is None:
        arguments.root = _ask("Directory of the files", purpose.root)
    if not arguments.address:
        address = _ask("Address of this host to serve on", "all")
        arguments.address = [] if address == "all" else [address]
    if purpose.takes_uploads and arguments.clients is None:
        text = _ask("Networks of the devices", " ".join(_PRIVATE_NETWORKS))
        arguments.clients = text.replace(",", " ").split()
    if purpose.has_http and not arguments.http:
        arguments.http = _confirm("Serve the same files over HTTP, port 80", False)
    if not arguments.no_status:
        arguments.no_status = not _confirm("Status page on http://127.0.0.1:9169/", True)
    missing = _missing_directory(arguments.root)
    if missing and not arguments.create:
        arguments.create = _confirm(f"Make the directory {missing}", True)


def _ask(question: str, default: str, choices: Sequence[str] = ()) -> str:
    """Ask on standard error, because standard output may be a file.

    Raises:
        EOFError: The input has ended.
    """
    while True:
        print(f"{question} [{default}]: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        answer = line.strip() or default
        if not choices or answer in choices:
            return answer
        print(f"expected one of {', '.join(choices)}", file=sys.stderr)


def _confirm(question: str, default: bool) -> bool:
    words = {"y": True, "yes": True, "n": False, "no": False}
    return words[_ask(question, "y" if default else "n", tuple(words))]


def _missing_directory(root: str) -> str:
    """Return the part of a root that does not depend on clients, if it does not exist."""
    with suppress(InvalidPlaceholder):  # the check of the configuration reports it
        path = str(parse_root(os.path.abspath(root)).path)
        return "" if os.path.isdir(path) else path
    return ""


def _compose(arguments: argparse.Namespace) -> str:
    return "\n".join(
        [
            f"# Configuration of tftpd: {_PURPOSES[arguments.purpose].text}.",
            "# `tftpd check` reports its problems; a reload (SIGHUP) applies changes.",
            "# tftpd.yaml(5) describes all keys.",
            "",
            *_compose_listen(arguments),
            *_compose_directories(arguments),
            *([] if arguments.no_status else ["", "status: true   # http://127.0.0.1:9169/"]),
            "",
        ]
    )


def _compose_listen(arguments: argparse.Namespace) -> Iterator[str]:
    has_http = arguments.http and _PURPOSES[arguments.purpose].has_http
    addresses = arguments.address or ["0.0.0.0", "::"]
    if not arguments.address and not has_http and arguments.port is None:
        yield "# Port 69 on all addresses. For others:"
        yield "#listen:"
        yield "#  - {address: 192.0.2.1, port: 69}"
        yield ""
        return
    yield "listen:"
    for address in addresses:
        yield f"  - {{address: {_quote(address)}, port: {arguments.port or 69}}}"
    for address in addresses if has_http else ():
        yield f"  - {{address: {_quote(address)}, port: 80, protocol: http}}"
    yield ""


def _compose_directories(arguments: argparse.Namespace) -> Iterator[str]:
    purpose = _PURPOSES[arguments.purpose]
    yield "directories:"
    yield "  - path: /                    # prefix of the requested names"
    yield f"    root: {_quote(os.path.abspath(arguments.root or purpose.root))}"
    yield from purpose.directory.splitlines()
    clients = arguments.clients
    if clients is None and purpose.takes_uploads:
        clients = _PRIVATE_NETWORKS
    if clients:
        indent = "      " if purpose.takes_uploads else "    "
        yield f"{indent}clients: [{', '.join(map(_quote, clients))}]"


def _quote(text: str) -> str:
    """Return a scalar that is read as `text`: plain if that is safe, else as JSON writes it."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _write(arguments: argparse.Namespace, text: str) -> int:
    """Check the configuration, then give it its name."""
    root = arguments.root or _PURPOSES[arguments.purpose].root
    is_printed = arguments.output == "-"
    path = Path(arguments.output)
    if not is_printed and path.exists() and not arguments.force:
        raise _InitError(f"{path} exists; --force replaces it")
    if arguments.create and (missing := _missing_directory(root)):
        Path(missing).mkdir(parents=True)
    if not is_printed:
        path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".tftpd-init-", dir=None if is_printed else path.parent
    ) as directory:
        temporary = Path(directory) / "tftpd.yaml"
        temporary.write_text(text, encoding="utf-8")
        try:
            load_settings(temporary)
        except ConfigError as error:
            hint = "; --create makes it" if _missing_directory(root) else ""
            problems = (f"{format_path(each.path)}: {each.text}" for each in error.problems)
            raise _InitError("; ".join(problems) + hint) from None
        if is_printed:
            print(text, end="")
            return 0
        temporary.chmod(0o644)
        temporary.replace(path)
    print(f"{path} is written and has no problems.")
    print("\nNext:", f"    tftpd run {path}", sep="\n")
    if os.geteuid() == 0:
        print("or as a service:    tftpd install-units")
    return 0
