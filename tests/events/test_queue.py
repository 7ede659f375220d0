"""The queue of events on disk."""

import sqlite3

import pytest

from tftpd.events.queue import EventQueue, QueueError


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "events.sqlite3")


def _rows(*identities, hook="a"):
    return [(identity, hook, "read_done", f'{{"id": "{identity}"}}') for identity in identities]


def _take_all(queue, hook="a", now=0.0):
    return [entry.body for entry in iter(lambda: queue.take(hook, now), None)]


def test_entries_are_taken_in_their_order_by_hook(path):
    queue = EventQueue(path, 10)
    queue.add([*_rows("1", "2"), *_rows("1", hook="b"), *_rows("3")])
    assert _take_all(queue) == ['{"id": "1"}', '{"id": "2"}', '{"id": "3"}']
    assert len(_take_all(queue, "b")) == 1
    assert (len(queue), queue.next_due("a")) == (4, None)


def test_an_entry_that_was_taken_is_there_after_a_crash(path):
    queue = EventQueue(path, 10)
    queue.add(_rows("1", "2"))
    queue.remove(queue.take("a", 0))
    assert queue.take("a", 0).attempts == 0
    queue.close()
    assert _take_all(EventQueue(path, 10)) == ['{"id": "2"}']


def test_an_entry_that_failed_waits_for_its_time_and_the_others_do_not(path):
    queue = EventQueue(path, 10)
    queue.add(_rows("1", "2"))
    queue.postpone(queue.take("a", 0), due=5.0)
    assert _take_all(queue) == ['{"id": "2"}']
    assert queue.next_due("a") == 5.0
    assert queue.take("a", 4.9) is None
    assert queue.take("a", 5.0).attempts == 1


def test_the_queue_of_a_hook_is_bounded_and_an_event_is_in_it_once():
    queue = EventQueue(None, 3)
    assert queue.add(_rows("1", "1", "2")) == []
    assert queue.add(_rows("1", "3", "4", "5")) == ["read_done", "read_done"]
    assert queue.add(_rows("4", hook="b")) == []
    queue.remove(queue.take("a", 0))
    assert queue.add(_rows("6")) == []
    assert dict(queue.sizes) == {"a": 3, "b": 1}


def test_old_entries_are_removed(path, monkeypatch):
    queue = EventQueue(path, 10)
    monkeypatch.setattr("time.time", lambda: 100.0)
    queue.add(_rows("1", "2"))
    monkeypatch.setattr("time.time", lambda: 200.0)
    queue.add(_rows("3"))
    taken = queue.take("a", 0)
    assert queue.remove_older(150.0) == ["read_done"]
    assert (taken.created, len(queue)) == (100.0, 2)


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_an_unusable_file_is_kept_beside_a_new_queue(path, tmp_path, content):
    if content is None:
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version = 99")
        database.close()
    else:
        (tmp_path / "events.sqlite3").write_bytes(content)
    queue = EventQueue(path, 10)
    assert path in queue.problem
    queue.add(_rows("1"))
    queue.close()
    assert len(EventQueue(path, 10)) == 1
    assert (tmp_path / "events.sqlite3.broken").exists()


def test_without_its_directory_the_queue_is_in_memory(tmp_path):
    queue = EventQueue(str(tmp_path / "absent/events.sqlite3"), 10)
    assert "unable to open" in queue.problem
    queue.add(_rows("1"))
    assert len(queue) == 1


def test_a_fault_of_the_disk_adds_nothing(path):
    queue = EventQueue(path, 10)
    queue.add(_rows("1"))
    queue._database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(QueueError):
        queue.add(_rows(*(f"{number}{'x' * 4000}" for number in range(9))))
    assert dict(queue.sizes) == {"a": 1}
