"""Requests whose lookups block, and other requests at the same time.

A name that was never looked up is not in the kernel's dentry cache: a thread must find
out whether it exists. `hold_threads` simulates a slow disk.
"""

from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import globalLogPublisher

from tests.support.fakes import SERVER, MemoryServer
from tests.support.programs import needs_linux
from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.mounts import Mounts
from tftpd.access.rewrite import NameRules
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.server.admission import AdmissionLimits, DropCounters, DropReason, RequestDropped
from tftpd.server.lookups import Lookup, LookupQueue

SEVEN = b"1234567"
NEVER = Rrq(b"never", b"octet")
NOT_FOUND = ErrorPacket(1, "File not found")


def _folding(offer, limits=None):
    """Return a server that finds SEVEN with the fallback `case`, in a thread."""
    naming = NameRules(fallbacks=FallbackChain((Fallback.CASE,)))

    def build(report):
        built = offer(report)
        return replace(
            built,
            mounts=Mounts(built.mounts, naming),
            admission=limits or AdmissionLimits(sessions=100),
        )

    server = MemoryServer(build, drops=DropCounters())
    server.net.hold_threads = True
    return server


@needs_linux
def test_a_slow_lookup_does_not_delay_other_requests(offer):
    server = _folding(offer)
    assert server.client(port=1).request(Rrq(b"SEVEN", b"octet")) == []
    other = server.client(port=2)
    assert other.request(Rrq(b"seven", b"octet")) == [Data(1, SEVEN)]
    other.send(Ack(1))
    server.net.run_threads()
    server.advance(60)
    assert server.idle


@needs_linux
def test_a_file_is_sent_after_its_slow_lookup(offer):
    server = _folding(offer)
    client = server.client()
    assert client.request(Rrq(b"SEVEN", b"octet")) == []
    server.advance(0.5)
    server.net.run_threads()
    assert client.receive() == [Data(1, SEVEN)]
    client.send(Ack(1))
    (report,) = server.reports
    assert (report.outcome, report.served_name, report.resolution_steps) == (
        Outcome.DONE,
        b"seven",
        ("case",),
    )
    assert report.seconds == pytest.approx(0.5)
    assert server.idle


@needs_linux
def test_a_request_repeated_during_its_lookup_is_answered_once(offer):
    server = _folding(offer)
    client = server.client()
    for _ in range(5):
        assert client.request(Rrq(b"SEVEN", b"octet")) == []
    server.net.run_threads()
    assert client.receive() == [Data(1, SEVEN)]
    client.send(Ack(1))
    server.net.run_threads()
    assert client.receive() == []
    assert len(server.reports) == 1
    assert server.listener._drops.take()[DropReason.REPEATED] == 4
    assert server.idle


def test_a_missing_file_is_refused_after_the_lookup(offer):
    server = _folding(offer)
    client = server.client()
    assert client.request(NEVER) == []
    assert client.request(NEVER) == []
    server.net.run_threads()
    assert client.receive() == [NOT_FOUND]
    assert [report.outcome for report in server.reports] == [Outcome.REFUSED]


def test_a_late_refusal_is_sent_from_the_local_address_of_the_request(offer):
    server = _folding(offer)
    server.port.local = ("192.0.2.2", 0)
    client = server.client()
    client.request(NEVER)
    server.port.local = (SERVER, 0)
    server.client(port=1).request(Rrq(b"seven", b"octet"))
    server.net.run_threads()
    assert [source[0] for source, peer, _ in server.net.sent if peer == client.address] == [
        "192.0.2.2"
    ]


@needs_linux
def test_another_request_from_the_same_port_cancels_the_first_lookup(offer):
    server = _folding(offer)
    client = server.client()
    assert client.request(Rrq(b"KILO", b"octet")) == []
    assert client.request(Rrq(b"SEVEN", b"octet")) == []
    server.net.run_threads()
    assert client.receive() == [Data(1, SEVEN)]
    client.send(Ack(1))
    assert server.idle


@needs_linux
def test_the_file_of_a_cancelled_lookup_is_closed(offer, root):
    server = _folding(offer)
    client = server.client()
    client.request(Rrq(b"SEVEN", b"octet"))
    client.request(Wrq(b"in/new", b"octet"))
    server.listener.cancel_lookups()
    server.net.run_threads()
    assert client.receive() in ([], [Ack(0)])
    server.advance(120)
    assert server.idle
    assert list((root / "in").iterdir()) == []


@needs_linux
def test_four_lookups_run_at_a_time_for_one_disk(offer):
    server = _folding(offer)
    clients = [server.client(port=port) for port in range(1, 10)]
    for client in clients:
        client.request(Rrq(b"SEVEN", b"octet"))
    n_answered = []
    while server.net._held:
        assert len(server.net._held) <= 4
        server.net.run_threads()
        n_answered.append(sum(client.receive() == [Data(1, SEVEN)] for client in clients))
    assert sum(n_answered) == len(clients)
    for client in clients:
        client.send(Ack(1))
    assert server.idle


@needs_linux
def test_the_number_of_lookups_is_limited_by_half_open(offer):
    server = _folding(offer, AdmissionLimits(sessions=100, half_open=3))
    for port in range(1, 6):
        server.client(port=port).request(Rrq(b"SEVEN", b"octet"))
    assert [report.outcome for report in server.reports] == [Outcome.DROPPED] * 2
    server.net.run_threads()
    server.advance(120)
    assert server.idle


@needs_linux
def test_the_session_limit_of_a_client_is_checked_after_the_lookup(offer):
    server = _folding(offer, AdmissionLimits(sessions=100, sessions_per_client=2))
    late = server.client(port=3)
    assert late.request(Rrq(b"SEVEN", b"octet")) == []
    for port in (1, 2):
        client = server.client(port=port)
        client.request(Rrq(b"kilo", b"octet"))
        client.send(Ack(1))
    server.net.run_threads()
    assert [type(packet) for packet in late.receive()] == [ErrorPacket]
    server.advance(120)
    assert server.idle


def test_the_cpu_time_of_failed_lookups_is_charged(offer):
    charged = []
    server = _folding(offer)
    server.listener._lookups._charge = charged.append
    server.client(port=1).request(NEVER)
    client = server.client(port=2)
    client.request(Rrq(b"SEVEN", b"octet"))
    assert charged == []
    server.net.run_threads()
    client.send(Ack(1))
    assert len(charged) == 1
    assert 0 < charged[0] < 1


FLOODING, NORMAL = "198.51.100.66", "192.0.2.7"


@needs_linux
def test_lookups_are_served_round_robin(offer):
    """A client that requests a hundred files at once delays only itself."""
    server = _folding(offer)
    for port in range(1, 101):
        server.client(FLOODING, port).request(Rrq(b"SEVEN", b"octet"))
    normal = server.client(NORMAL)
    assert normal.request(Rrq(b"SEVEN", b"octet")) == []
    server.net.run_threads()  # four lookups of the other client were running
    server.net.run_threads()
    assert normal.receive() == [Data(1, SEVEN)]
    while server.net._held:
        server.net.run_threads()
    server.advance(120)
    assert server.idle


@needs_linux
def test_the_addresses_of_one_ipv6_network_share_one_queue(offer):
    server = _folding(offer)
    for number in range(1, 101):
        server.client(f"2001:db8::{number:x}").request(Rrq(b"SEVEN", b"octet"))
    normal = server.client(NORMAL)
    assert normal.request(Rrq(b"SEVEN", b"octet")) == []
    server.net.run_threads()
    server.net.run_threads()
    assert normal.receive() == [Data(1, SEVEN)]
    while server.net._held:
        server.net.run_threads()
    server.advance(120)
    assert server.idle


def test_a_full_queue_drops_the_last_lookup_of_the_client_with_the_most(offer):
    server = _folding(offer, AdmissionLimits(sessions=100, half_open=10))
    for port in range(1, 21):
        server.client(FLOODING, port).request(Rrq(b"SEVEN", b"octet"))
    assert [report.outcome for report in server.reports] == [Outcome.DROPPED] * 10
    normal = [server.client(NORMAL, port) for port in (1, 2)]
    for client in normal:
        client.request(Rrq(b"SEVEN", b"octet"))
    assert len(server.listener._lookups) == 10
    assert {report.peer[0] for report in server.reports} == {FLOODING}
    while server.net._held:
        server.net.run_threads()
    assert [client.receive() for client in normal] == [[Data(1, SEVEN)]] * 2
    server.advance(120)
    assert server.idle


def test_cancelled_lookups_are_removed_from_the_queue(offer):
    server = _folding(offer)
    client = server.client(FLOODING)
    for number in range(1000):
        client.request(Rrq(b"never-%d" % number, b"octet"))
    (root_queue,) = server.listener._lookups._root_queues.values()
    assert sum(map(len, root_queue.pending._queues.values())) <= 1
    assert len(server.net._held) == 4
    while server.net._held:
        server.net.run_threads()
    assert client.receive() == [NOT_FOUND]


class Threads:
    """Thread runner of a disk. While it is `quick`, results are there at once."""

    def __init__(self):
        self.quick = True
        self.waits = []
        self.held = []

    def __call__(self, work, max_wait, renders):
        self.waits.append(max_wait)
        if max_wait and self.quick:
            return maybeDeferred(work)
        done = Deferred()
        self.held.append((work, done))
        return done

    def run(self):
        held, self.held = self.held, []
        for work, done in held:
            done.callback(work())


class Disk:
    """Lookups on one disk, with a clock that a test advances."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        self.threads = Threads()
        self.charged = []
        self.results = []
        self.queue = LookupQueue(self.threads, self.charged.append)
        monkeypatch.setattr("tftpd.server.lookups.monotonic", lambda: self.now)

    def submit(
        self,
        number,
        work=lambda: "found",
        renders=False,
        disk="disk",
        host="192.0.2.7",
        limit=10_000,
    ):
        tid = ((host, number), ("192.0.2.1", 69))
        lookup = Lookup(tid, NEVER, work, self.results.append, self.results.append, renders)
        self.queue.submit(lookup, disk, limit)

    def blocked(self):
        """Return for each lookup that was started whether the reactor blocked for it."""
        waits, self.threads.waits = self.threads.waits, []
        return [wait > 0 for wait in waits]


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def test_the_reactor_blocks_for_a_quick_lookup(disk):
    disk.submit(1)
    assert disk.blocked() == [True]
    assert disk.results == ["found"]
    assert len(disk.queue) == 0


def test_the_reactor_does_not_block_for_a_template(disk):
    disk.submit(1, renders=True)
    assert disk.blocked() == [False]
    disk.threads.run()
    assert disk.results == ["found"]


def test_after_a_slow_lookup_the_reactor_does_not_block_for_40_ms(disk):
    disk.threads.quick = False
    disk.submit(1)
    disk.threads.run()
    disk.now += 0.039
    disk.submit(2)
    disk.threads.run()
    assert disk.blocked() == [True, False]
    disk.now += 0.002
    disk.threads.quick = True
    disk.submit(3)
    assert disk.blocked() == [True]
    assert disk.results == ["found"] * 3


def test_many_slow_disks_block_the_reactor_once(disk):
    disk.threads.quick = False
    for number in range(50):
        disk.submit(number, disk=f"disk {number}")
    assert disk.blocked().count(True) == 1
    disk.threads.run()


def test_a_disk_that_hangs_takes_no_space_from_others(disk):
    disk.threads.quick = False
    for number in range(10):
        disk.submit(number, disk="hung", host=f"192.0.2.{number}", limit=10)
    with pytest.raises(RequestDropped):
        disk.submit(10, disk="hung", host="192.0.2.10", limit=10)
    disk.threads.quick = True
    disk.now += 1.0
    disk.submit(10, host="192.0.2.10", limit=10)
    assert disk.results == ["found"]


def test_the_reactor_blocks_at_most_four_times_per_turn(disk):
    for number in range(100):
        disk.submit(number, renders=number < 4)
    assert disk.blocked() == [False] * 4
    disk.threads.run()
    assert disk.blocked().count(True) == 4 * 4
    assert disk.results == ["found"] * 20


def test_thousands_of_quick_lookups_do_not_recurse(disk, monkeypatch):
    monkeypatch.setattr("tftpd.server.lookups._MAX_BLOCKS_PER_TURN", 10_000)
    for number in range(2000):
        disk.submit(number, renders=number < 4)
    disk.threads.run()
    assert disk.results == ["found"] * 2000


def _not_found():
    raise FileNotFoundError


def test_the_listener_charges_failed_lookups_that_finish_at_once(disk):
    disk.submit(1, _not_found)
    assert disk.charged == []
    disk.submit(2, _not_found, renders=True)
    disk.threads.run()
    assert len(disk.charged) == 1
    assert [type(error) for error in disk.results] == [FileNotFoundError] * 2


@needs_linux
def test_an_error_on_close_of_a_cancelled_lookup_does_not_stop_the_queue(offer, late_errors):
    server = _folding(offer)
    clients = [server.client(port=port) for port in range(1, 6)]
    for client in clients:
        client.request(Rrq(b"SEVEN", b"octet"))
    for client in clients[:4]:  # as many as run at a time
        client.request(Rrq(b"kilo", b"mail"))  # another one, which is refused
    late_errors()
    server.net.run_threads()
    server.net.run_threads()
    assert clients[4].receive() == [Data(1, SEVEN)]


@needs_linux
def test_an_internal_error_in_a_lookup_affects_only_its_request(offer, monkeypatch):
    server = _folding(offer)
    client, other = server.client(port=1), server.client(port=2)
    assert client.request(Rrq(b"SEVEN", b"octet")) == []
    faults = []
    globalLogPublisher.addObserver(faults.append)
    with monkeypatch.context() as patch:
        patch.setattr("tftpd.server.session_factory.resolve_read", lambda *_: 1 // 0)
        server.net.run_threads()
    globalLogPublisher.removeObserver(faults.append)
    assert client.receive() == []
    assert [fault["peer"] for fault in faults] == ["192.0.2.7:1"]
    assert other.request(Rrq(b"seven", b"octet")) == [Data(1, SEVEN)]
    other.send(Ack(1))
    assert server.idle


def test_a_removed_listener_answers_no_pending_request(offer):
    server = _folding(offer)
    client = server.client()
    assert client.request(Rrq(b"SEVEN", b"octet")) == []
    server.listener.cancel_lookups()
    server.net.run_threads()
    assert client.receive() == []
    assert server.idle
