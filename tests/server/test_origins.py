"""Requests for objects at an origin: they wait without a thread, and are resolved again."""

from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.origins.fakes import FakeOrigins, GrowingObject
from tests.support.fakes import MemoryServer
from tests.support.programs import needs_linux
from tftpd.access.mounts import Mount, Mounts, parse_root
from tftpd.access.policy import ReadPolicy, WritePolicy
from tftpd.origins.answers import CallQueue
from tftpd.origins.spool import UploadSpool
from tftpd.protocol.errors import ErrorCode, ErrorText, HostFault
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.server.admission import AdmissionLimits, DropReason
from tftpd.storage.source import MemorySource

KERNEL = Rrq(b"kernel", b"octet")
WINDOWS = Rrq(b"kernel", b"octet", ((b"blksize", b"8"), (b"windowsize", b"4"), (b"tsize", b"0")))


class Object(MemorySource):
    """An object that is in the cache as a whole."""

    def __init__(self, content):
        super().__init__(content)
        self.content = content


@pytest.fixture
def origins():
    return FakeOrigins()


@pytest.fixture
def origin_server(offer, origins, root):
    """Server with an origin, and below `local` a directory before it. Threads run on demand."""

    def build(report):
        read = ReadPolicy(templates=True)
        boot = parse_root("origin:fleet/boot")
        mounts = [
            Mount((), (boot,), read=read),
            Mount((b"local",), (parse_root(str(root)), boot), read=read),
        ]

        def render(template, context):
            return MemorySource(context.source.upper())

        return replace(
            offer(report),
            mounts=Mounts(mounts),
            origins=origins,
            ask_origin=origins.ask,
            render=render,
            admission=AdmissionLimits(sessions=1000, half_open=20),
        )

    server = MemoryServer(build)
    server.net.hold_threads = True
    yield server
    server.net.run_threads()
    server.advance(120)
    assert server.idle


def _blocks(packets):
    return [packet.block for packet in packets if isinstance(packet, Data)]


def test_a_request_waits_for_the_answer_of_the_origin_without_a_thread(origin_server, origins):
    client = origin_server.client()
    assert client.request(KERNEL) == []
    assert origins.asked == ["boot/kernel"]
    assert not origin_server.net._held
    origin_server.advance(0.5)
    origins.answer(**{"boot/kernel": Object(b"content")})
    assert client.receive() == [Data(1, b"content")]
    client.send(Ack(1))
    (report,) = origin_server.reports
    assert (report.outcome, report.seconds) == (Outcome.DONE, pytest.approx(0.5))


def test_a_known_object_is_sent_at_once(origin_server, origins):
    origins.answer(**{"boot/kernel": Object(b"content")})
    client = origin_server.client()
    assert client.request(KERNEL) == [Data(1, b"content")]
    client.send(Ack(1))
    assert origins.asked == []


@needs_linux
def test_a_local_file_needs_no_question(origin_server, origins):
    client = origin_server.client()
    assert client.request(Rrq(b"local/seven", b"octet")) == [Data(1, b"1234567")]
    client.send(Ack(1))
    assert origins.asked == []


def test_the_origin_is_asked_for_a_file_that_is_not_in_the_directory(origin_server, origins):
    client = origin_server.client()
    assert client.request(Rrq(b"local/kernel", b"octet")) == []
    origin_server.net.run_threads()  # finds out that there is no such file
    assert origins.asked == ["boot/kernel"]
    origins.answer(**{"boot/kernel": Object(b"content")})
    origin_server.net.run_threads()
    assert client.receive() == [Data(1, b"content")]
    client.send(Ack(1))


def test_a_repeated_request_waits_for_the_same_answer(origin_server, origins):
    client = origin_server.client()
    for _ in range(3):
        assert client.request(KERNEL) == []
    assert origins.asked == ["boot/kernel"]
    assert origin_server.listener._drops.take()[DropReason.REPEATED] == 2
    origins.answer(**{"boot/kernel": Object(b"content")})
    assert client.receive() == [Data(1, b"content")]
    client.send(Ack(1))


def test_more_clients_than_threads_wait_at_the_same_time(origin_server, origins):
    clients = [origin_server.client(host=f"192.0.2.{n}") for n in range(1, 20)]
    for client in clients:
        assert client.request(KERNEL) == []
    origins.answer(**{"boot/kernel": Object(b"content")})
    for client in clients:
        assert client.receive() == [Data(1, b"content")]
        client.send(Ack(1))


def test_a_client_with_many_questions_loses_one_to_another_client(origin_server, origins):
    flood = [origin_server.client(port=port) for port in range(1, 21)]
    for number, client in enumerate(flood):
        client.request(Rrq(b"%d" % number, b"octet"))
    other = origin_server.client(host="192.0.2.9")
    assert other.request(KERNEL) == []
    assert [report.outcome for report in origin_server.reports] == [Outcome.DROPPED]
    origins.answer(**{"boot/kernel": Object(b"x"), **{f"boot/{n}": None for n in range(20)}})
    assert other.receive() == [Data(1, b"x")]
    other.send(Ack(1))
    origins.answer(**{f"boot/{n}.j2": None for n in range(20)})


def test_an_absent_object_is_a_missing_file(origin_server, origins):
    client = origin_server.client()
    client.request(KERNEL)
    origins.answer(**{"boot/kernel": None})
    assert client.receive() == []  # nor is there a template
    assert origins.asked == ["boot/kernel", "boot/kernel.j2"]
    origins.answer(**{"boot/kernel.j2": None})
    assert client.receive() == [ErrorPacket(1, "File not found")]


def test_an_origin_that_does_not_answer_is_a_fault_of_this_host(origin_server, origins):
    client = origin_server.client()
    client.request(KERNEL)
    fault = HostFault(ErrorCode.NOT_DEFINED, "connection refused", ErrorText.ORIGIN_FAILED)
    origins.answer(**{"boot/kernel": fault})
    assert client.receive() == [ErrorPacket(0, "The origin does not answer")]
    (report,) = origin_server.reports
    assert (report.outcome, report.fault) == (Outcome.REFUSED, True)
    assert "connection refused: origin:fleet/boot/kernel" in report.detail


def test_a_failed_question_is_logged_and_the_client_may_ask_again(origin_server, origins):
    client = origin_server.client()
    client.request(KERNEL)
    origins.refuse(ZeroDivisionError())
    assert client.receive() == []
    assert client.request(KERNEL) == []
    origins.answer(**{"boot/kernel": Object(b"x")})
    assert client.receive() == [Data(1, b"x")]
    client.send(Ack(1))


def test_answers_that_are_outdated_at_once_do_not_go_on_for_ever(origin_server, origins):
    client = origin_server.client()
    client.request(KERNEL)
    for _ in range(200):
        origins.answer()
    assert len(origins.asked) == 128
    assert client.receive() == []
    (report,) = origin_server.reports
    assert (report.outcome, report.detail) == (
        Outcome.DROPPED,
        "no answer after 128 questions to origins",
    )


@needs_linux
def test_another_request_cancels_the_wait(origin_server, origins):
    client = origin_server.client()
    client.request(KERNEL)
    assert client.request(Rrq(b"local/seven", b"octet")) == [Data(1, b"1234567")]
    origins.answer(**{"boot/kernel": Object(b"x")})
    assert client.receive() == []
    client.send(Ack(1))


def test_a_template_at_an_origin_is_rendered_when_all_of_it_is_there(origin_server, origins):
    template = GrowingObject(8)
    client = origin_server.client()
    client.request(KERNEL)
    origins.answer(**{"boot/kernel": None, "boot/kernel.j2": template})
    template.arrive(b"half")
    origins.answer()
    assert client.receive() == []
    assert not origin_server.net._held
    template.arrive(b"half")
    origins.answer()
    origin_server.net.run_threads()
    assert client.receive() == [Data(1, b"HALFHALF")]
    client.send(Ack(1))
    assert template.is_closed


def test_a_write_to_an_origin_is_refused_where_uploads_are_not_possible(origin_server, origins):
    assert isinstance(origin_server.client().request(Wrq(b"new", b"octet"))[0], ErrorPacket)


def test_blocks_are_sent_while_the_object_arrives(origin_server, origins):
    """Windows of 4 blocks with 8 bytes; the trace shows what each part of the object causes."""
    kernel = GrowingObject(50)
    content = bytes(range(50))
    origins.answer(**{"boot/kernel": kernel})
    client = origin_server.client()
    (oack,) = client.request(WINDOWS)
    assert isinstance(oack, Oack)
    assert (b"tsize", b"50") in oack.options
    assert client.send(Ack(0)) == []  # nothing has arrived
    kernel.arrive(content[:5])
    assert client.receive() == []  # less than a block
    kernel.arrive(content[5:20])
    assert client.receive() == [Data(1, content[:8]), Data(2, content[8:16])]
    kernel.arrive(content[20:45])
    assert _blocks(client.receive()) == [3, 4]  # the rest of the window
    assert not origin_server.net._held, "a thread waits for the origin"
    assert client.send(Ack(4)) == [Data(5, content[32:40])]
    kernel.arrive(content[45:])
    assert client.receive() == [Data(6, content[40:48]), Data(7, content[48:])]
    client.send(Ack(7))
    (report,) = origin_server.reports
    assert (report.outcome, report.bytes_transferred) == (Outcome.DONE, 50)
    assert kernel.is_closed


def test_a_client_that_waits_gets_an_error_if_the_rest_never_comes(origin_server, origins):
    kernel = GrowingObject(50)
    origins.answer(**{"boot/kernel": kernel})
    client = origin_server.client()
    client.request(WINDOWS)
    client.send(Ack(0))
    kernel.arrive(b"x" * 8)
    assert _blocks(client.receive()) == [1]
    kernel.fail()
    origin_server.net.run_threads()
    assert client.receive()[-1] == ErrorPacket(0, "The origin does not answer")
    assert kernel.is_closed


def test_a_session_that_ends_while_it_waits_releases_the_object(origin_server, origins):
    kernel = GrowingObject(50)
    origins.answer(**{"boot/kernel": kernel})
    client = origin_server.client()
    client.request(WINDOWS)
    client.send(Ack(0))
    (wake,) = kernel.waiting
    client.send(ErrorPacket(0, "bye"))
    assert kernel.is_closed
    wake()  # too late: nothing happens
    assert client.receive() == []


def test_an_object_that_never_arrives_ends_with_the_idle_timeout(origin_server, origins):
    kernel = GrowingObject(50)
    origins.answer(**{"boot/kernel": kernel})
    client = origin_server.client()
    client.request(WINDOWS)
    client.send(Ack(0))
    assert client.advance(120)[-1] == ErrorPacket(0, "File could not be read")
    assert kernel.is_closed


class OriginUploads(FakeOrigins):
    """Origins that take uploads into a spool; commands to the fetcher are recorded."""

    def __init__(self, path, clock):
        super().__init__()
        self.calls = []
        self.spool = UploadSpool(clock, path, self._call, CallQueue(clock), lambda root, key: None)

    def _call(self, command, **arguments):
        done = Deferred()
        self.calls.append((command.__name__, done))
        return done

    def answer_call(self, state, reason=""):
        _, done = self.calls.pop(0)
        done.callback({"state": state, "reason": reason})

    def open_upload(self, root, key, grant, size, netascii):
        return self.spool.open(root, key, grant.policy, size, netascii)

    def ask(self, needed):
        return self.spool.ask(needed.root, needed.key)


@pytest.fixture
def upload_server(offer, tmp_path):
    """Server that stores uploads at an origin. Threads run on demand."""
    built = []

    def build(report):
        policy = WritePolicy(create=True, overwrite=False)
        mounts = [Mount((), (parse_root("origin:fleet/in"),), write=policy)]
        built.append(OriginUploads(tmp_path, server_clock[0]))
        origins = built[0]
        return replace(
            offer(report), mounts=Mounts(mounts), origins=origins, ask_origin=origins.ask
        )

    server_clock = [Clock()]
    server = MemoryServer(build)
    server.net.hold_threads = True
    server.origins, server.origin_clock = built[0], server_clock[0]
    yield server
    assert not server.net._held
    server.advance(120)
    assert server.idle
    assert not list(tmp_path.glob("spool/*"))


def _begin_upload(server):
    client = server.client()
    assert client.request(Wrq(b"new", b"octet")) == []
    server.origins.answer_call("allowed")
    server.origin_clock.advance(0)
    assert client.receive() == [Ack(0)]
    return client


def test_the_last_ack_of_an_upload_waits_for_the_origin_without_a_thread(upload_server):
    client = _begin_upload(upload_server)
    assert client.send(Data(1, b"x" * 512)) == [Ack(1)]
    assert client.send(Data(2, b"y")) == []
    assert client.send(Data(2, b"y")) == []
    upload_server.advance(5)
    upload_server.origins.answer_call("stored")
    assert client.receive() == [Ack(2)]
    (report,) = upload_server.reports
    assert (report.outcome, report.bytes_transferred) == (Outcome.DONE, 513)


@pytest.mark.parametrize(("state", "code"), [("exists", 6), ("failed", 0)])
def test_an_upload_that_the_origin_does_not_store_is_an_error(upload_server, state, code):
    client = _begin_upload(upload_server)
    assert client.send(Data(1, b"y")) == []
    upload_server.origins.answer_call(state, "the reason")
    (error,) = client.receive()
    assert error.code == code
    (report,) = upload_server.reports
    assert report.outcome is not Outcome.DONE


def test_an_upload_whose_session_ends_meanwhile_is_not_acknowledged(upload_server):
    client = _begin_upload(upload_server)
    assert client.send(Data(1, b"y")) == []
    upload_server.sessions.stop()
    assert [type(packet) for packet in client.receive()] == [ErrorPacket]
    upload_server.origins.answer_call("stored")
    assert client.receive() == []


@pytest.mark.parametrize(
    ("state", "reason", "code"), [("refused", "ignores conditional writes", 2), ("exists", "", 6)]
)
def test_the_answer_about_an_object_refuses_its_upload(upload_server, state, reason, code):
    client = upload_server.client()
    assert client.request(Wrq(b"new", b"octet")) == []
    upload_server.origins.answer_call(state, reason)
    upload_server.origin_clock.advance(0)
    (error,) = client.receive()
    assert error.code == code
    (report,) = upload_server.reports
    assert report.outcome is Outcome.REFUSED
    assert reason in report.detail
