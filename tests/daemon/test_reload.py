"""SIGHUP applies all of a new configuration, or none of it."""

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.support.daemons import answers, daemon, free_port, until
from tests.support.plain import ServerError, get, put, received_after, request

WORKERS = pytest.mark.parametrize("workers", [1, 2])


def serving(root, **more):
    return [{"path": "/", "root": str(root), "read": True, **more}]


@pytest.fixture
def other(tmp_path):
    """Return a second root with another file."""
    root = tmp_path / "other"
    root.mkdir()
    (root / "file").write_bytes(b"new")
    return root


def start_transfer(port, *options):
    """Start a read; return the socket and the server's address after the first packet."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(20)
    sock.sendto(request(1, b"file", options), ("127.0.0.1", port))
    _, tid = sock.recvfrom(2000)
    return sock, tid


@pytest.mark.check
@WORKERS
def test_a_reload_changes_directories_and_running_transfers_continue(tmp_path, other, workers):
    with daemon(tmp_path, workers=workers) as running:
        (running.root / "file").write_bytes(b"o" * 700)
        sock, tid = start_transfer(running.port)
        running.change(directories=serving(other))
        running.reload()
        until(lambda: get(running.port, b"file") == b"new")
        with sock:
            sock.sendto(b"\0\4\0\1", tid)
            assert received_after(sock, b"\0\3\0\1") == (b"\0\3\0\2" + b"o" * 188, tid)
            sock.sendto(b"\0\4\0\2", tid)
        until(lambda: not stored(running.port, b"x", b"y"))  # workers reload one after the other


@pytest.mark.check
@WORKERS
def test_an_invalid_file_keeps_the_old_settings_and_logs_every_problem(tmp_path, workers):
    with daemon(tmp_path, workers=workers) as running:
        (running.root / "file").write_bytes(b"old")
        running.change(limits={"blksize": 1, "sessions": 0}, surprise=True)
        messages = running.reload("surprise")  # the last problem of the file
        assert len([line for line in messages if "not reloaded" in line]) == 3
        assert any("limits.blksize" in line for line in messages)
        assert get(running.port, b"file") == b"old"


@pytest.mark.check
@WORKERS
def test_a_reload_adds_and_removes_listeners_and_keeps_other_sockets(tmp_path, workers):
    first, second = free_port(), free_port()
    with daemon(tmp_path, workers=workers) as running:
        (running.root / "file").write_bytes(b"x")
        stays = {"address": "127.0.0.1", "port": running.port}
        inodes = sockets(running.port)
        running.change(listen=[stays, {"address": "127.0.0.1", "port": first}])
        running.reload()
        until(lambda: answers(first))
        assert get(running.port, b"file") == b"x"
        running.change(listen=[stays, {"address": "127.0.0.1", "port": second}])
        running.reload()
        until(lambda: answers(second) and not answers(first))
        assert sockets(running.port) == inodes


def sockets(port):
    """Return the inodes of the sockets that are bound to the port."""
    with open("/proc/net/udp") as table:
        return {line.split()[9] for line in table if f":{port:04X} 00000000:0000" in line}


def test_a_reload_may_replace_one_address_by_all_addresses(tmp_path):
    with daemon(tmp_path) as running:
        (running.root / "file").write_bytes(b"x")
        running.change(listen=[{"address": "0.0.0.0", "port": running.port}])
        running.reload()
        assert get(running.port, b"file") == b"x"
        running.change(listen=[{"address": "127.0.0.1", "port": running.port}])
        running.reload()
        assert get(running.port, b"file") == b"x"


def test_an_address_that_cannot_be_bound_fails_the_reload(tmp_path, other):
    with daemon(tmp_path) as running, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        (running.root / "file").write_bytes(b"old")
        taken.bind(("127.0.0.1", 0))
        stays = {"address": "127.0.0.1", "port": running.port}
        lost = {"address": "127.0.0.1", "port": taken.getsockname()[1]}
        running.change(listen=[stays, lost], directories=serving(other))
        (message,) = running.reload("not reloaded")
        assert "the port is in use by another program" in message
        assert get(running.port, b"file") == b"old"


def test_changed_keys_that_need_a_restart_are_logged(tmp_path, other):
    with daemon(tmp_path) as running:
        running.change(workers=3, log={"format": "text"}, directories=serving(other))
        messages = running.reload()
        assert "workers has changed: restart the daemon to apply it" in messages
        assert "log has changed: restart the daemon to apply it" in messages
        assert get(running.port, b"file") == b"new"


@pytest.mark.check
@WORKERS
def test_a_reload_that_hangs_delays_no_request(tmp_path, other, workers):
    """A FIFO takes the place of a file system that does not answer."""
    with daemon(tmp_path, workers=workers) as running:
        (running.root / "file").write_bytes(b"old")
        running.change(directories=serving(other))
        valid = running.config.read_bytes()
        running.config.unlink()
        os.mkfifo(running.config)
        with open(os.open(running.config, os.O_RDWR), "wb", 0) as fifo:
            running.process.send_signal(signal.SIGHUP)
            time.sleep(0.5)  # until the daemon reads the file
            assert get(running.port, b"file") == b"old"
            fifo.write(valid)
        until(lambda: get(running.port, b"file") == b"new")


@pytest.mark.check
@WORKERS
def test_no_transfer_fails_during_a_hundred_reloads(tmp_path, workers):
    content = bytes(range(256)) * 200
    options = [("blksize", 512), ("windowsize", 4)]
    stop = threading.Event()
    with daemon(tmp_path, workers=workers) as running:
        (running.root / "file").write_bytes(content)

        def reload_often():
            for count in range(100):
                running.change(limits={"sessions": 1000 + count})
                running.process.send_signal(signal.SIGHUP)
                stop.wait(0.02)

        def transfer(number):
            if number % 4:
                return get(running.port, b"file", options) == content
            put(running.port, b"new%d" % number, content, [("blksize", 1024)])
            return (running.root / f"new{number}").read_bytes() == content

        with ThreadPoolExecutor(9) as clients:
            reloading = clients.submit(reload_often)
            assert all(clients.map(transfer, range(200)))
            stop.set()
            reloading.result()
        messages = [event["message"] for event in running.events()]
        assert sum(message.startswith("reloaded") for message in messages) > 10  # some were merged
        until(lambda: len(running.transfers()) == 200)
        assert {event["outcome"] for event in running.transfers()} == {"done"}


@pytest.mark.check
def test_an_upload_over_the_quota_is_refused_until_files_are_removed(tmp_path):
    with daemon(tmp_path) as running:
        write = {"quota": "10kB", "overwrite": True}
        running.change(directories=serving(running.root, write=write))
        running.reload()
        put(running.port, b"first", b"x" * 9000)
        with pytest.raises(ServerError) as refusal:
            put(running.port, b"second", b"x" * 2000)
        assert refusal.value.args[0] == 3
        assert [path.name for path in running.root.iterdir()] == ["first"]
        (running.root / "first").unlink()
        until(lambda: stored(running.port, b"second", b"x" * 2000))


def stored(port, name, content):
    """Return whether an upload is accepted."""
    with suppress(ServerError):
        put(port, name, content)
        return True
    return False
