"""Servers that a program embeds: in a thread, under asyncio, on its reactor."""

import asyncio
import io
import logging
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

import tftpd.client
import tftpd.server
from tests.support.daemons import CHECKOUT, until
from tests.support.programs import needs_linux, program
from tftpd.client import ClientSettings, NotFound, ServerError, TransferError, aio, get, put
from tftpd.protocol.result import Outcome
from tftpd.server import Chain, Directory, Handler, Memory, Server, Stream
from tftpd.server.embedded import _run_in_loop

HOST = "127.0.0.1"
CONTENT = random.Random(8).randbytes(300_000)
LIMIT = 60  # seconds for one program


def _get(server, name, **settings):
    got = io.BytesIO()
    get(HOST, name, got, port=server.port, settings=ClientSettings(**settings))
    return got.getvalue()


def _run(code, *arguments, cwd=None):
    """Run a program without output on stderr; return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=cwd, capture_output=True, timeout=LIMIT, text=True,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_public_name_can_be_imported():
    for name in tftpd.server.__all__:
        assert getattr(tftpd.server, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Listener'"):
        _ = tftpd.server.Listener


def test_the_client_and_the_server_have_the_same_exceptions():
    names = {name for name in tftpd.server.__all__ if name in tftpd.client.__all__}
    assert {"NotFound", "AccessDenied", "AlreadyExists", "DiskFull", "ServerError"} < names
    for name in names:
        assert getattr(tftpd.server, name) is getattr(tftpd.client, name)


@pytest.mark.parametrize("mode", ["per-session", "single-port"])
@pytest.mark.parametrize("windowsize", [1, 16])
def test_a_server_in_a_thread(mode, windowsize):
    results = []
    files = {"bytes": CONTENT}

    def handle(request):
        return Stream(CONTENT[n : n + 7000] for n in range(0, 300_000, 7000))

    chain = Chain(Memory(files, write=True), handle)
    with Server(chain, mode=mode, report=results.append) as server:
        assert server.address == (HOST, server.port)
        assert _get(server, "bytes", windowsize=windowsize) == CONTENT
        assert _get(server, "stream", windowsize=windowsize) == CONTENT
        put(HOST, "new", CONTENT, port=server.port, settings=ClientSettings(windowsize=windowsize))
        assert _get(server, "new") == CONTENT
    assert [result.outcome for result in results] == [Outcome.DONE] * 4
    with pytest.raises(RuntimeError, match="does not run"):
        _ = server.port


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
def test_a_server_for_an_address(host):
    with Server(Memory({"f": b"1"}), host=host) as server:
        got = io.BytesIO()
        get("::1" if ":" in host else HOST, "f", got, port=server.port)
        assert (got.getvalue(), server.address[0]) == (b"1", host)


def test_a_directory_alone_needs_no_thread_for_a_lookup(tmp_path):
    (tmp_path / "f").write_bytes(CONTENT)
    with Server(Directory(tmp_path, write=True)) as server:
        for _ in range(2):  # the first one finds out that the file system is local
            assert _get(server, "f") == CONTENT
        put(HOST, "new", CONTENT, port=server.port)
        with pytest.raises(NotFound):
            _get(server, "none")
    assert (tmp_path / "new").read_bytes() == CONTENT


@needs_linux
def test_many_servers_one_after_the_other_leave_nothing_behind():
    def use():
        with Server(Memory({"f": b"1"})) as server:
            assert _get(server, "f") == b"1"

    def count():
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    for _ in range(5):
        use()
    before = count()
    for _ in range(100):
        use()
    deadline = time.monotonic() + 10
    while any(now > then for now, then in zip(count(), before, strict=True)):
        assert time.monotonic() < deadline, (before, count(), threading.enumerate())
        time.sleep(0.05)


def test_two_servers_at_once_and_one_twice():
    one, two = Server(Memory({"f": b"1"})), Server(Memory({"f": b"2"}))
    with one, two:
        assert (_get(one, "f"), _get(two, "f")) == (b"1", b"2")
        with pytest.raises(RuntimeError, match="runs already"):
            one.start()
        with pytest.raises(OSError, match="in use"):
            Server(Memory(), port=one.port).start()
        assert _get(one, "f") == b"1"
    with one:
        assert _get(one, "f") == b"1"
    one.stop()  # nothing happens


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blksize": 7}, "blksize: .*8"),
        ({"sessions": 0}, "sessions: "),
        ({"host": "localhost"}, "address: "),
        ({"port": 70000}, "port: "),
        ({"mode": "both"}, "mode: "),
        ({"idle_timeout": 0.01}, "min_interval"),
    ],
)
def test_an_invalid_option_is_a_value_error(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        Server(Memory(), **options)
    assert "pydantic" not in str(caught.value)


def test_an_unknown_option_is_a_type_error():
    with pytest.raises(TypeError, match="unknown option: blocksize"):
        Server(Memory(), blocksize=512)


def test_limits_apply():
    with Server(Memory({"f": CONTENT}), blksize=600, windowsize=2) as server:
        got = io.BytesIO()
        result = get(HOST, "f", got, port=server.port)
        assert (result.blksize, result.windowsize, got.getvalue()) == (600, 2, CONTENT)


def test_a_mistake_of_a_handler_is_in_the_log_once(caplog):
    caplog.set_level(logging.DEBUG, "tftpd")
    settings = ClientSettings(has_options=False)  # else the client would try again without
    with Server(lambda request: 1 // 0) as server, pytest.raises(ServerError, match="Internal"):
        get(HOST, "f", io.BytesIO(), port=server.port, settings=settings)
    (record,) = caplog.records
    assert record.getMessage() == 'the handler failed in read of "f"'
    assert record.exc_info[0] is ZeroDivisionError


def test_a_mistake_of_report_is_in_the_log(caplog):
    with Server(Memory({"f": b"1"}), report=lambda result: 1 // 0) as server:
        assert _get(server, "f") == b"1"
    assert [record.getMessage() for record in caplog.records] == ["the function `report` failed"]


def test_a_handler_that_hangs_delays_neither_others_nor_the_stop():
    may_end, hung = threading.Event(), threading.Event()

    def handle(request):
        if request.name == "hang":
            hung.set()
            may_end.wait(LIMIT)
        return b"1"

    impatient = ClientSettings(idle_timeout=0.3)
    try:
        with Server(handle) as server, Server(Memory({"f": b"2"})) as other:
            with pytest.raises(TransferError):
                get(HOST, "hang", io.BytesIO(), port=server.port, settings=impatient)
            assert hung.is_set()
            assert (_get(server, "f"), _get(other, "f")) == (b"1", b"2")
            start = time.monotonic()
        assert time.monotonic() - start < 5
    finally:
        may_end.set()


def test_a_running_transfer_gets_an_error_at_the_stop():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(LIMIT)
        results = []
        with Server(Memory({"f": CONTENT}), drain_timeout=0.1, report=results.append) as server:
            client.sendto(b"\0\1f\0octet\0", (HOST, server.port))
            client.recv(600)
        assert client.recv(600) == b"\0\5\0\0Server is stopping\0"
        assert results[0].outcome is Outcome.STOPPED


@pytest.mark.parametrize("mode", ["per-session", "single-port"])
def test_the_stop_waits_for_transfer_ended_and_frees_the_port(mode):
    class Slow(Memory):
        ended = ()

        def transfer_ended(self, request, result):
            time.sleep(0.1)
            self.ended = (*self.ended, result.outcome)

    port = 0
    for _ in range(3):
        server = Server(Slow(write=True), mode=mode, port=port)
        with server:
            put(HOST, "f", CONTENT, port=server.port)
            port = server.port
        assert server.handler.ended == (Outcome.DONE,)


def test_the_stop_waits_for_the_last_ack_and_its_result():
    results, ended = [], []

    class Slow(Memory):
        def transfer_ended(self, request, result):
            time.sleep(0.1)
            ended.append(result.outcome)

    server = Server(Slow({"f": b"1"}), report=results.append, drain_timeout=LIMIT)
    server.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(LIMIT)
        client.sendto(b"\0\1f\0octet\0", (HOST, server.port))
        datagram, tid = client.recvfrom(600)
        assert datagram == b"\0\3\0\0011"
        stop = threading.Thread(target=server.stop)
        stop.start()
        until(lambda: server._embedding.address is None)
        client.sendto(b"\0\4\0\1", tid)
        stop.join(LIMIT)
    assert [result.outcome for result in results] == ended == [Outcome.DONE]


def test_the_stop_does_not_wait_long_for_transfer_ended():
    may_end = threading.Event()

    class Hanging(Memory):
        def transfer_ended(self, request, result):
            may_end.wait(LIMIT)

    try:
        with Server(Hanging({"f": b"1"}), drain_timeout=0.1) as server:
            assert _get(server, "f") == b"1"
            start = time.monotonic()
        assert time.monotonic() - start < 5
    finally:
        may_end.set()


def test_report_cannot_stop_the_server(caplog):
    with Server(Memory({"f": b"1"}), report=lambda result: server.stop()) as server:
        assert _get(server, "f") == b"1"
        until(lambda: caplog.records)
    (record,) = caplog.records
    assert isinstance(record.exc_info[1], RuntimeError)
    with pytest.raises(RuntimeError, match="does not run"):
        _ = server.port


def test_a_task_that_is_cancelled_stops_its_server(caplog):
    async def use(servers):
        async with Server(Memory({"f": b"1"})) as server:
            servers.append(server)
            await asyncio.sleep(LIMIT)

    async def cancel():
        servers = []
        task = asyncio.create_task(use(servers))
        while not servers:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()  # also while it stops
        with pytest.raises(asyncio.CancelledError):
            await task
        return servers[0]

    server = asyncio.run(cancel())
    until(lambda: server._embedding.address is None)
    assert caplog.records == []


def test_a_coroutine_ends_with_its_event_loop():
    async def never():
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()  # it does not run
    errors = []

    def run():
        with pytest.raises(RuntimeError, match="closed") as caught:
            _run_in_loop(loop, never())
        errors.append(caught)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.1)
    loop.close()
    thread.join(LIMIT)
    assert len(errors) == 1


def test_a_handler_may_pass_on_errors_of_another_server():
    with Server(Memory({"f": b"1"})) as origin:

        def forward(request):
            got = io.BytesIO()
            get(HOST, request.filename, got, port=origin.port)
            return got.getvalue()

        with Server(forward) as server:
            assert _get(server, "f") == b"1"
            with pytest.raises(NotFound):
                _get(server, "none")


FORK = """
import io, os
from tftpd.client import get
from tftpd.server import Memory, Server

def read(server):
    got = io.BytesIO()
    get("127.0.0.1", "f", got, port=server.port)
    return got.getvalue()

with Server(Memory({"f": b"parent"})) as server:
    assert read(server) == b"parent"
    pid = os.fork()
    if pid == 0:
        with Server(Memory({"f": b"child"})) as own:
            assert read(own) == b"child"
        server.stop()  # that of the parent goes on
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert read(server) == b"parent"
print("complete")
"""


@pytest.mark.check
def test_a_server_after_a_fork():
    assert _run(FORK) == "complete\n"


@pytest.mark.check
def test_a_program_ends_although_its_server_and_its_handler_run():
    code = """
import io, threading, time
from tftpd.client import ClientSettings, get
from tftpd.server import Server

server = Server(lambda request: time.sleep(1000))
server.start()
threading.Thread(
    target=get, args=("127.0.0.1", "f", io.BytesIO()), kwargs={"port": server.port}, daemon=True
).start()
time.sleep(0.3)
print("complete")
"""
    assert _run(code) == "complete\n"


@pytest.mark.check
def test_the_global_reactor_stays_free_for_the_program():
    code = """
import io, sys
from tftpd.client import get, put
from tftpd.server import Memory, Server

with Server(Memory({"f": b"1"})) as server:
    get("127.0.0.1", "f", io.BytesIO(), port=server.port)
    with Server(Memory(write=True)) as other:
        put("127.0.0.1", "f", b"1", port=other.port)
    assert "twisted.internet.reactor" not in sys.modules
    from twisted.internet import selectreactor
    selectreactor.install()
    from twisted.internet import reactor
    from twisted.internet.threads import deferToThread
    from twisted.python.threadable import isInIOThread

    def read():
        get("127.0.0.1", "f", io.BytesIO(), port=server.port)
        assert not isInIOThread()

    def end(result):
        assert isInIOThread() and result is None, result
        print("complete")
        reactor.stop()

    reactor.callWhenRunning(lambda: deferToThread(read).addBoth(end))
    reactor.run()
"""
    assert _run(code) == "complete\n"


@pytest.mark.check
def test_a_service_on_the_reactor_of_a_program():
    code = """
import io
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater, react
from tftpd.client.twisted import get, put
from tftpd.server import Handler, Memory, ServerService

class Store(Memory):
    async def read(self, request):
        await deferLater(reactor, 0.05)
        return super().read(request)

async def main(used):
    global reactor
    reactor = used
    reactor.suggestThreadPoolSize(23)
    service = ServerService(reactor, Store(write=True))
    assert service.address is None
    service.privilegedStartService()
    service.startService()
    await put("127.0.0.1", "f", b"1", port=service.address[1])
    got = io.BytesIO()
    await get("127.0.0.1", "f", got, port=service.address[1])
    assert got.getvalue() == b"1"
    await service.stopService()
    assert service.address is None
    assert reactor.getThreadPool().max == 23
    print("complete")

react(lambda reactor: ensureDeferred(main(reactor)))
"""
    assert _run(code) == "complete\n"


class Store(Handler):
    """Handler with coroutine functions."""

    def __init__(self):
        self.ended = []

    async def read(self, request):
        await asyncio.sleep(0.01)
        if request.name == "none":
            raise NotFound
        return b"1"

    async def write(self, request):
        return self.take

    async def take(self, data):
        await asyncio.sleep(0.01)
        self.data = data

    async def transfer_ended(self, request, result):
        self.ended.append((request.name, result.outcome))


def test_coroutines_of_a_handler_run_in_the_event_loop():
    store = Store()

    async def use():
        async with Server(store) as server:
            got = io.BytesIO()
            await aio.get(HOST, "f", got, port=server.port)
            assert got.getvalue() == b"1"
            await aio.put(HOST, "f", b"2", port=server.port)
            assert store.data == b"2"
            assert not await aio.exists(HOST, "none", port=server.port)

    asyncio.run(asyncio.wait_for(use(), LIMIT))
    assert store.ended == [("f", Outcome.DONE)] * 2


@pytest.mark.check
def test_the_daemon_does_not_import_it():
    code = """
import sys
import tftpd.daemon.service, tftpd.server.server
names = {f"tftpd.server.{name}" for name in ("embedded", "handlers", "reactor_thread")}
print(*names & {*sys.modules, "tftpd.storage.streams"})
"""
    assert _run(code) == "\n"


GUIDE = CHECKOUT / "docs" / "how-to" / "embed.md"
_EXAMPLE = re.compile(r"^## (.*?)\n(?:(?!^## ).)*?```python\n(.*?)```", re.DOTALL | re.MULTILINE)
EXAMPLES = dict(_EXAMPLE.findall(GUIDE.read_text()))


@pytest.mark.parametrize(
    "title",
    [
        pytest.param(title, marks=pytest.mark.check) if title in ("pytest", "Twisted") else title
        for title in EXAMPLES
    ],
)
def test_an_example_of_the_guide_runs(title, tmp_path, monkeypatch):
    code = EXAMPLES[title].replace("/srv/tftp", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    if title == "pytest":
        (tmp_path / "test_example.py").write_text(code)
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        code = "import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider']))"
        assert "1 passed" in _run(code, cwd=tmp_path)
    elif title == "Twisted":  # its reactor runs once
        assert _run(code, cwd=tmp_path) == ""
    else:
        exec(compile(code, title, "exec"), {"__name__": "__main__"})


def test_each_python_block_of_the_guide_is_an_example():
    assert len(EXAMPLES) == GUIDE.read_text().count("```python") == 9


CLIENTS = {
    "curl": (
        ["curl", "-sS", "-o", "{local}", "tftp://127.0.0.1:{port}/{name}"],
        ["curl", "-sS", "-T", "{local}", "tftp://127.0.0.1:{port}/{name}"],
    ),
    "tftp": tuple(
        ["tftp", "-m", "binary", "127.0.0.1", "{port}", "-c", command, *names]
        for command, *names in (("get", "{name}", "{local}"), ("put", "{local}", "{name}"))
    ),
    "atftp": tuple(
        ["atftp", option, "-l", "{local}", "-r", "{name}", "127.0.0.1", "{port}"]
        for option in ("--get", "--put")
    ),
    "busybox": tuple(
        ["busybox", "tftp", option, "-l", "{local}", "-r", "{name}", "127.0.0.1", "{port}"]
        for option in ("-g", "-p")
    ),
}


@pytest.mark.check
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_of_another_project(client, tmp_path):
    read, write = CLIENTS[client]
    files = Memory({"bytes": CONTENT, "empty": b""}, write=True)

    def handle(request):
        return iter([CONTENT[:1000], CONTENT[1000:]])

    def run(words, name, local):
        places = {"port": server.port, "name": name, "local": local}
        subprocess.run([word.format(**places) for word in words], check=True, timeout=LIMIT)

    program(read[0])
    with Server(Chain(files, handle)) as server:
        for name, content in (("bytes", CONTENT), ("stream", CONTENT), ("empty", b"")):
            if (client, name) != ("busybox", "empty"):  # it leaves no file
                run(read, name, tmp_path / name)
                assert (tmp_path / name).read_bytes() == content
        run(write, "new", tmp_path / "bytes")
    assert files.files["new"] == CONTENT
