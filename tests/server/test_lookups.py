"""Requests whose files take time, and those beside them that do not.

A name that nobody ever asked for is not in the kernel's memory: whether it is
there is for a thread to find out. `hold_threads` is a disk that takes its time.
"""

from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import globalLogPublisher

from tests.support.fakes import SERVER, MemoryServer
from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.mounts import Mounts
from tftpd.access.rewrite import NameRules
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.server.admission import AdmissionLimits, DropCounters, DropReason
from tftpd.server.lookups import Lookup, LookupQueue

SEVEN = b"1234567"
NEVER = Rrq(b"never", b"octet")
NOT_FOUND = ErrorPacket(1, "File not found")


def _folding(offer, admission=None):
    """A server that finds SEVEN by the case of its letters, which takes time."""
    naming = NameRules(fallbacks=FallbackChain((Fallback.CASE,)))

    def build(report):
        built = offer(report)
        return replace(
            built,
            mounts=Mounts(built.mounts, naming),
            admission=admission or AdmissionLimits(sessions=100),
        )

    server = MemoryServer(build, discards=DropCounters())
    server.net.hold_threads = True
    return server


def test_nobody_waits_for_the_file_of_another(offer):
    server = _folding(offer)
    assert server.client(port=1).asks(Rrq(b"SEVEN", b"octet")) == []
    other = server.client(port=2)
    assert other.asks(Rrq(b"seven", b"octet")) == [Data(1, SEVEN)]
    other.says(Ack(1))
    server.net.run_threads()
    server.waits(60)
    assert server.idle


def test_a_file_that_took_its_time_is_sent_then(offer):
    server = _folding(offer)
    client = server.client()
    assert client.asks(Rrq(b"SEVEN", b"octet")) == []
    server.waits(0.5)
    server.net.run_threads()
    assert client.hears() == [Data(1, SEVEN)]
    client.says(Ack(1))
    (report,) = server.reports
    assert (report.outcome, report.served_name, report.resolution_steps) == (
        Outcome.DONE,
        b"seven",
        ("case",),
    )
    assert report.seconds == pytest.approx(0.5)
    assert server.idle


def test_a_request_that_is_repeated_meanwhile_is_answered_once(offer):
    server = _folding(offer)
    client = server.client()
    for _ in range(5):
        assert client.asks(Rrq(b"SEVEN", b"octet")) == []
    server.net.run_threads()
    assert client.hears() == [Data(1, SEVEN)]
    client.says(Ack(1))
    server.net.run_threads()
    assert client.hears() == []
    assert len(server.reports) == 1
    assert server.listener._discards.take()[DropReason.REPEATED] == 4
    assert server.idle


def test_what_is_not_there_is_refused_once_that_is_known(offer):
    server = _folding(offer)
    client = server.client()
    assert client.asks(NEVER) == []
    assert client.asks(NEVER) == []
    server.net.run_threads()
    assert client.hears() == [NOT_FOUND]
    assert [report.outcome for report in server.reports] == [Outcome.REFUSED]


def test_a_refusal_that_took_its_time_comes_from_the_address_that_was_asked(offer):
    server = _folding(offer)
    server.port.local = ("192.0.2.2", 0)
    client = server.client()
    client.asks(NEVER)
    server.port.local = (SERVER, 0)
    server.client(port=1).asks(Rrq(b"seven", b"octet"))
    server.net.run_threads()
    assert [source[0] for source, peer, _ in server.net.sent if peer == client.address] == [
        "192.0.2.2"
    ]


def test_another_request_from_the_same_port_takes_the_place_of_the_first(offer):
    server = _folding(offer)
    client = server.client()
    assert client.asks(Rrq(b"KILO", b"octet")) == []
    assert client.asks(Rrq(b"SEVEN", b"octet")) == []
    server.net.run_threads()
    assert client.hears() == [Data(1, SEVEN)]
    client.says(Ack(1))
    assert server.idle


def test_what_nobody_waits_for_any_more_is_closed(offer, root):
    server = _folding(offer)
    client = server.client()
    client.asks(Rrq(b"SEVEN", b"octet"))
    client.asks(Wrq(b"in/new", b"octet"))
    server.listener.leave()
    server.net.run_threads()
    assert client.hears() in ([], [Ack(0)])
    server.waits(120)
    assert server.idle
    assert list((root / "in").iterdir()) == []


def test_those_that_hang_on_one_disk_take_turns(offer):
    server = _folding(offer)
    clients = [server.client(port=port) for port in range(1, 10)]
    for client in clients:
        client.asks(Rrq(b"SEVEN", b"octet"))
    heard = []
    while server.net._held:
        assert len(server.net._held) <= 4
        server.net.run_threads()
        heard.append(sum(client.hears() == [Data(1, SEVEN)] for client in clients))
    assert sum(heard) == len(clients)
    for client in clients:
        client.says(Ack(1))
    assert server.idle


def test_no_more_wait_than_may_be_half_open(offer):
    server = _folding(offer, AdmissionLimits(sessions=100, half_open=3))
    for port in range(1, 6):
        server.client(port=port).asks(Rrq(b"SEVEN", b"octet"))
    assert [report.outcome for report in server.reports] == [Outcome.DROPPED] * 2
    server.net.run_threads()
    server.waits(120)
    assert server.idle


def test_the_share_of_a_client_counts_when_its_files_are_there(offer):
    server = _folding(offer, AdmissionLimits(sessions=100, sessions_per_client=2))
    clients = [server.client(port=port) for port in range(1, 5)]
    for client in clients:
        assert client.asks(Rrq(b"SEVEN", b"octet")) == []
    server.net.run_threads()
    answers = [type(packet) for client in clients for packet in client.hears()]
    assert answers.count(Data) == 2
    assert answers.count(ErrorPacket) == 2
    server.waits(120)
    assert server.idle


def test_what_threads_did_in_vain_is_told(offer):
    spent = []
    server = _folding(offer)
    server.listener._waiting._spend = spent.append
    server.client(port=1).asks(NEVER)
    client = server.client(port=2)
    client.asks(Rrq(b"SEVEN", b"octet"))
    assert spent == []
    server.net.run_threads()
    client.says(Ack(1))
    assert len(spent) == 1
    assert 0 < spent[0] < 1


GREEDY, HONEST = "198.51.100.66", "192.0.2.7"


def test_clients_take_turns(offer):
    """Who asks for a hundred files at once waits for them; the others do not."""
    server = _folding(offer)
    for port in range(1, 101):
        server.client(GREEDY, port).asks(Rrq(b"SEVEN", b"octet"))
    honest = server.client(HONEST)
    assert honest.asks(Rrq(b"SEVEN", b"octet")) == []
    server.net.run_threads()  # four of the others were at work
    server.net.run_threads()
    assert honest.hears() == [Data(1, SEVEN)]
    while server.net._held:
        server.net.run_threads()
    server.waits(120)
    assert server.idle


def test_a_host_of_ipv6_has_one_turn_whatever_its_address(offer):
    server = _folding(offer)
    for number in range(1, 101):
        server.client(f"2001:db8::{number:x}").asks(Rrq(b"SEVEN", b"octet"))
    honest = server.client(HONEST)
    assert honest.asks(Rrq(b"SEVEN", b"octet")) == []
    server.net.run_threads()
    server.net.run_threads()
    assert honest.hears() == [Data(1, SEVEN)]
    while server.net._held:
        server.net.run_threads()
    server.waits(120)
    assert server.idle


def test_where_no_more_may_wait_the_client_with_the_most_gives_way(offer):
    server = _folding(offer, AdmissionLimits(sessions=100, half_open=10))
    for port in range(1, 21):
        server.client(GREEDY, port).asks(Rrq(b"SEVEN", b"octet"))
    assert [report.outcome for report in server.reports] == [Outcome.DROPPED] * 10
    honest = [server.client(HONEST, port) for port in (1, 2)]
    for client in honest:
        client.asks(Rrq(b"SEVEN", b"octet"))
    assert len(server.listener._waiting) == 10
    assert {report.peer[0] for report in server.reports} == {GREEDY}
    while server.net._held:
        server.net.run_threads()
    assert [client.hears() for client in honest] == [[Data(1, SEVEN)]] * 2
    server.waits(120)
    assert server.idle


def test_who_changes_its_mind_again_and_again_leaves_nothing_in_the_lane(offer):
    server = _folding(offer)
    client = server.client(GREEDY)
    for number in range(1000):
        client.asks(Rrq(b"never-%d" % number, b"octet"))
    (lane,) = server.listener._waiting._lanes.values()
    assert sum(map(len, lane._queues.values())) <= 1
    assert len(server.net._held) == 4
    while server.net._held:
        server.net.run_threads()
    assert client.hears() == [NOT_FOUND]


class Threads:
    """What a disk does with its moments: all is there at once, while it is `quick`."""

    def __init__(self):
        self.quick = True
        self.moments = []
        self.held = []

    def __call__(self, work, moment):
        self.moments.append(moment)
        if moment and self.quick:
            return maybeDeferred(work)
        done = Deferred()
        self.held.append((work, done))
        return done

    def run(self):
        held, self.held = self.held, []
        for work, done in held:
            done.callback(work())


class Disk:
    """Errands for one disk, by a clock that a test moves."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        self.threads = Threads()
        self.spent = []
        self.heard = []
        self.waiting = LookupQueue(self.threads, self.spent.append)
        monkeypatch.setattr("tftpd.server.lookups.monotonic", lambda: self.now)

    def asks(self, number, work=lambda: "found", quick=True, disk="disk"):
        errand = Lookup(NEVER, work, self.heard.append, self.heard.append, quick)
        tid = (("192.0.2.7", number), ("192.0.2.1", 69))
        self.waiting.submit(tid, errand, disk, 10_000)

    def moments(self):
        """Whether there was one for each that was begun."""
        told, self.threads.moments = self.threads.moments, []
        return [moment > 0 for moment in told]


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def test_what_is_quick_is_given_a_moment(disk):
    disk.asks(1)
    assert disk.moments() == [True]
    assert disk.heard == ["found"]
    assert len(disk.waiting) == 0


def test_what_is_made_first_is_not(disk):
    disk.asks(1, quick=False)
    assert disk.moments() == [False]
    disk.threads.run()
    assert disk.heard == ["found"]


def test_after_a_disk_that_took_longer_none_is_waited_for_for_some_time(disk):
    disk.threads.quick = False
    disk.asks(1)
    disk.threads.run()
    disk.now += 0.039
    disk.asks(2)
    disk.threads.run()
    assert disk.moments() == [True, False]
    disk.now += 0.002
    disk.threads.quick = True
    disk.asks(3)
    assert disk.moments() == [True]
    assert disk.heard == ["found"] * 3


def test_however_many_disks_are_slow_a_twentieth_of_the_time_is_lost(disk):
    disk.threads.quick = False
    for number in range(50):
        disk.asks(number, disk=f"disk {number}")
    assert disk.moments().count(True) == 1
    disk.threads.run()


def test_few_moments_are_given_at_a_time(disk):
    for number in range(100):
        disk.asks(number, quick=number >= 4)
    assert disk.moments() == [False] * 4
    disk.threads.run()
    assert disk.moments().count(True) == 4 * 4
    assert disk.heard == ["found"] * 20


def test_a_thousand_that_are_done_at_once_are_done_one_after_another(disk, monkeypatch):
    monkeypatch.setattr("tftpd.server.lookups._MOMENTS", 10_000)
    for number in range(2000):
        disk.asks(number, quick=number >= 4)
    disk.threads.run()
    assert disk.heard == ["found"] * 2000


def _in_vain():
    raise FileNotFoundError


def test_what_was_done_at_once_in_vain_is_told_by_who_asked(disk):
    disk.asks(1, _in_vain)
    assert disk.spent == []
    disk.asks(2, _in_vain, quick=False)
    disk.threads.run()
    assert len(disk.spent) == 1
    assert [type(error) for error in disk.heard] == [FileNotFoundError] * 2


def test_a_file_that_tells_an_error_when_it_is_let_go_of_holds_up_nobody(offer, late_errors):
    server = _folding(offer)
    clients = [server.client(port=port) for port in range(1, 6)]
    for client in clients:
        client.asks(Rrq(b"SEVEN", b"octet"))
    for client in clients[:4]:  # as many as are worked for at a time
        client.asks(Rrq(b"kilo", b"mail"))  # another one, which is refused
    late_errors()
    server.net.run_threads()
    server.net.run_threads()
    assert clients[4].hears() == [Data(1, SEVEN)]


def test_a_fault_in_a_thread_costs_its_request_alone(offer, monkeypatch):
    server = _folding(offer)
    client, other = server.client(port=1), server.client(port=2)
    assert client.asks(Rrq(b"SEVEN", b"octet")) == []
    faults = []
    globalLogPublisher.addObserver(faults.append)
    with monkeypatch.context() as patch:
        patch.setattr("tftpd.server.session_factory.resolve_read", lambda *_: 1 // 0)
        server.net.run_threads()
    globalLogPublisher.removeObserver(faults.append)
    assert client.hears() == []
    assert [fault["peer"] for fault in faults] == [client.address]
    assert other.asks(Rrq(b"seven", b"octet")) == [Data(1, SEVEN)]
    other.says(Ack(1))
    assert server.idle


def test_a_listener_that_goes_answers_nobody_who_waits(offer):
    server = _folding(offer)
    client = server.client()
    assert client.asks(Rrq(b"SEVEN", b"octet")) == []
    server.listener.leave()
    server.net.run_threads()
    assert client.hears() == []
    assert server.idle
