"""Python calls of one small request, from its RRQ to its first DATA."""

import socket
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from twisted.internet import reactor as twisted_reactor
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from bench.report import markdown_table
from bench.servers import HOST
from tests.support.daemons import CHECKOUT
from tftpd.config.loader import load_settings
from tftpd.net.sockets import bind_listeners
from tftpd.server.server import ProcessServer

_PACKAGE = f"{CHECKOUT / 'tftpd'}/"
_RRQ = b"\0\1small\0octet\0"
_FILE_BYTES = 300
_REPLY_SECONDS = 5.0
_PAUSE_SECONDS = 0.2  # until everything after the transfer is done
_SENDS = ("send", "sendto", "sendmsg")


class CallCounter:
    """Profile function that records the calls below `tftpd/` until the DATA is sent."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []  # file and function
        self.active = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Handle an event of `sys.setprofile`."""
        if not self.active:
            return
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(_PACKAGE):
            self.calls.append((file.removeprefix(_PACKAGE), frame.f_code.co_qualname))
        elif event == "c_call" and argument.__name__ in _SENDS and file.startswith(_PACKAGE):
            self.active = False


def count_calls() -> list[tuple[str, str]]:
    """Return file and function of each call for the second RRQ of a cached file.

    Raises:
        TimeoutError: The server did not reply.
    """
    reactor: Any = twisted_reactor
    counter = CallCounter()
    threading.setprofile(counter)  # for the threads that the server starts
    with tempfile.TemporaryDirectory() as work:
        Path(work, "small").write_bytes(bytes(_FILE_BYTES))
        directory = {"path": "/", "root": work, "read": True}
        config = Path(work, "tftpd.yaml")
        config.write_text(yaml.safe_dump({"directories": [directory]}))
        settings = load_settings(config)
        (sock,) = bind_listeners(HOST, 0)
        server = ProcessServer(reactor, lambda result: None)

        def start() -> None:
            server.serve(settings, [(sock, settings.listen[0])])
            sys.setprofile(counter)
            done = deferToThread(_read_twice, sock.getsockname(), counter)
            done.addBoth(results.append).addBoth(lambda _: reactor.stop())

        results: list[Any] = []
        reactor.callWhenRunning(start)
        reactor.run(installSignalHandlers=False)
        sys.setprofile(None)
        server.stop()
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return counter.calls


def _read_twice(server: Any, counter: CallCounter) -> None:
    for is_second in (False, True):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_REPLY_SECONDS)
            counter.active = is_second
            sock.sendto(_RRQ, server)
            _, session = sock.recvfrom(2048)
            sock.sendto(b"\0\4\0\1", session)
            time.sleep(_PAUSE_SECONDS)


def describe_calls(calls: list[tuple[str, str]]) -> str:
    """Return the number of calls, files and changes of file, and a table of the calls."""
    files = [file for file, _ in calls]
    changes = sum(before != after for before, after in pairwise(files))
    table = markdown_table(["file", "function"], [list(call) for call in calls])
    return f"{len(calls)} calls in {len(set(files))} files, {changes} changes of file\n\n{table}"
