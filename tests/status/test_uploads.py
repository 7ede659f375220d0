"""The latest upload of each file by each client."""

import pytest

from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.status.uploads import MAX_UPLOAD_CLIENTS, LastUpload, UploadTable

TIMES = [f"1970-01-01T00:00:0{number}.000+00:00" for number in range(5)]


def _upload(host, name, outcome=Outcome.DONE, **more):
    return TransferResult(Direction.WRITE, (host, 7), name, outcome, **more)


def _table(*results):
    table = UploadTable()
    for number, result in enumerate(results, 1):
        table.add(result, number, float(number))
    return table.clients


def test_the_latest_upload_of_each_file_is_kept():
    table = _table(
        _upload("10.0.0.1", b"sw1.cfg", bytes_transferred=5),
        _upload("10.0.0.2", b"sw2.cfg", bytes_transferred=6),
        _upload("10.0.0.1", b"vlan.dat", bytes_transferred=7),
        _upload("10.0.0.1", b"sw1.cfg", bytes_transferred=8),
    )
    assert table == {
        "10.0.0.2": {"sw2.cfg": LastUpload(2, TIMES[2], 6)},
        "10.0.0.1": {"vlan.dat": LastUpload(3, TIMES[3], 7), "sw1.cfg": LastUpload(4, TIMES[4], 8)},
    }


@pytest.mark.parametrize(
    ("outcome", "detail", "reason"),
    [
        (Outcome.TIMED_OUT, "", "timed out"),
        (Outcome.REFUSED, "the disk is full", "refused: the disk is full"),
        (Outcome.ABORTED, "\n", "aborted by peer: \\n"),
    ],
)
def test_a_failed_attempt_is_shown_with_the_upload_before(outcome, detail, reason):
    table = _table(
        _upload("10.0.0.1", b"sw1.cfg", bytes_transferred=5),
        _upload("10.0.0.1", b"sw1.cfg", outcome, detail=detail),
    )
    assert table == {"10.0.0.1": {"sw1.cfg": LastUpload(2, TIMES[1], 5, TIMES[2], reason)}}


def test_a_stored_file_ends_the_failure():
    table = _table(
        _upload("10.0.0.1", b"a"),
        _upload("10.0.0.1", b"a", Outcome.TIMED_OUT),
        _upload("10.0.0.1", b"a"),
    )
    assert table == {"10.0.0.1": {"a": LastUpload(3, TIMES[3], 0)}}


def test_reads_and_requests_that_store_nothing_add_no_entry():
    assert not _table(
        TransferResult(Direction.READ, ("10.0.0.1", 1), b"a", Outcome.DONE),
        _upload("10.0.0.1", b"a", Outcome.REFUSED),
        _upload("10.0.0.1", b"b", Outcome.TIMED_OUT),
    )


def test_the_number_of_entries_is_bounded_and_the_most_recent_stay():
    table = _table(*(_upload("10.0.0.1", b"%d" % number) for number in range(10)))
    assert list(table["10.0.0.1"]) == [str(number) for number in range(2, 10)]
    hosts = [f"10.{n // 256}.{n % 256}.1" for n in range(MAX_UPLOAD_CLIENTS)]
    table = _table(*(_upload(host, b"a") for host in [*hosts, hosts[0], "192.0.2.1"]))
    assert len(table) == MAX_UPLOAD_CLIENTS
    assert hosts[1] not in table
    assert {hosts[0], "192.0.2.1"} < set(table)


def test_a_failed_attempt_removes_no_other_device():
    """Requests may be forged; only a stored file counts."""
    stored = _upload("10.0.0.1", b"a")
    forged = [_upload(f"10.1.{n // 256}.{n % 256}", b"a", Outcome.EVICTED) for n in range(3000)]
    assert list(_table(stored, *forged)) == ["10.0.0.1"]


def test_the_hash_of_a_stored_file_is_kept():
    table = _table(_upload("10.0.0.1", b"sw1.cfg", sha256="ab" * 32))
    assert table["10.0.0.1"]["sw1.cfg"].sha256 == "ab" * 32
