"""Limits of connections: number, time, and the end of a server, in memory."""

import pytest

from tests.http.conftest import BIG
from tests.http.memory import MemoryHttp
from tftpd.protocol.result import Outcome
from tftpd.server.snapshot import SessionState


def test_slow_headers_end_the_connection(http):
    connected = http.connect()
    for byte in b"GET /seven HT":
        connected.send(bytes([byte]))
        http.advance(1)
    assert connected.is_lost
    assert http.reports == []


def test_a_connection_without_a_request_ends(http):
    connected = http.connect()
    http.advance(9)
    assert not connected.is_lost
    http.advance(3)
    assert connected.is_lost


def test_a_kept_connection_ends_after_a_minute(http):
    connected = http.connect()
    connected.request("/seven")
    http.advance(59)
    connected.request("/seven")
    assert len(connected.responses()) == 2
    http.advance(55)
    assert not connected.transport.disconnecting
    http.advance(10)
    assert connected.transport.disconnecting
    http.advance(61)  # the client does not read its last response
    assert connected.is_lost


def test_slow_headers_of_a_second_request_end_the_connection(http):
    connected = http.connect()
    connected.request("/seven")
    http.advance(50)
    connected.send(b"GET")
    http.advance(9)
    assert not connected.is_lost
    http.advance(3)
    assert connected.is_lost


@pytest.fixture
def small(make_config):
    server = MemoryHttp(make_config, {"limits": {"connections": 4}})
    yield server
    server.stop()


def test_the_idle_connection_of_the_client_with_most_is_closed(small):
    flood = [small.connect(port=number) for number in range(4)]
    small.advance(0.5)
    other = small.connect("192.0.2.8")
    assert [each.is_lost for each in flood] == [True, False, False, False]
    assert other is not None
    again = small.connect("192.0.2.9")
    assert [each.is_lost for each in flood] == [True, True, False, False]
    assert not other.is_lost
    assert again is not None


def test_a_thousand_open_headers_leave_a_place(small):
    for number in range(1000):
        connected = small.connect(f"10.{number >> 8}.{number & 255}.1")
        connected.send(b"GET /seven HTTP/1.1\r\nHost:")
        assert len(small.server._connections) <= 4
    assert small.get("/seven", host="192.0.2.9").status == 200


def test_a_client_with_all_connections_loses_one_to_another(small):
    flood = [small.connect(port=number) for number in range(4)]
    for each in flood:
        each.request("/big")
        each.connection.pauseProducing()
    assert small.connect(port=9) is None
    other = small.connect("192.0.2.8")
    assert other is not None
    assert sum(each.is_lost for each in flood) == 1
    assert [report.outcome for report in small.reports] == [Outcome.EVICTED]


def test_workers_share_the_connections(make_config):
    http = MemoryHttp(make_config, {"limits": {"connections": 5}, "workers": 2})
    connected = [http.connect(port=number) for number in range(4)]
    assert [each.is_lost for each in connected] == [True, False, False, False]
    http.stop()


def test_draining_waits_for_the_last_response(http):
    idle, busy = http.connect(port=1), http.connect(port=2)
    busy.request("/big")
    done = []
    http.server.drain().addCallback(done.append)
    assert len(http.drained) == 1
    assert idle.transport.disconnecting
    idle.lose()
    assert not done
    http.advance(1)
    assert busy.responses()[0].body == BIG
    assert busy.transport.disconnecting
    busy.lose()
    assert done == [None]


def test_a_removed_address_closes_its_connections(http):
    idle, busy = http.connect(port=1), http.connect(port=2)
    busy.request("/big")
    http.server.serve(http.config, http.settings, [])
    assert http.drained == [http.drained[0]]
    assert idle.transport.disconnecting
    http.advance(1)
    assert busy.transport.disconnecting
    idle.lose()
    busy.lose()


def test_stopping_ends_all_connections(http):
    idle, busy = http.connect(port=1), http.connect(port=2)
    busy.request("/big")
    http.server.stop()
    assert (idle.is_lost, busy.is_lost) == (True, True)
    (report,) = http.reports
    assert report.outcome is Outcome.STOPPED


def test_the_snapshot_has_running_transfers(http):
    connected = http.connect()
    connected.request("/big")
    connected.connection.pauseProducing()
    snapshot = http.server.snapshot()
    (session,) = snapshot.running
    assert (session.filename, session.size, session.state) == (
        b"big",
        len(BIG),
        SessionState.RUNNING,
    )
    assert 0 < session.bytes_transferred < len(BIG)
    assert (http.server.transfers, snapshot.http_connections) == (1, 1)
    connected.lose()
    assert http.server.transfers == 0


def test_a_reload_applies_to_later_requests(http, make_config):
    from dataclasses import replace

    from tftpd.access.mounts import Mounts

    connected = http.connect()
    http.config = replace(http.config, mounts=Mounts([]))
    http.serve()
    connected.request("/seven")
    assert connected.responses()[0].status == 403
    connected.lose()
