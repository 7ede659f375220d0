"""What a command line asks for: one job for each file. No network, no Twisted."""

from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path

from tftpd.client.urls import Remote, is_url, parse, server
from tftpd.protocol.negotiation import Mode

STREAM = "-"  # standard input or output


class UsageError(Exception):
    """The command line makes no sense; the text says why."""


@dataclass(frozen=True, slots=True)
class TransferJob:
    """One file to transfer; `local` is None for standard input or output."""

    remote: Remote
    local: Path | None


def downloads(arguments: Namespace) -> list[TransferJob]:
    """The jobs of `get`; raises `Usage`."""
    first, *names = arguments.what
    if is_url(first):
        remotes = [_remote(url, arguments.encoding) for url in arguments.what]
    elif names:
        remotes = [remote_of(first, name, arguments.encoding) for name in names]
    else:
        raise UsageError("name a URL, or a host and a path")
    for remote in remotes:
        _check_name(remote)
    output = arguments.output
    if len(remotes) > 1 and output not in (None, STREAM) and not Path(output).is_dir():
        raise UsageError(f"several files need a directory, and {output} is none")
    return [TransferJob(remote, target(remote, output)) for remote in remotes]


def uploads(arguments: Namespace) -> list[TransferJob]:
    """The jobs of `put`; raises `Usage`."""
    *files, url = arguments.what
    remote = _remote(url, arguments.encoding)
    into = remote.name.endswith(b"/") or not remote.name
    if not files:
        raise UsageError("name a file, and a URL to send it to")
    if not into and len(files) > 1:
        raise UsageError(f"several files need a URL that ends with a slash, not {url}")
    jobs = []
    for file in files:
        name = remote.name
        if into and file == STREAM:
            raise UsageError("standard input needs a URL that ends with a name")
        if into:
            name += _encoded(Path(file).name, arguments.encoding)
        job = TransferJob(replace(remote, name=name), None if file == STREAM else Path(file))
        _check_name(job.remote)
        jobs.append(job)
    return jobs


def probed(arguments: Namespace) -> Remote:
    """The one file that `probe` asks for; raises `Usage`."""
    first, *names = arguments.what
    if is_url(first) and not names:
        remote = _remote(first, arguments.encoding)
        _check_name(remote)
    elif not is_url(first) and len(names) == 1:
        remote = remote_of(first, names[0], arguments.encoding)
    else:
        raise UsageError("name one URL, or a host and a path")
    if remote.mode is Mode.NETASCII:
        raise UsageError("a probe reads in octet mode")
    return remote


def remote_of(host: str, name: str, encoding: str) -> Remote:
    """The file `name` of `host[:port]`, in octets of `encoding`; raises `Usage`."""
    try:
        address, port = server(host)
    except ValueError as error:
        raise UsageError(str(error)) from None
    remote = Remote(address, _encoded(name, encoding), port)
    _check_name(remote)
    return remote


def target(remote: Remote, output: str | None) -> Path | None:
    """Where a download goes: under its own last name where no other is given.

    None is standard output. Raises `Usage`.
    """
    if output == STREAM:
        return None
    if output is not None and not Path(output).is_dir():
        return Path(output)
    last = remote.name.rpartition(b"/")[2]
    if last in (b"", b".", b".."):
        raise UsageError("the URL ends with no name: say with -o where it is to go")
    return Path(output or ".", last.decode("utf-8", "surrogateescape"))


def _remote(url: str, encoding: str) -> Remote:
    try:
        return parse(url, encoding)
    except (ValueError, LookupError) as error:
        raise UsageError(str(error)) from error


def _encoded(name: str, encoding: str) -> bytes:
    try:
        return name.encode(encoding)
    except (UnicodeError, LookupError) as error:
        raise UsageError(str(error)) from error


def _check_name(remote: Remote) -> None:
    if not remote.name or b"\0" in remote.name:
        raise UsageError("the name of a file is not empty and has no NUL")
