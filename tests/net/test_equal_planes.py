"""One scripted client drives three servers, without a data plane, with that in Python and with
that in C: every datagram of the session and the result of the transfer are the same.

A seed chooses the file, the options and the steps of the client. The timers of the sessions run
only in steps that wait for them, so that a slow machine changes nothing. A few decisions of the
state machines depend on the time since a packet (50 ms for a duplicate ACK): a script whose
sessions differ is run again, and must then differ again.
"""

import os
import random
import select
import socket
import time

import pytest
from twisted.internet.defer import Deferred

from tests.dataplane.conftest import _native, ack, data
from tests.net.test_loans import BLKSIZE, Host, RepeatedRequests, _create, _open
from tests.support.programs import needs_linux
from tftpd.dataplane import reference
from tftpd.net import receive_session, send_session
from tftpd.net.wrappers import ProtocolTap
from tftpd.protocol.errors import ErrorText
from tftpd.protocol.negotiation import Mode
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.storage.source import MemorySource

TIMING = RetransmitPolicy(
    min_interval=0.04, initial_interval=0.04, max_interval=0.06, idle_timeout=30.0, dally=0.3
)
LATE_SECONDS = 0.07  # a duplicate ACK after this time asks for a lost block
SEGMENT = (17, 103)  # SOL_UDP, UDP_SEGMENT
NONSENSE = (
    b"",
    b"\0",
    b"\0\4",
    b"\0\3\0",
    b"\0\6\0",
    b"\1\4\0\1",
    bytes(40),
    b"\0\1f\0octet\0",
    b"\0\6tsize\0" + b"9\0",
    bytes(2000),
)


class ScriptedHost(Host):
    """A host whose timers run only in `wait_for_timer`."""

    def __init__(self, name, plane_type, monkeypatch, holds_threads):
        super().__init__(plane_type, monkeypatch)
        self.name = name
        self._taps = name == "none"
        self._holds_threads = holds_threads
        self.other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.other.bind(self.address)
        self.listener = RepeatedRequests(self)

    def tap(self, session):
        """Each datagram of an observed session passes through Python: it is never lent."""
        return ProtocolTap(session, lambda *_: None) if self._taps else session

    def read(self):
        self.clock.rightNow = time.monotonic()
        while self.readers.fileno() >= 0 and select.select([self.readers], [], [], 0)[0]:
            self.readers.doRead()

    def run_due_timers(self):
        self.clock.rightNow = time.monotonic()
        self.clock.advance(0)
        self.read()

    def run_threads(self):
        pending, self.threads = self.threads, []
        for deferred, work in pending:
            deferred.addCallback(lambda _, work=work: work())
            deferred.callback(None)
        self.read()

    def _in_thread(self, work):
        deferred = Deferred()
        self.threads.append((deferred, work))
        if not self._holds_threads:
            self.run_threads()
        return deferred

    def received_by_all(self):
        """Return what the client and the other host have received."""
        server = self.server
        self.read()
        received = self.receive(), self.receive(self.other)
        self.server = self.server or server
        return received

    def state(self):
        """Return what the status page shows of the session."""
        machine = self.session.machine
        return (
            self.session.running,
            *(machine.blocks, machine.bytes_transferred, machine.retransmits, machine.timeouts),
        )

    def close(self):
        self.run_threads()
        super().close()
        self.run_threads()
        for each in (self.other, self.listener.socket):
            each.close()


class Difference(AssertionError):
    """Two sessions differ."""


class Script:
    """The steps of one client, and what it has received."""

    def __init__(self, seed, hosts):
        self.random = random.Random(seed)
        self.hosts = hosts
        self.trace = []
        self.n_lent = 0
        self.ended = False

    def compare(self, step):
        """Compare what the hosts have received in a step, and return it."""
        self.trace.append(step)
        seen = [(host.received_by_all(), host.results and _known(host)) for host in self.hosts]
        self.n_lent += self.hosts[-1].is_lent
        for host, each in zip(self.hosts, seen, strict=True):
            if each != seen[0]:
                steps = "\n".join(map(str, self.trace[-12:]))
                raise Difference(f"{steps}\nwithout a plane: {seen[0]}\n{host.name}: {each}")
        (datagrams, _), results = seen[0]
        self.ended = bool(results)
        return datagrams

    def send(self, *datagrams, other=False, segment=None):
        """Send datagrams, perhaps as one burst, before the hosts read."""
        for host in self.hosts:
            source = host.other if other else host.client
            if segment:
                size = (SEGMENT[0], SEGMENT[1], segment.to_bytes(2, "little"))
                source.sendmsg([b"".join(datagrams)], [size], 0, host.server)
                continue
            for datagram in datagrams:
                source.sendto(datagram, host.server)
        names = [datagram[:4].hex() + f"+{len(datagram)}" for datagram in datagrams]
        return self.compare(("send", *names, "other" * other, segment))

    def repeat_request(self, *datagrams):
        """Send the request to the listener, and datagrams to the session at the same time."""
        for host in self.hosts:
            host.client.sendto(b"request", host.listener.address)
            for datagram in datagrams:
                host.client.sendto(datagram, host.server)
        return self.compare(("request repeated", *[each[:4].hex() for each in datagrams]))

    def wait_for_timer(self):
        """Wait until each session has handled one timeout."""
        waiting = {host: host.session.machine.timeouts for host in self.hosts}
        until = time.monotonic() + 1
        while waiting and time.monotonic() < until:
            for host, timeouts in list(waiting.items()):
                host.run_due_timers()
                if host.session.machine.timeouts != timeouts or not host.clock.getDelayedCalls():
                    del waiting[host]
            time.sleep(0.001)
        return self.compare(("timeout",))

    def call(self, name, function):
        for host in self.hosts:
            function(host)
        return self.compare((name,))

    def compare_states(self):
        states = [host.state() for host in self.hosts]
        if any(state != states[0] for state in states):
            raise Difference(f"{self.trace[-12:]}\nstates {states}")

    def disturb(self, next_datagram, older):
        """Do something that is not expected; return what the client has received."""
        choice, datagram = self.random.randrange(11), next_datagram
        match choice:
            case 0:
                return self.send(self.random.choice(NONSENSE))
            case 1:
                return self.send(datagram, other=True)
            case 2:
                return self.wait_for_timer()
            case 3:
                # The samples of the round-trip time differ.
                rtts = [host.session.machine.smoothed_rtt or 0.0 for host in self.hosts]
                if max(rtts) < LATE_SECONDS / 2:
                    time.sleep(LATE_SECONDS)
                return self.send(older)
            case 4:
                return self.repeat_request()
            case 5:
                return self.repeat_request(datagram)
            case 6:
                self.compare_states()
                return self.call("held", lambda host: host.session.hold())
            case 7:
                return self.call("timers", lambda host: host.run_due_timers())
            case 8:
                return self.send(self.random.choice(NONSENSE), datagram)
            case 9:
                return self.send(older, datagram, older)
            case _:
                return self.call("threads", lambda host: host.run_threads())

    def end_early(self):
        """End the transfer, by the client or by the server."""
        match self.random.randrange(3):
            case 0:
                return self.send(b"\0\5\0\3full\0")
            case 1:
                return self.send(b"\0\5\0\0" + b"x" * 3000)
            case _:
                stop = (Outcome.STOPPED, ErrorText.STOPPING)
                return self.call("stop", lambda host: host.session.stop(*stop))


def _known(host):
    """Return the result without what depends on time, address and directory."""
    (result,) = host.results
    return [
        (name, getattr(result, name))
        for name in result.__dataclass_fields__
        if name not in ("peer", "seconds", "rtt", "stored_path")
    ]


class ColdSource(MemorySource):
    """A file whose every third part is not in the page cache."""

    def read(self, buffers, offset, blocking):
        if not blocking and offset // 20_000 % 3 == 2:
            raise BlockingIOError
        return super().read(buffers, offset, blocking)


class Download(Script):
    """A client that reads a file, in lock-step or with windows that are never paced."""

    def begin(self, directory):
        n_blocks = self.random.choice((0, 30, 520, 700, 1200))
        size = n_blocks * BLKSIZE + self.random.randrange(BLKSIZE)
        self.content = random.Random(size).randbytes(size)
        self.kind = self.random.choice(("file", "file", "cold", "netascii", "truncated", "changed"))
        windowsize = self.random.choice((1, 1, 1, 2, 3, 4, 8))
        self.paths = []
        for host in self.hosts:
            mode = Mode.NETASCII if self.kind == "netascii" else Mode.OCTET
            source = self._source(directory / host.name)
            host.download(source, windowsize, mode=mode, tap=host.tap, timing=TIMING)
        self.index = 0
        self._take(self.compare((self.kind, size, windowsize)))

    def _source(self, path):
        if self.kind in ("cold", "netascii"):
            return {"cold": ColdSource, "netascii": MemorySource}[self.kind](self.content)
        self.paths.append(path)
        return _open(path, self.content)

    def _take(self, received):
        """Take the index of the last block in order."""
        for datagram in received:
            if datagram[:2] == b"\0\3" and datagram[2:4] == (self.index + 1).to_bytes(2, "big"):
                self.index += 1

    def step(self):
        number = self.index
        choice = self.random.random()
        if choice < 0.5:
            n_blocks = self.random.choice((1, 2, 10, 60, 400))
            for _ in range(n_blocks):
                before = self.index
                self._take(self.send(ack(self.index)))
                if self.ended or self.index == before:
                    return
        elif choice < 0.6:
            numbers = [number + self.random.randint(-2, 3) for _ in range(3)]
            acks = [ack(max(0, each)) for each in numbers]
            self._take(self.send(*acks, ack(number) + bytes(25)))
        elif choice < 0.61:
            self._take(self.end_early())
        elif choice < 0.63 and self.paths:
            self._change_file()
        else:
            self._take(self.disturb(ack(number), ack(max(0, number - 1))))

    def _change_file(self):
        for path in self.paths:
            if self.kind == "truncated":
                os.truncate(path, len(self.content) // 2)
            elif self.kind == "changed" and self.content:
                path.write_bytes(bytes(len(self.content)))
        self.trace.append("changed")

    def check_end(self):
        for host in self.hosts:
            if host.results[0].outcome is Outcome.DONE and self.kind != "netascii":
                assert host.results[0].bytes_transferred == len(self.content)


class Upload(Script):
    """A client that writes a file, in lock-step or with windows."""

    def begin(self, directory):
        self.windowsize = self.random.choice((1, 1, 2, 3, 4, 8, 16))
        n_blocks = self.random.choice((0, 5, 60, 300, 1100, 1500))
        max_size = self.random.choice((None, None, None, 100 * BLKSIZE, 1050 * BLKSIZE + 3))
        size = n_blocks * BLKSIZE + self.random.randrange(BLKSIZE)
        self.content = random.Random(size).randbytes(size)
        self.paths = []
        for host in self.hosts:
            (directory / host.name).mkdir()
            self.paths.append(directory / host.name / "new")
            sink = _create(directory / host.name, max_size=max_size)
            host.upload(sink, self.windowsize, host.tap, timing=TIMING)
        self.acked = 0
        self._take(self.compare((size, self.windowsize, max_size)))

    def _block(self, index):
        """Return the datagram of a block; after the end of the file, it is as long as before."""
        start = (index - 1) * BLKSIZE
        return data(index % 65536, self.content[start : start + BLKSIZE])

    def _take(self, received):
        for datagram in received:
            if datagram[:2] == b"\0\4":
                self.acked = max(self.acked, int.from_bytes(datagram[2:4], "big"))

    @property
    def _last(self):
        return len(self.content) // BLKSIZE + 1

    def _window(self):
        end = min(self.acked + self.windowsize, self._last)
        return [self._block(index) for index in range(self.acked + 1, end + 1)]

    def step(self):
        choice = self.random.random()
        window = self._window() or [self._block(self._last)]
        if choice < 0.5:
            for _ in range(self.random.choice((1, 2, 10, 100))):
                before, window = self.acked, self._window()
                if not window:
                    window = [self._block(self._last)]
                is_burst = self.random.random() < 0.3 and len(window) > 1
                segment = BLKSIZE + 4 if is_burst else None
                self._take(self.send(*window, segment=segment))
                if self.ended or self.acked == before:
                    return
        elif choice < 0.6:
            window.pop(self.random.randrange(len(window)))
            self._take(self.send(*window) if window else self.compare(("nothing",)))
        elif choice < 0.68:
            self.random.shuffle(window)
            self._take(self.send(*window))
        elif choice < 0.74:
            twice = self.random.choice(window)
            self._take(self.send(*window[:-1], twice, *window[-1:]))
        elif choice < 0.75:
            excess = self.random.choice((1, 5, 1023, 1024, 1025, 4000))
            self._take(self.send(data(self.acked + 1, bytes(BLKSIZE + excess))))
        elif choice < 0.76:
            self._take(self.end_early())
        elif choice < 0.8:
            far = self.random.choice((-3, 20, 100, 30_000, 65_000))
            self._take(self.send(data((self.acked + far) % 65536, bytes(BLKSIZE))))
        else:
            older = self._block(max(1, self.acked))
            self._take(self.disturb(window[0], older))

    def check_end(self):
        for host, path in zip(self.hosts, self.paths, strict=True):
            if host.results[0].outcome is Outcome.DONE:
                assert path.read_bytes() == self.content
            else:
                assert list(path.parent.iterdir()) == []


def _run(kind, seed, directory, monkeypatch, planes):
    directory.mkdir()
    holds_threads = seed % 3 == 0
    hosts = []
    try:
        for name, plane in planes.items():
            hosts.append(ScriptedHost(name, plane, monkeypatch, holds_threads))
        script = kind(seed, hosts)
        script.begin(directory)
        for _ in range(60):
            if script.ended:
                break
            script.step()
        if not script.ended:
            script.end_early()
        for host in hosts:
            host.run_threads()
        script.compare(("end",))
        script.compare_states()
        script.check_end()
        return script.n_lent
    finally:
        for host in hosts:
            host.close()


@pytest.fixture
def planes(monkeypatch):
    """The planes by name; the first host observes its session, so that it never lends it."""
    for module in (receive_session, send_session):
        monkeypatch.setattr(module, "MOVES_WINDOWS", True)
    planes = {"none": reference.DataPlane, "python": reference.DataPlane}
    if _native is None:
        assert os.environ.get("TFTPD_INTEROP") != "required", "the extension was not built"
        return planes
    return {**planes, "C": _native.DataPlane2}


def _compare(kind, seeds, directory, monkeypatch, planes):
    n_lent = 0
    for seed in seeds:
        for attempt in range(3):
            try:
                name = f"{seed}-{attempt}"
                n_lent += _run(kind, seed, directory / name, monkeypatch, planes)
                break
            except Difference as difference:
                if attempt == 2:
                    difference.add_note(f"{kind.__name__} with seed {seed}")
                    raise
    assert n_lent > len(seeds), "the planes moved nothing"


@needs_linux
@pytest.mark.parametrize("kind", [Download, Upload])
def test_sessions_behave_alike_with_and_without_a_data_plane(kind, tmp_path, monkeypatch, planes):
    _compare(kind, range(10), tmp_path, monkeypatch, planes)


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(1000, 3000, 100))
@pytest.mark.parametrize("kind", [Download, Upload])
def test_many_sessions_behave_alike(kind, first, tmp_path, monkeypatch, planes):
    _compare(kind, range(first, first + 100), tmp_path, monkeypatch, planes)
