"""Handlers of a program, as packet traces."""

import io
from pathlib import Path

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.logger import globalLogPublisher

from tests.support.fakes import MemoryServer
from tftpd.access.mounts import Mounts
from tftpd.protocol.errors import (
    AccessDenied,
    AlreadyExists,
    DiskFull,
    NotFound,
    Refusal,
    ServerError,
)
from tftpd.protocol.negotiation import Direction, Mode, OptionLimits
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.admission import AdmissionLimits
from tftpd.server.config import ServerConfig
from tftpd.server.handlers import (
    Chain,
    Directory,
    Handler,
    HandlerResolver,
    Memory,
    Stream,
    to_handler,
)
from tftpd.server.memory import MemoryBudget

TSIZE = ((b"tsize", b"0"),)
WINDOW_OF_4 = ((b"windowsize", b"4"),)


@pytest.fixture
def serve():
    """Returns a server for a handler; it must have released everything two minutes after."""
    servers = []

    def build(handler, **options):
        def make_config(report):
            resolver = HandlerResolver(
                to_handler(handler), maybeDeferred, MemoryBudget(), **options
            )
            limits = OptionLimits(), RetransmitPolicy(), AdmissionLimits()
            return ServerConfig(Mounts([]), *limits, report, handler=resolver)

        servers.append(MemoryServer(make_config))
        return servers[-1]

    yield build
    for server in servers:
        server.net.run_threads()
        server.advance(120)
        assert server.idle


@pytest.fixture
def log():
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def _read(server, request):
    """Return the content and the options that the client gets."""
    client = server.client()
    answers, options, content = client.request(request), (), b""
    if isinstance(answers[0], Oack):
        options = answers[0].options
        answers = client.send(Ack(0))
    while True:
        content += b"".join(answer.payload for answer in answers)
        last = answers[-1]
        answers = client.send(Ack(last.block))
        if len(last.payload) < 512:
            assert answers == []
            return content, dict(options)


CONTENT = bytes(range(256)) * 5


def _written(path):
    path.write_bytes(CONTENT)
    return path


CONTENTS = {
    "bytes": (lambda path: CONTENT, True),
    "bytearray": (lambda path: bytearray(CONTENT), True),
    "path": (lambda path: _written(path / "f"), True),
    "file": (lambda path: _written(path / "f").open("rb"), True),
    "BytesIO": (lambda path: io.BytesIO(CONTENT), True),
    "sized stream": (lambda path: Stream([CONTENT[:100], b"", CONTENT[100:]], 1280), True),
    "stream": (lambda path: Stream(CONTENT[n : n + 7] for n in range(0, 1280, 7)), False),
    "iterator": (lambda path: iter([CONTENT[:512], CONTENT[512:]]), False),
    "list": (lambda path: [CONTENT], False),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_function_returns_the_content(kind, serve, tmp_path):
    make, has_size = CONTENTS[kind]
    server = serve(lambda request: make(tmp_path))
    content, options = _read(server, Rrq(b"f", b"octet", TSIZE))
    assert content == CONTENT
    assert options == ({b"tsize": b"1280"} if has_size else {})
    (report,) = server.reports
    assert (report.outcome, report.size) == (Outcome.DONE, 1280)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024, 5000])
@pytest.mark.parametrize("mode", [b"octet", b"netascii"])
def test_a_stream_of_any_size_ends_with_a_short_block(size, mode, serve):
    server = serve(lambda request: iter([b"x" * size]))
    content, options = _read(server, Rrq(b"f", mode, WINDOW_OF_4))
    assert content == b"x" * size
    assert options == {b"windowsize": b"4"}


def test_a_stream_is_read_once_and_a_window_ahead(serve):
    made = []

    def make():
        for number in range(1000):
            made.append(number)
            yield b"%d" % (number % 10) * 512

    server = serve(lambda request: make())
    client = server.client()
    client.request(Rrq(b"f", b"octet", WINDOW_OF_4))
    window = client.send(Ack(0))
    assert [data.block for data in window] == [1, 2, 3, 4]
    assert len(made) <= 12
    assert client.advance(2.0)[:4] == window  # it is sent again
    assert client.send(Ack(2))[:2] == window[2:]
    assert made == list(range(len(made)))
    assert len(made) <= 12


def test_a_stream_is_closed_when_the_client_stops(serve):
    closed = []

    def make():
        try:
            while True:
                yield b"x" * 512
        finally:
            closed.append(True)

    server = serve(lambda request: make())
    client = server.client()
    client.request(Rrq(b"f", b"octet"))
    client.send(ErrorPacket(0, "enough"))
    assert closed == [True]


def test_a_file_is_read_from_its_position_and_closed(serve):
    file = io.BytesIO(b"0123456789")
    file.seek(4)
    server = serve(lambda request: file)
    assert _read(server, Rrq(b"f", b"octet", TSIZE)) == (b"456789", {b"tsize": b"6"})
    assert file.closed


@pytest.mark.parametrize("chunks", [[b"12345"], [b"1234567890", b"1"], [b"12345678901"]])
def test_a_stream_with_another_size_than_announced_is_an_error(chunks, serve):
    server = serve(lambda request: Stream(chunks, 10))
    assert server.client().request(Rrq(b"f", b"octet")) == [
        ErrorPacket(0, "File changed while it was being sent")
    ]
    (report,) = server.reports
    assert "instead of 10" in report.detail


def test_bytes_are_shared_by_all_sessions_and_count_as_memory(serve):
    content = b"x" * 5000
    server = serve(lambda request: content)
    memory = server.listener.config.handler._environment.share.__self__
    clients = [server.client(port=port) for port in (2070, 2071)]
    for client in clients:
        client.request(Rrq(b"f", b"octet"))
    assert memory.rendered == 5000
    for client in clients:
        client.send(ErrorPacket(0, ""))
    server.advance(120)
    assert memory.rendered == 0


ERRORS = {
    NotFound("secret"): ErrorPacket(1, "File not found"),
    AccessDenied("secret"): ErrorPacket(2, "Access violation"),
    DiskFull("secret"): ErrorPacket(3, "Disk full or allocation exceeded"),
    AlreadyExists("secret"): ErrorPacket(6, "File already exists"),
    Refusal("secret"): ErrorPacket(2, "Access violation"),
    ServerError("the database is down"): ErrorPacket(0, "the database is down"),
    ServerError(): ErrorPacket(0, "Internal error"),
    FileNotFoundError(2, "No such file", "/secret"): ErrorPacket(1, "File not found"),
    PermissionError(13, "Permission denied", "/secret"): ErrorPacket(2, "Access violation"),
    FileExistsError(17, "File exists", "/secret"): ErrorPacket(6, "File already exists"),
}


@pytest.mark.parametrize("direction", [Rrq, Wrq])
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_exception_becomes_an_error_without_its_text(error, direction, serve, log):
    class Refusing(Handler):
        def read(self, request):
            raise error

        write = read

    server = serve(Refusing())
    assert server.client().request(direction(b"f", b"octet")) == [ERRORS[error]]
    assert log == []
    (report,) = server.reports
    assert report.outcome is Outcome.REFUSED


MISTAKES = {
    "an exception": lambda request: 1 // 0,
    "an unknown OSError": lambda request: (_ for _ in ()).throw(ConnectionRefusedError(111, "no")),
    "a str": lambda request: "content",
    "None": lambda request: None,
    "a stream of str": lambda request: iter(["content"]),
    "a coroutine function": lambda request: _coroutine(),
}


async def _coroutine():
    return b""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_logged_once_and_the_server_goes_on(mistake, serve, log):
    server = serve(lambda request: b"ok" if request.name == "good" else MISTAKES[mistake](request))
    assert server.client().request(Rrq(b"f", b"octet")) == [ErrorPacket(0, "Internal error")]
    (event,) = log
    assert (event["event"], event["file"]) == ("handler_failed", "f")
    assert event["log_failure"] is not None
    assert server.client(port=2071).request(Rrq(b"good", b"octet")) == [Data(1, b"ok")]
    server.client(port=2071).send(ErrorPacket(0, ""))


def test_a_handler_gets_the_request(serve):
    requests = []

    class Recorder(Handler):
        def read(self, request):
            requests.append(request)
            raise NotFound

        write = read

    server = serve(Recorder())
    options = ((b"TSIZE", b"77"), (b"odd", b"\xff"))
    server.client().request(Rrq(b"\\boot//./x\\..\\\xfcber", b"Octet", options))
    server.client().request(Wrq(b"log", b"netascii", options))
    server.client().request(Wrq(b"log", b"octet", options))
    read, text, write = requests
    assert read.name == "boot/\udcfcber"
    assert read.filename == b"\\boot//./x\\..\\\xfcber"
    assert (str(read.client), read.port, read.server) == ("192.0.2.7", 2070, "127.0.0.1")
    assert (read.direction, read.mode, read.size) == (Direction.READ, Mode.OCTET, None)
    assert read.options == {"tsize": "77", "odd": "\\xff"}
    assert (text.direction, text.mode, text.size) == (Direction.WRITE, Mode.NETASCII, None)
    assert (write.name, write.size) == ("log", 77)


@pytest.mark.parametrize("name", [b"../x", b"a/../../x", b"..", b".tftpd-upload-1"])
def test_a_name_that_leaves_its_directory_is_refused_before_the_handler(name, serve):
    server = serve(lambda request: pytest.fail("the handler was called"))
    for request in (Rrq(name, b"octet"), Wrq(name, b"octet")):
        assert server.client().request(request) == [ErrorPacket(2, "Access violation")]


def test_a_repeated_request_waits_for_a_handler_that_blocks(serve):
    calls = []
    server = serve(lambda request: calls.append(request) or b"late")
    server.net.hold_threads = True
    client = server.client()
    assert client.request(Rrq(b"f", b"octet")) == []
    assert client.request(Rrq(b"f", b"octet")) == []
    server.net.run_threads()
    assert client.receive() == [Data(1, b"late")]
    assert len(calls) == 1
    client.send(Ack(1))


def test_a_path_that_does_not_exist_is_not_found(serve, tmp_path):
    server = serve(lambda request: tmp_path / request.name)
    for name, code in ((b"none", 1), (b"", 2)):
        (answer,) = server.client().request(Rrq(name, b"octet"))
        assert answer.code == code


class Receiver(Handler):
    """Takes uploads to one destination, and notes the ends of transfers."""

    def __init__(self, destination):
        self.destination = destination
        self.ended = []

    def read(self, request):
        return b"content"

    def write(self, request):
        return self.destination

    def transfer_ended(self, request, result):
        self.ended.append((request.name, result.outcome))


def _upload(server, *payloads, options=(), mode=b"octet"):
    """Upload blocks; return the last answer."""
    client = server.client()
    answers = client.request(Wrq(b"f", mode, options))
    for block, payload in enumerate(payloads, start=1):
        if isinstance(answers[-1], ErrorPacket):
            break
        answers = client.send(Data(block, payload))
    return answers[-1]


def test_an_upload_to_a_path_replaces_it_when_it_is_complete(serve, tmp_path):
    path = tmp_path / "new"
    path.write_bytes(b"old")
    handler = Receiver(path)
    server = serve(handler)
    client = server.client()
    client.request(Wrq(b"f", b"octet"))
    client.send(Data(1, b"x" * 512))
    assert (path.read_bytes(), handler.ended) == (b"old", [])
    assert client.send(Data(2, b"y")) == [Ack(2)]
    assert path.read_bytes() == b"x" * 512 + b"y"
    assert handler.ended == [("f", Outcome.DONE)]
    assert [each.name for each in tmp_path.iterdir()] == ["new"]


def test_a_function_gets_the_complete_upload_before_the_last_ack(serve):
    stored = []
    server = serve(Receiver(stored.append))
    server.net.hold_threads = True
    client = server.client()
    client.request(Wrq(b"f", b"netascii"))
    server.net.run_threads()
    assert client.receive() == [Ack(0)]
    client.send(Data(1, b"x" * 510 + b"\r\n"))
    client.send(Data(2, b"y\r\0"))
    assert stored == []
    server.net.run_threads()
    assert stored == [b"x" * 510 + b"\ny\r"]
    assert client.receive()[-1] == Ack(2)


def test_a_file_gets_the_complete_upload_and_is_closed(serve, tmp_path):
    file = open(tmp_path / "f", "wb")  # noqa: SIM115
    assert _upload(serve(Receiver(file)), b"x" * 512, b"y") == Ack(2)
    assert file.closed
    assert (tmp_path / "f").read_bytes() == b"x" * 512 + b"y"


def test_a_large_upload_is_collected_on_disk(serve):
    stored = []
    options = ((b"blksize", b"65000"),)
    block = bytes(65000)
    assert _upload(serve(Receiver(stored.append)), *[block] * 40, b"", options=options) == Ack(41)
    assert stored == [block * 40]


def test_an_upload_that_its_function_refuses_ends_with_an_error(serve, log):
    def refuse(data):
        raise AccessDenied("not a configuration")

    handler = Receiver(refuse)
    server = serve(handler)
    assert _upload(server, b"y") == ErrorPacket(2, "Access violation")
    assert handler.ended == [("f", Outcome.FAILED)]
    assert server.reports[0].detail == "not a configuration"
    assert log == []
    handler.destination = lambda data: 1 // 0
    assert _upload(server, b"y") == ErrorPacket(0, "Internal error")
    assert [event["event"] for event in log] == ["handler_failed"]


@pytest.mark.parametrize("kind", ["path", "file", "function"])
def test_nothing_of_an_incomplete_upload_reaches_the_destination(kind, serve, tmp_path):
    stored = []
    file = open(tmp_path / "file", "wb")  # noqa: SIM115
    handler = Receiver({"path": tmp_path / "p", "file": file, "function": stored.append}[kind])
    server = serve(handler)
    client = server.client()
    client.request(Wrq(b"f", b"octet"))
    client.send(Data(1, b"x" * 512))
    client.send(ErrorPacket(0, "stop"))
    short = _upload(server, b"x", options=((b"tsize", b"9"),))
    if kind != "file":  # it is closed already
        assert short == ErrorPacket(0, "File is shorter than its tsize")
        assert [outcome for _, outcome in handler.ended] == [Outcome.ABORTED, Outcome.FAILED]
    assert file.closed == (kind == "file")
    file.close()
    assert stored == []
    assert (tmp_path / "file").read_bytes() == b""
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", ["path", "function", "directory", "memory"])
def test_an_upload_may_not_exceed_max_upload_size(kind, serve, tmp_path):
    handler = {
        "path": Receiver(tmp_path / "p"),
        "function": Receiver(lambda data: pytest.fail("stored")),
        "directory": Directory(tmp_path, write=True, max_size=700),
        "memory": Memory(write=True),
    }[kind]
    server = serve(handler, max_upload_size=600)
    announced = server.client().request(Wrq(b"f", b"octet", ((b"tsize", b"601"),)))
    assert announced == [ErrorPacket(3, "Disk full or allocation exceeded")]
    assert _upload(server, b"x" * 512, b"y" * 89).code == 3
    assert list(tmp_path.iterdir()) == []


def test_a_function_gets_at_most_64_mib_by_default(serve, tmp_path):
    options = ((b"tsize", b"%d" % ((64 << 20) + 1)),)
    assert _upload(serve(Receiver([].append)), options=options).code == 3
    assert isinstance(_upload(serve(Receiver(tmp_path / "p")), options=options), Oack)


def test_the_handler_learns_the_end_of_a_download(serve):
    handler = Receiver(None)
    server = serve(handler)
    assert _read(server, Rrq(b"f", b"octet"))[0] == b"content"
    client = server.client()
    client.request(Rrq(b"g", b"octet"))
    client.advance(120)
    assert handler.ended == [("f", Outcome.DONE), ("g", Outcome.TIMED_OUT)]


def test_a_mistake_in_transfer_ended_is_logged(serve, log):
    class Mistaken(Memory):
        def transfer_ended(self, request, result):
            raise ZeroDivisionError

    assert _read(serve(Mistaken({"f": b"1"})), Rrq(b"f", b"octet"))[0] == b"1"
    (event,) = log
    assert event["method"] == "transfer_ended"


def test_a_handler_without_uploads_denies_them(serve, tmp_path):
    for handler in (lambda request: b"", Memory(), Directory(tmp_path)):
        assert _upload(serve(handler)) == ErrorPacket(2, "Access violation")
    writing = Directory(tmp_path, read=False, write=True)
    assert serve(writing).client().request(Rrq(b"f", b"octet"))[0].code == 2


def test_files_in_memory(serve):
    memory = Memory({"/a": b"1"}, write=True, overwrite=False, max_bytes=10)
    server = serve(memory)
    assert _read(server, Rrq(b"/a", b"octet"))[0] == b"1"
    assert _upload(server, b"1234567") == Ack(1)
    assert _upload(server, b"1234567") == ErrorPacket(6, "File already exists")
    assert memory.files == {"a": b"1", "f": b"1234567"}
    del memory.files["f"]
    assert _upload(server, b"1234567890") == ErrorPacket(3, "Disk full or allocation exceeded")
    assert memory.files == {"a": b"1"}


def test_a_directory_has_the_confinement_and_the_uploads_of_the_daemon(serve, tmp_path):
    root = tmp_path / "{mac}"  # not a placeholder
    root.mkdir()
    (root / "f").write_bytes(b"1")
    (tmp_path / "secret").write_bytes(b"2")
    (root / "link").symlink_to("../secret")
    server = serve(Chain(Directory(root, write=True, max_size=100)))
    assert _read(server, Rrq(b"f", b"octet"))[0] == b"1"
    assert server.client().request(Rrq(b"link", b"octet")) == [ErrorPacket(2, "Access violation")]
    assert _upload(server, b"x") == ErrorPacket(6, "File already exists")
    (root / "f").unlink()
    assert _upload(server, b"x" * 101) == ErrorPacket(3, "Disk full or allocation exceeded")
    assert _upload(server, b"x") == Ack(1)
    assert (root / "f").read_bytes() == b"x"
    with pytest.raises(ValueError, match="expected read, write or both"):
        Directory(root, read=False)


def test_a_program_may_try_a_directory_first(serve, tmp_path):
    directory = Directory(tmp_path)

    def handle(request):
        try:
            return directory.read(request)
        except NotFound:
            return b"default"

    server = serve(handle)
    assert _read(server, Rrq(b"f", b"octet"))[0] == b"default"
    (tmp_path / "f").write_bytes(b"own")
    assert _read(server, Rrq(b"f", b"octet"))[0] == b"own"


def test_a_chain_tries_the_next_handler_if_a_file_does_not_exist(serve, tmp_path):
    def only_a(request):
        if request.name == "denied":
            raise AccessDenied
        return Path(tmp_path / "a") if request.name == "a" else open(tmp_path / "none", "rb")

    (tmp_path / "a").write_bytes(b"first")
    receiver = Receiver([].append)
    chain = Chain(only_a, Chain(Memory({"b": b"second"}), Directory(tmp_path, write=True)))
    server = serve(chain)
    assert _read(server, Rrq(b"a", b"octet"))[0] == b"first"
    assert _read(server, Rrq(b"b", b"octet"))[0] == b"second"
    assert server.client().request(Rrq(b"none", b"octet"))[0].code == 1
    assert server.client().request(Rrq(b"denied", b"octet"))[0].code == 2
    assert _upload(server, b"x") == Ack(1)
    assert (tmp_path / "f").read_bytes() == b"x"
    assert _upload(serve(Chain(only_a, receiver)), b"x") == Ack(1)
    assert receiver.ended == [("f", Outcome.DONE)]


@pytest.mark.parametrize("handler", [None, "f", Handler, 7])
def test_a_value_that_is_no_handler_is_a_type_error(handler):
    with pytest.raises(TypeError, match="expected a Handler or a function"):
        to_handler(handler)
