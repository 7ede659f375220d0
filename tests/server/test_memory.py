"""The memory budget of windows and rendered files."""

import gc
from dataclasses import replace
from itertools import count

import pytest

from tests.support.fakes import MemoryServer
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import ReadPolicy
from tftpd.net.receive_session import MAX_BUFFER_BYTES
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.server.admission import AdmissionLimits
from tftpd.server.memory import MemoryBudget

LARGEST = ((b"blksize", b"65464"), (b"windowsize", b"64"))
MIB = 1 << 20


@pytest.fixture
def big_server(offer, root):
    """Server with a file of 16 MiB and a budget of 32 MiB."""
    (root / "big").write_bytes(bytes(16 * MIB))
    limits = AdmissionLimits(sessions=1000)
    server = MemoryServer(lambda report: replace(offer(report), admission=limits))
    server.sessions.memory.limit = 32 * MIB
    yield server
    server.advance(600)
    assert server.idle
    memory = server.sessions.memory
    assert (memory.reserved, memory.confirmed, memory.rendered) == (0, 0, 0)


def _windowsize(reply):
    [oack] = reply
    return int(dict(oack.options)[b"windowsize"])


def test_windows_become_smaller_as_memory_is_used(big_server):
    sizes = [
        _windowsize(big_server.client(port=port).request(Rrq(b"big", b"octet", LARGEST)))
        for port in range(1001, 1101)
    ]
    assert sizes[0] == 32  # 2 MiB, a sixteenth of the budget
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


def test_uploads_get_smaller_windows_too(big_server):
    big_server.sessions.memory.reserved += 31 * MIB
    options = (*LARGEST, (b"tsize", b"100"))
    assert _windowsize(big_server.client().request(Wrq(b"in/new", b"octet", options))) == 1
    big_server.sessions.memory.reserved -= 31 * MIB


def test_the_buffer_of_an_upload_for_the_data_plane_counts(big_server):
    big_server.client().request(Wrq(b"in/new", b"octet"))
    assert MAX_BUFFER_BYTES < big_server.sessions.memory.reserved < MAX_BUFFER_BYTES + 2048


def test_half_open_sessions_deny_no_request(big_server):
    for port in range(1001, 1301):
        big_server.client(port=port).request(Rrq(b"big", b"octet", LARGEST))
    memory = big_server.sessions.memory
    assert memory.reserved > memory.limit
    assert memory.confirmed == 0
    assert big_server.client(port=400).request(Rrq(b"seven", b"octet")) == [Data(1, b"1234567")]


def test_requests_are_dropped_while_confirmed_sessions_use_all_memory(big_server):
    clients = []
    for port in range(1001, 1400):
        client = big_server.client(port=port)
        if not client.request(Rrq(b"big", b"octet", LARGEST)):
            break
        client.send(Ack(0))
        clients.append(client)
    assert 1020 < port < 1399
    assert big_server.reports[-1].outcome is Outcome.DROPPED
    assert big_server.reports[-1].detail == "memory limit reached (33554432 bytes)"
    for client in clients[:5]:
        client.send(ErrorPacket(0, "enough"))
    assert isinstance(client.request(Rrq(b"big", b"octet", LARGEST))[0], Oack)


def test_small_files_use_little_of_the_budget(big_server):
    big_server.client().request(Rrq(b"seven", b"octet", LARGEST))
    assert 0 < big_server.sessions.memory.reserved < 70_000


def test_equal_rendered_files_are_kept_once(offer, root):
    (root / "hello.j2").write_text("")
    memory = MemoryBudget()

    def build(report):
        mounts = Mounts([Mount((), (Root(root),), read=ReadPolicy(templates=True))])
        return replace(offer(report), mounts=mounts, render=lambda *_: memory.share(bytes(MIB)))

    server = MemoryServer(build)
    for port in range(1, 11):
        assert server.client(port=port).request(Rrq(b"hello", b"octet")) == [Data(1, bytes(512))]
    assert memory.rendered == MIB
    server.advance(600)
    assert server.idle
    gc.collect()
    assert memory.rendered == 0


@pytest.fixture
def rendering_server(offer, root):
    """Server that renders a file of 1 MiB for each request, with a budget of 8 MiB."""
    (root / "hello.j2").write_text("")
    memory = MemoryBudget()
    memory.limit = 8 * MIB
    numbers = count()

    def build(report):
        mounts = Mounts([Mount((), (Root(root),), read=ReadPolicy(templates=True))])
        return replace(
            offer(report),
            mounts=mounts,
            admission=AdmissionLimits(sessions=1000),
            render=lambda *_: memory.share(b"%d" % next(numbers) + bytes(MIB)),
        )

    server = MemoryServer(build)
    server.sessions.memory = memory
    yield server
    server.advance(600)
    assert server.idle
    gc.collect()
    assert memory.rendered == memory.confirmed_rendered == memory.confirmed == 0


def test_rendered_files_of_half_open_sessions_deny_no_request(rendering_server):
    memory = rendering_server.sessions.memory
    for port in range(1, 101):
        client = rendering_server.client(f"198.51.100.{port}")
        assert isinstance(client.request(Rrq(b"hello", b"octet"))[0], Data)
        assert memory.rendered <= memory.limit + 2 * MIB
    assert not memory.is_full
    other = rendering_server.client("192.0.2.77")
    assert other.request(Rrq(b"seven", b"octet")) == [Data(1, b"1234567")]
    assert isinstance(client.send(Ack(1))[0], Data)  # the newest one is still there
    assert {report.outcome for report in rendering_server.reports} == {Outcome.EVICTED}


def test_a_rendered_file_is_freed_with_its_session(rendering_server):
    memory = rendering_server.sessions.memory
    gc.disable()
    try:
        for port in range(1, 20):
            client = rendering_server.client(f"198.51.100.{port}")
            client.request(Rrq(b"hello", b"octet"))
        assert memory.rendered <= memory.limit + 2 * MIB
    finally:
        gc.enable()


def test_rendered_files_count_when_their_clients_have_answered(rendering_server):
    memory = rendering_server.sessions.memory
    free = memory.limit_window(OptionLimits()).window_bytes
    for port in range(1, 20):
        client = rendering_server.client(port=port)
        if not client.request(Rrq(b"hello", b"octet")):
            break
        client.send(Ack(1))
    assert port == 9
    assert rendering_server.reports[-1].detail == "memory limit reached (8388608 bytes)"
    assert memory.limit_window(OptionLimits()).window_bytes < free


def test_a_client_that_holds_all_memory_loses_a_session_to_a_client_that_answers(big_server):
    clients = []
    for port in range(1001, 1400):
        client = big_server.client(port=port)
        if not client.request(Rrq(b"big", b"octet", LARGEST)):
            break
        client.send(Ack(0))
        clients.append(client)
    other = big_server.client("192.0.2.77")
    assert other.request(Rrq(b"big", b"octet")) == [Data(1, bytes(512))]
    assert big_server.sessions.evicted == 0  # its address may be forged
    assert other.send(Ack(1)) == [Data(2, bytes(512))]
    assert big_server.sessions.evicted == 1
    assert clients[0].send(Ack(1)) == []  # it had the largest window
    assert not big_server.sessions.memory.is_full


def test_many_clients_that_hold_all_memory_leave_a_share_to_another_client(big_server):
    for number in range(1, 200):
        client = big_server.client(f"198.51.100.{number}")
        if client.request(Rrq(b"big", b"octet", LARGEST)):
            client.send(Ack(0))
    other = big_server.client("192.0.2.77")
    for port in range(3):
        other = big_server.client("192.0.2.77", port + 1)
        assert other.request(Rrq(b"big", b"octet")) == [Data(1, bytes(512))]
        assert other.send(Ack(1)) == [Data(2, bytes(512))]
    memory = big_server.sessions.memory
    assert memory.confirmed < memory.limit + MIB


def test_at_the_limit_of_memory_a_slow_session_ends_for_another_client(big_server):
    for port in range(1001, 1400):
        client = big_server.client(port=port)
        if not client.request(Rrq(b"big", b"octet", LARGEST)):
            break
        client.send(Ack(0))
    big_server.advance(1.5)
    assert big_server.client(port=2000).request(Rrq(b"seven", b"octet")) == []
    other = big_server.client("192.0.2.77")
    assert other.request(Rrq(b"seven", b"octet")) == [Data(1, b"1234567")]
    assert big_server.sessions.evicted == 1


def test_forged_requests_do_not_make_a_client_the_one_that_holds_most_memory(big_server):
    for port in range(1001, 1400):
        client = big_server.client("198.51.100.1", port=port)
        if not client.request(Rrq(b"big", b"octet", LARGEST)):
            break
        client.send(Ack(0))
    for port in range(1001, 1401):
        big_server.client(port=port).request(Rrq(b"big", b"octet", LARGEST))
    victim = big_server.client(port=2070)
    assert victim.request(Rrq(b"big", b"octet")) == [Data(1, bytes(512))]
    assert victim.send(Ack(1)) == [Data(2, bytes(512))]
    other = big_server.client("192.0.2.77")
    other.request(Rrq(b"big", b"octet"))
    assert other.send(Ack(1)) == [Data(2, bytes(512))]
    assert victim.send(Ack(2)) == [Data(3, bytes(512))]
