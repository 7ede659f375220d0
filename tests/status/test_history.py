"""Requests that ended are kept in memory, and in a file across restarts."""

import json
import os
import time
from dataclasses import replace

import pytest

from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.snapshot import Snapshot
from tftpd.status.history import MAX_CLIENTS, MAX_ENDED, History
from tftpd.status.json_view import requests_to_json
from tftpd.status.state_file import dump_history, read_state, restore_history, write_state

READ = TransferResult(
    Direction.READ,
    ("10.0.0.7", 2070),
    b"pxelinux.0\xff",
    Outcome.DONE,
    bytes_transferred=3000,
    seconds=0.2,
    mode=Mode.OCTET,
    blksize=1468,
    windowsize=16,
    size=3000,
    blocks=3,
    rtt=0.002,
    options=("blksize", "tsize"),
    served_name=b"\xfe",
    resolution_steps=("case",),
    profile="grub",
)
STORED = TransferResult(Direction.WRITE, ("10.0.0.8", 7), b"sw1.cfg", Outcome.DONE, 100, 1.0)
MISSING = TransferResult(
    Direction.READ, ("10.0.0.9", 1), b"x", Outcome.REFUSED, code=1, detail="No such file"
)
ABORTED = replace(READ, outcome=Outcome.ABORTED, code=0, detail="caf\udce9 \u2014 \\")


def _history(*results, clock=lambda: 100.0):
    history = History(clock)
    for result in results:
        history(result)
    return history


def _read(path):
    return restore_history(read_state(path))


def test_forged_requests_displace_no_client_that_has_answered():
    history = _history(READ)
    for number in range(1000):
        history(replace(MISSING, peer=(f"10.1.{number >> 8}.{number & 255}", 1)))
    assert len(history.clients) == MAX_CLIENTS
    assert READ.peer[0] in history.clients
    assert list(history.clients)[-1] == "10.1.3.231"


def test_the_oldest_client_is_removed_if_all_have_answered():
    history = _history(
        *(replace(READ, peer=(f"10.1.{number >> 8}.{number & 255}", 1)) for number in range(257))
    )
    assert len(history.clients) == MAX_CLIENTS
    assert "10.1.0.0" not in history.clients


def test_a_saved_history_is_read_as_it_was(tmp_path):
    path = tmp_path / "status.json"
    before = _history(READ, STORED, MISSING, ABORTED)
    write_state(path, dump_history(before))
    after = _read(path)
    for value in (before, after):
        value.views = json.loads(json.dumps(requests_to_json(Snapshot(), value)))
        for client in value.views["clients"]:  # times advance meanwhile
            client["idle"] = round(client["idle"])
            for step in client["steps"]:
                step["ago"] = round(step["ago"])
                step["offset"] = round(step["offset"], 1)
    assert after.views == before.views
    after(MISSING)
    assert after.number == 5


def test_times_continue_on_the_clock_of_the_new_process(monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    saved = dump_history(_history(READ, clock=lambda: 1e9))
    for later, idle in ((50, 50), (-3600, 0)):  # the wall clock may be set back
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        (client,) = requests_to_json(Snapshot(), restore_history(saved))["clients"]
        assert round(client["idle"]) == idle


def test_the_file_is_private_and_replaced_as_a_whole(tmp_path):
    path = tmp_path / "status.json"
    for result in (READ, STORED):
        before = path.stat().st_ino if path.exists() else None
        write_state(path, dump_history(_history(result)))
        assert path.stat().st_mode & 0o7777 == 0o600
        assert path.stat().st_ino != before
    assert os.listdir(tmp_path) == ["status.json"]


def test_a_write_follows_no_link_and_waits_for_no_fifo(tmp_path):
    path, other = tmp_path / "status.json", tmp_path / "other"
    other.write_text("untouched")
    for name in (path, tmp_path / ".status.json.new"):
        name.symlink_to(other)
    write_state(path, dump_history(_history(READ)))
    assert other.read_text() == "untouched"
    assert not path.is_symlink()
    os.mkfifo(tmp_path / ".status.json.new")
    write_state(path, dump_history(_history(READ)))
    assert _read(path).number == 1


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "status.json"
    write_state(path, dump_history(_history(READ)))
    (tmp_path / ".status.json.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_state(path, dump_history(_history(STORED)))
    assert _read(path).clients["10.0.0.7"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"format":2}', b"[" * 100_000, b'{"format":1}'],
)
def test_a_file_with_another_content_is_an_error(tmp_path, content):
    path = tmp_path / "status.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        _read(path)


def test_values_of_other_types_are_an_error(tmp_path):
    path = tmp_path / "status.json"
    write_state(path, dump_history(_history(READ)))
    document = json.loads(path.read_text())
    document["clients"]["10.0.0.7"]["steps"][0]["kind"] = "other"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="kind"):
        _read(path)


def test_links_and_special_files_are_not_read(tmp_path):
    path, other = tmp_path / "status.json", tmp_path / "other"
    write_state(other, dump_history(_history(READ)))
    path.symlink_to(other)
    with pytest.raises(OSError, match="symbolic"):
        _read(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not a regular file"):
        _read(path)
    with pytest.raises(ValueError, match="not a regular file"):
        _read("/dev/zero")


def test_the_file_is_bounded(tmp_path):
    """Clients choose names and texts of up to 64 KiB."""
    path = tmp_path / "status.json"
    long = replace(ABORTED, filename=b"\xff" * 65000, detail="x" * 65000)
    history = _history(*[long] * (MAX_ENDED + 50))
    write_state(path, dump_history(history))
    assert path.stat().st_size < 300_000
    assert len(_read(path).restored) == MAX_ENDED
    path.write_bytes(b" " * (33 << 20))
    with pytest.raises(ValueError, match="too large"):
        _read(path)
