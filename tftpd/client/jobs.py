"""Files that a command line names: one `TransferJob` for each. Does not import Twisted."""

from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path

from tftpd.client.errors import UsageError
from tftpd.client.urls import RemoteFile, is_url, parse_host, parse_url
from tftpd.protocol.negotiation import Mode

STDIO = "-"  # standard input or output


@dataclass(frozen=True, slots=True)
class TransferJob:
    """One file to transfer; `local` is None for standard input or output."""

    remote: RemoteFile
    local: Path | None


def parse_downloads(arguments: Namespace) -> list[TransferJob]:
    """Return the jobs of `get`; raise `UsageError` if the arguments do not fit together."""
    first, *names = arguments.what
    if is_url(first):
        remotes = [_check_name(parse_url(url, arguments.encoding)) for url in arguments.what]
    elif names:
        remotes = [remote_file(first, name, arguments.encoding) for name in names]
    else:
        raise UsageError('missing file: use "tftpc get URL" or "tftpc get HOST PATH"')
    output = arguments.output
    if len(remotes) > 1 and output not in (None, STDIO) and not Path(output).is_dir():
        raise UsageError(f'not a directory: "{output}"; several files need a directory')
    return [TransferJob(remote, destination(remote, output)) for remote in remotes]


def parse_uploads(arguments: Namespace) -> list[TransferJob]:
    """Return the jobs of `put`; raise `UsageError` if the arguments do not fit together."""
    *files, url = arguments.what
    if not files:
        raise UsageError('missing argument: use "tftpc put FILE URL"')
    base = parse_url(url, arguments.encoding)
    is_directory = base.name.endswith(b"/") or not base.name
    if not is_directory and len(files) > 1:
        raise UsageError(f'URL without a slash at its end: "{url}"; several files need one')
    jobs = []
    for file in files:
        remote = base
        if is_directory and file == STDIO:
            raise UsageError(f'missing file name in "{url}": standard input has no name')
        if is_directory:
            remote = replace(base, name=base.name + Path(file).name.encode(arguments.encoding))
        jobs.append(TransferJob(_check_name(remote), None if file == STDIO else Path(file)))
    return jobs


def parse_probe(arguments: Namespace) -> RemoteFile:
    """Return the file of `probe`; raise `UsageError` if the arguments do not fit together."""
    first, *names = arguments.what
    if is_url(first) and not names:
        remote = _check_name(parse_url(first, arguments.encoding))
    elif not is_url(first) and len(names) == 1:
        remote = remote_file(first, names[0], arguments.encoding)
    else:
        raise UsageError('probe needs one file: use "tftpc probe URL" or "tftpc probe HOST PATH"')
    if remote.mode is Mode.NETASCII:
        raise UsageError("probe does not support netascii: it reads in octet mode")
    return remote


def remote_file(host: str, name: str, encoding: str) -> RemoteFile:
    """Return the file `name` of a server.

    Args:
        host: `host[:port]`.
        name: Name of the file.
        encoding: Encoding of the name on the server.

    Raises:
        UsageError: The port or the name is invalid.
        UnicodeError: The encoding does not have a character of the name.
    """
    address, port = parse_host(host)
    return _check_name(RemoteFile(address, name.encode(encoding), port))


def destination(remote: RemoteFile, output: str | None) -> Path | None:
    """Return the local path of a download; None for standard output.

    Args:
        remote: The file on the server.
        output: Value of `-o`: a file, a directory or `-`. None: the last component of the
            remote name, in the current directory.

    Raises:
        UsageError: The remote name has no usable last component.
    """
    if output == STDIO:
        return None
    if output is not None and not Path(output).is_dir():
        return Path(output)
    last = remote.name.rpartition(b"/")[2]
    if last in (b"", b".", b".."):
        raise UsageError("the URL ends without a file name: give a local file with -o")
    return Path(output or ".", last.decode("utf-8", "surrogateescape"))


def _check_name(remote: RemoteFile) -> RemoteFile:
    if not remote.name or b"\0" in remote.name:
        raise UsageError("invalid file name: a name is not empty and contains no NUL character")
    return remote
