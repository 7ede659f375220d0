"""A real daemon with several workers."""

import os
import resource
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from tests.support.daemons import CHECKOUT, RunningDaemon, daemon, free_port, twistd, until
from tests.support.plain import ServerError, get, put, received_after, request
from tftpd.access.paths import TEMPORARY


def _pids(running: RunningDaemon) -> dict[int, int]:
    """Return the latest process of each worker."""
    return {event["worker"]: event["pid"] for event in running.events() if "pid" in event}


def _is_alive(pid: int) -> bool:
    with suppress(OSError):
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def _wait_for_end(pids: dict[int, int]) -> None:
    until(lambda: not any(_is_alive(pid) for pid in pids.values()))


def _reach_all(running: RunningDaemon, workers: int) -> list[dict[str, Any]]:
    """Send requests to all workers; return the transfers in the log."""
    (running.root / "file").write_bytes(b"x" * 5000)
    before = len(running.transfers())
    for _ in range(16 * workers):
        assert get(running.port, b"file") == b"x" * 5000
    return running.awaited(before + 16 * workers)


@pytest.mark.check
def test_clients_are_spread_over_the_workers_and_the_log_names_the_worker(tmp_path):
    with daemon(tmp_path, workers=2) as running:
        transfers = _reach_all(running, 2)
    assert {event["worker"] for event in transfers} == {0, 1}
    assert transfers[0]["message"].startswith(f'worker {transfers[0]["worker"]}: read "file" by ')
    assert {event["outcome"] for event in transfers} == {"done"}


@pytest.mark.check
def test_a_worker_that_cannot_start_is_started_when_descriptors_are_available(tmp_path):
    with daemon(tmp_path, workers=2) as running:
        pids, process = _pids(running), running.process.pid
        limits = resource.prlimit(process, resource.RLIMIT_NOFILE)
        resource.prlimit(process, resource.RLIMIT_NOFILE, (10, limits[1]))
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        until(lambda: running.log.read_text().count("cannot start (Too many open files)") >= 2)
        resource.prlimit(process, resource.RLIMIT_NOFILE, limits)
        until(lambda: not set(pids.items()) & set(_pids(running).items()))
        _reach_all(running, 2)
        assert running.process.poll() is None


@pytest.mark.check
def test_the_daemon_does_not_start_without_descriptors_for_its_workers(tmp_path):
    """Half of the clients would get no answer: the kernel sends them to a worker's socket."""
    port = free_port()
    config = tmp_path / "tftpd.yaml"
    config.write_text(
        f"{{listen: [{{address: 127.0.0.1, port: {port}}}], workers: 4,\n"
        f"directories: [{{root: {tmp_path}, read: true}}]}}\n"
    )
    command = ["prlimit", "--nofile=24", *twistd("tftp", "--config", str(config))]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert " cannot start (Too many open files)" in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr


def _memory(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.check
def test_a_flood_of_refused_requests_does_not_fill_the_memory_of_a_worker(tmp_path):
    """The daemon reads nothing meanwhile. Each request causes 30 KB of messages to it."""
    with daemon(tmp_path, workers=2) as running:
        _reach_all(running, 2)
        before = {pid: _memory(pid) for pid in _pids(running).values()}
        os.kill(running.process.pid, signal.SIGSTOP)
        for number in range(3000):
            with suppress(ServerError):
                get(running.port, b"\xff" * 4000 + b"%d" % number)
        growth = [_memory(pid) - before[pid] for pid in before]
        os.kill(running.process.pid, signal.SIGCONT)
        until(lambda: "results and log lines were lost" in running.log.read_text())
        assert max(growth) < 24 << 20
        assert set(_pids(running).values()) == set(before)


@pytest.mark.check
def test_workers_store_uploads_with_any_bytes_in_the_name(tmp_path):
    name = b"r\xff\xe4.cfg"
    with daemon(tmp_path, workers=2) as running:
        put(running.port, name, b"x" * 1500)
        assert get(running.port, name) == b"x" * 1500
        (event, _) = running.awaited(2)
    assert event["file"] == "r\\xff\\xe4.cfg"


@pytest.mark.check
def test_a_killed_worker_is_replaced_and_no_request_is_lost(tmp_path):
    with daemon(tmp_path, workers=2) as running:
        (running.root / "file").write_bytes(b"x" * 1000)
        until(lambda: len(_pids(running)) == 2)
        first = _pids(running)
        for number in (0, 1, 0):
            killed = _pids(running)[number]
            os.kill(killed, signal.SIGKILL)
            # Clients do not retransmit: only the open socket keeps the requests.
            with ThreadPoolExecutor(40) as clients:
                got = clients.map(lambda _: get(running.port, b"file"), range(40))
                assert list(got) == [b"x" * 1000] * 40
            until(lambda n=number, gone=killed: _pids(running)[n] != gone)
        latest = _pids(running)
        assert not set(first.values()) & set(latest.values())
        errors = [event["message"] for event in running.events() if event["level"] == "error"]
        assert len(errors) == 3
        assert "signal 9" in errors[0]
    _wait_for_end(first | latest)


@pytest.mark.check
def test_a_stopped_worker_is_replaced(tmp_path):
    with daemon(tmp_path, workers=2) as running:
        _reach_all(running, 2)
        stopped = _pids(running)[0]
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: _pids(running)[0] != stopped, 60)
        assert any(event.get("event") == "worker_silent" for event in running.events())
        _reach_all(running, 2)


@pytest.mark.check
def test_the_session_limit_applies_to_all_workers_together(tmp_path):
    with daemon(tmp_path, workers=2, limits={"sessions": 5}) as running:
        _reach_all(running, 2)
        assert _half_open(running, 40) == 5
        # The sessions of a worker that dies no longer count.
        for pid in _pids(running).values():
            os.kill(pid, signal.SIGKILL)
        until(lambda: sum("pid" in event for event in running.events()) == 4)
        _reach_all(running, 2)
        assert _half_open(running, 40) == 5


def _half_open(running: RunningDaemon, count: int) -> int:
    """Send requests at once; return how many get a first block."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for sock in sockets:
            sock.settimeout(1)
            sock.sendto(request(1, b"file"), ("127.0.0.1", running.port))
        with ThreadPoolExecutor(count) as waiting:
            return sum(waiting.map(_receives_packet, sockets))
    finally:
        for sock in sockets:
            sock.close()


def _receives_packet(sock: socket.socket) -> bool:
    with suppress(TimeoutError):
        return len(sock.recv(2000)) > 0
    return False


@pytest.mark.check
def test_sigterm_ends_workers_and_sends_errors_to_running_clients(tmp_path):
    with daemon(tmp_path, workers=2) as running:
        (running.root / "file").write_bytes(b"x" * 5000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.sendto(request(1, b"file"), ("127.0.0.1", running.port))
            assert sock.recv(2000)[:4] == b"\0\3\0\1"
            pids = _pids(running)
            running.stop()
            assert received_after(sock, b"\0\3\0\1")[0][:4] == b"\0\5\0\0"
        assert running.transfers()[0]["outcome"] == "stopped"
        _wait_for_end(pids)


@pytest.mark.check
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_daemon(tmp_path, how):
    with daemon(tmp_path, workers=2) as running:
        until(lambda: len(_pids(running)) == 2)
        pids = _pids(running)
        running.stop(how)
        _wait_for_end(pids)


@pytest.mark.check
def test_ctrl_c_in_a_terminal_ends_the_daemon_and_its_workers(tmp_path):
    with daemon(tmp_path, preexec=os.setsid, workers=2) as running:
        _reach_all(running, 2)
        pids = _pids(running)
        os.killpg(running.process.pid, signal.SIGINT)
        running.process.wait(20)
        assert not [event for event in running.events() if event["level"] == "error"]
        _wait_for_end(pids)


@pytest.mark.check
def test_an_unfinished_upload_of_a_killed_worker_is_removed(tmp_path):
    with daemon(tmp_path, workers=2) as running:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.sendto(request(2, b"new"), ("127.0.0.1", running.port))
            answer, server = sock.recvfrom(600)
            assert answer == b"\0\4\0\0"
            sock.sendto(b"\0\3\0\1" + b"x" * 512, server)
            assert received_after(sock, b"\0\4\0\0")[0] == b"\0\4\0\1"
        left = list(running.root.glob(f"{os.fsdecode(TEMPORARY)}*"))
        assert left
        for pid in _pids(running).values():
            os.kill(pid, signal.SIGKILL)
        until(lambda: not left[0].exists())


@pytest.mark.check
def test_a_port_in_use_is_reported_with_workers_too(tmp_path):
    with daemon(tmp_path, workers=2) as running:
        second = subprocess.run(
            twistd("tftp", "--config", str(tmp_path / "tftpd.yaml")),
            capture_output=True,
            text=True,
            timeout=60,
            env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        )
        assert second.returncode == 1
        assert "the port is in use by another program" in second.stdout
        assert running.process.poll() is None


@pytest.mark.check
def test_all_workers_know_the_last_read_of_a_client(tmp_path):
    with daemon(tmp_path, workers=2, names={"fallbacks": ["sibling"]}) as running:
        for name in ("X/shim.efi", "X/grubx64.efi"):
            path = running.root / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(name.encode())
        assert get(running.port, b"X/shim.efi") == b"X/shim.efi"
        running.awaited(1)
        transfers = []
        while {each["worker"] for each in transfers} != {0, 1}:
            assert len(transfers) < 100
            assert get(running.port, b"grubx64.efi") == b"X/grubx64.efi"
            transfers = running.awaited(len(transfers) + 2)[1:]
