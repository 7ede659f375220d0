"""Files that a command line names: one `TransferJob` for each.

A file on a server is a host and a name, or a URL: `tftp://host[:port]/path[;mode=octet]`
(RFC 3617).
"""

import os
import re
from argparse import Namespace
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

from tftpd.client.arguments import parse_mode, parse_port
from tftpd.client.errors import LocalError, UsageError
from tftpd.client.globs import expand_url
from tftpd.net.packet_text import printable_text
from tftpd.protocol.negotiation import Mode

STDIO = "-"  # standard input or output
_HOST = (
    r"(?:\[(?P<literal>[0-9a-f:.]+(?:%(?:25)?[\w.-]+)?)\]|(?P<host>[^\[\]@:/]+))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_URL = re.compile(
    rf"tftp://{_HOST}/(?P<path>.*?)(?:;mode=(?P<mode>[^;/]*))?", re.IGNORECASE | re.DOTALL
)
_HOST_AND_PORT = re.compile(_HOST, re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on a server. `port` and `mode` are None if the user did not give them.

    Attributes:
        encoding: Encoding of the characters in the name.
    """

    host: str
    name: bytes
    port: int | None = None
    mode: Mode | None = None
    encoding: str = field(default="utf-8", compare=False)

    @property
    def text(self) -> str:
        """Name of the file for messages."""
        return printable_text(self.name, self.encoding)


@dataclass(frozen=True, slots=True)
class TransferJob:
    """One file to transfer; `local` is None for standard input or output."""

    remote: RemoteFile
    local: Path | None


def is_url(text: str) -> bool:
    """Return True if `text` begins with `tftp://`; otherwise it is a host or a local file.

    Raises:
        UsageError: It begins with another scheme.
    """
    scheme, separator, _ = text.partition("://")
    if separator and scheme.lower() != "tftp":
        raise UsageError(f'unsupported scheme in "{text}": use tftp://')
    return bool(separator)


def parse_url(url: str, encoding: str) -> RemoteFile:
    """Parse a TFTP URL.

    The file name begins after the slash that ends the host: `tftp://h//x` names `/x`.

    Args:
        url: The URL.
        encoding: Encoding of non-ASCII characters in the name. Percent-encoded bytes are
            taken as they are.

    Raises:
        UsageError: The URL has another form, or its port or mode is invalid.
        UnicodeError: The encoding does not have a character of the name.
    """
    match = _URL.fullmatch(url)
    if match is None:
        form = "tftp://host[:port]/path[;mode=octet|netascii]"
        raise UsageError(f'invalid URL "{url}": the form is {form}')
    mode = None if match["mode"] is None else parse_mode(match["mode"])
    host, port = _host_and_port(match)
    return RemoteFile(host, unquote_to_bytes(match["path"].encode(encoding)), port, mode, encoding)


def parse_downloads(arguments: Namespace) -> list[TransferJob]:
    """Return the jobs of `get`; raise `UsageError` if the arguments do not fit together."""
    remotes = _parse_remotes(arguments)
    if not remotes:
        raise UsageError('missing file: use "tftpc get URL" or "tftpc get HOST PATH"')
    output = arguments.output
    if len(remotes) > 1 and output not in (None, STDIO) and not Path(output).is_dir():
        raise UsageError(f'not a directory: "{output}"; several files need a directory')
    return [TransferJob(remote, destination(remote, output)) for remote in remotes]


def parse_uploads(arguments: Namespace) -> list[TransferJob]:
    """Return the jobs of `put`; raise `UsageError` if the arguments do not fit together."""
    *files, to = arguments.what
    if is_url(to):
        base = parse_url(to, arguments.encoding)
    elif len(files) > 1:
        base = remote_file(files.pop(), to, arguments.encoding)
    else:
        files.clear()
    if not files:
        raise UsageError('missing argument: use "tftpc put FILE URL" or "tftpc put FILE HOST PATH"')
    is_directory = base.name.endswith(b"/") or not base.name
    if not is_directory and len(files) > 1:
        raise UsageError(f'no slash at the end of "{to}": several files need one')
    jobs = []
    for file in files:
        if is_directory and file == STDIO:
            raise UsageError(f'missing file name in "{to}": standard input has no name')
        last = Path(file).name.encode(arguments.encoding) if is_directory else b""
        remote = _check_name(replace(base, name=base.name + last))
        jobs.append(TransferJob(remote, None if file == STDIO else Path(file)))
    return jobs


def parse_probe(arguments: Namespace) -> RemoteFile:
    """Return the file of `probe`; raise `UsageError` if the arguments do not fit together."""
    remotes = _parse_remotes(arguments)
    if len(remotes) != 1:
        raise UsageError('probe needs one file: use "tftpc probe URL" or "tftpc probe HOST PATH"')
    if remotes[0].mode is Mode.NETASCII:
        raise UsageError("probe does not support netascii: it reads in octet mode")
    return remotes[0]


def remote_file(host: str, name: str, encoding: str) -> RemoteFile:
    """Return the file `name` of a server.

    Args:
        host: `host[:port]`. An IPv6 address with a port must be in brackets. Text of any other
            form is taken as a host.
        name: Name of the file.
        encoding: Encoding of the name on the server.

    Raises:
        UsageError: The port or the name is invalid.
        UnicodeError: The encoding does not have a character of the name.
    """
    match = _HOST_AND_PORT.fullmatch(host)
    address, port = (host, None) if match is None else _host_and_port(match)
    return _check_name(RemoteFile(address, name.encode(encoding), port, None, encoding))


def destination(remote: RemoteFile, output: str | None) -> Path | None:
    """Return the local path of a download; None for standard output.

    Args:
        remote: The file on the server.
        output: Value of `-o`: a file, a directory or `-`. None: the last component of the
            remote name, in the current directory.

    Raises:
        UsageError: The remote name has no usable last component.
        LocalError: The output ends with a slash, but is not a directory.
    """
    if output == STDIO:
        return None
    if output is not None and not Path(output).is_dir():
        if output.endswith("/"):
            raise LocalError(f"{output}: No such directory")
        return Path(output)
    last = remote.name.rpartition(b"/")[2]
    with suppress(UnicodeError):
        last = last.decode(remote.encoding).encode()
    path = Path(output or ".", os.fsdecode(last))
    # A backslash or a drive is part of the name on POSIX systems, and of the path on Windows.
    if last in (b"", b".", b"..") or path.name != os.fsdecode(last):
        raise UsageError("the URL ends without a file name: give a local file with -o")
    return path


def _parse_remotes(arguments: Namespace) -> list[RemoteFile]:
    """Return the files of a command line: URLs, or a host and names."""
    first, *names = arguments.what
    if is_url(first):
        urls = arguments.what
        if arguments.has_globs:
            urls = [each for url in urls for each in expand_url(url)]
        return [_check_name(parse_url(url, arguments.encoding)) for url in urls]
    return [remote_file(first, name, arguments.encoding) for name in names]


def _check_name(remote: RemoteFile) -> RemoteFile:
    if not remote.name or b"\0" in remote.name:
        raise UsageError("invalid file name: a name is not empty and contains no NUL character")
    return remote


def _host_and_port(match: re.Match[str]) -> tuple[str, int | None]:
    host = match["host"] or match["literal"].replace("%25", "%")
    return host, None if match["port"] is None else parse_port(match["port"])
