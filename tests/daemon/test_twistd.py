"""The daemon under twistd, in its own process."""

import json
import os
import pwd
import random
import resource
import select
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress

import pytest
import yaml

from tests.support.daemons import CHECKOUT, answers, daemon, free_port, own_address, twistd, until
from tests.support.plain import ServerError, get, put, received_after, request
from tftpd.access.paths import TEMPORARY
from tftpd.daemon.service import Options

TIMEOUT_SECONDS = 60
NOBODY = pwd.getpwnam("nobody")

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop privileges")


def _twistd(*arguments, **options):
    environment = dict(os.environ, PYTHONPATH=str(CHECKOUT))
    command = twistd(*arguments)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment, **options
    )


def test_twistd_knows_the_plugin(tmp_path):
    listed = _twistd("--help", cwd=tmp_path)
    assert "tftp             A TFTP server." in listed.stdout


def test_the_json_log_has_one_flat_object_per_request(tmp_path):
    with daemon(tmp_path) as running:
        (running.root / "file").write_bytes(b"x" * 1000)
        get(running.port, b"file", [("blksize", 600), ("windowsize", 1)])
        (event,) = running.awaited(1)
    assert event.pop("message").startswith('read "file" by 127.0.0.1:')
    assert event.pop("time").endswith("+00:00")
    assert event.pop("seconds") > 0
    assert event.pop("rate") > 0
    assert event.pop("port") > 0
    assert event == {
        "level": "info",
        "logger": "tftpd.access",
        "event": "transfer",
        "client": "127.0.0.1",
        "protocol": "tftp",
        "direction": "read",
        "file": "file",
        "outcome": "done",
        "code": None,
        "status": None,
        "detail": "",
        "mode": "octet",
        "bytes": 1000,
        "blksize": 600,
        "windowsize": 1,
        "retransmits": 0,
        "first_block": 1,
        "profile": None,
        "served_name": None,
        "resolution_steps": "",
    }


def test_the_log_has_the_reason_that_the_client_does_not_get(tmp_path):
    with daemon(tmp_path) as running:
        with pytest.raises(ServerError) as refused:
            get(running.port, b"../up\nforged")
        (event,) = running.awaited(1)
    assert refused.value.args == (2, "Access violation")
    assert event["message"].split(": ", 1)[1] == (
        "refused (ERROR 2: the name leaves its directory), profile no-options"
    )
    assert event["file"] == "../up\\nforged"


def test_the_text_log_has_one_line_per_request(tmp_path):
    with daemon(tmp_path, log={"format": "text"}) as running:
        put(running.port, b"new", b"x" * 700)
        until(lambda: " bytes in " in running.log.read_text())
        lines = [line for line in running.log.read_text().splitlines() if " bytes in " in line]
    assert len(lines) == 1
    assert '[tftpd.access#info] write "new" by 127.0.0.1:' in lines[0]
    assert ": done, 700 bytes in " in lines[0]
    assert lines[0].endswith("blksize 512, windowsize 1, 0 retransmitted, profile no-options")


def test_the_log_level_is_applied(tmp_path):
    port = free_port()
    config = tmp_path / "t.yaml"
    config.write_text(
        f"listen: [{{address: 127.0.0.1, port: {port}}}]\n"
        f"directories: [{{root: {tmp_path}, read: true}}]\nlog: {{level: error}}\n"
    )
    log = tmp_path / "log"
    process = subprocess.Popen(
        twistd("--logfile", str(log), "tftp", "--config", str(config)),
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
    )
    try:
        until(lambda: _answers(port))
        assert log.read_text() == ""
    finally:
        process.terminate()
        process.wait(TIMEOUT_SECONDS)


def _answers(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        sock.sendto(request(1, b"nope"), ("127.0.0.1", port))
        try:
            return sock.recv(100)[:2] == b"\0\5"
        except OSError:
            return False


# Errors at start


def test_an_invalid_configuration_is_reported_without_traceback(tmp_path):
    config = tmp_path / "bad.yaml"
    config.write_text("directories:\n  - {root: nowhere, read: true}\nlog: {levl: info}\n")
    ended = _twistd("tftp", "--config", "bad.yaml", cwd=tmp_path)
    assert ended.returncode == 78
    assert ended.stderr.splitlines() == [
        f"bad.yaml:2: directories[0].root: {tmp_path}/nowhere does not exist",
        'bad.yaml:3: log.levl: unknown key, did you mean "level"?',
    ]
    assert ended.stdout == ""


def test_without_an_option_the_configuration_is_that_of_the_units():
    options = Options()
    options.postOptions = lambda: None
    options.parseOptions([])
    assert options["config"] == "/etc/tftpd/tftpd.yaml"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_one_entry_serves_ipv4_and_ipv6_clients_under_their_own_addresses(tmp_path, host):
    port = free_port()
    (tmp_path / "file").write_bytes(b"x")
    with daemon(
        tmp_path,
        port=port,
        listen=[{"address": "::", "port": port}],
        directories=[{"root": str(tmp_path), "read": {"clients": ["127.0.0.1", "::1"]}}],
    ) as running:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(TIMEOUT_SECONDS)
            sock.sendto(request(1, b"file"), (host, running.port))
            answer, peer = sock.recvfrom(600)
            assert answer == b"\0\3\0\1x"
            sock.sendto(b"\0\4\0\1", peer)
            (event,) = running.awaited(1)
    assert (event["client"], event["outcome"]) == (host, "done")


def test_the_version_of_tftpd_is_shown():
    assert _twistd("tftp", "--version").stdout.startswith("tftpd ")


def _config(tmp_path, address, port):
    config = tmp_path / "t.yaml"
    listen = [{"address": address, "port": port}]
    directories = [{"root": str(tmp_path), "read": True}]
    config.write_text(yaml.safe_dump({"listen": listen, "directories": directories}))
    return str(config)


@pytest.mark.check
def test_a_port_in_use_is_reported_in_one_line(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        ended = _twistd("tftp", "--config", _config(tmp_path, "127.0.0.1", port))
    assert ended.returncode == 1
    message = f"cannot listen on 127.0.0.1 port {port}: the port is in use by another program"
    assert message in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.check
def test_an_address_of_another_host_is_reported_in_one_line(tmp_path):
    ended = _twistd("tftp", "--config", _config(tmp_path, "192.0.2.1", 6969))
    assert ended.returncode == 1
    message = "cannot listen on 192.0.2.1 port 6969: this host has no such address"
    assert message in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


@contextmanager
def _started_as_nobody(installed):
    """Start a daemon that drops root; yield its process, address, root and log."""
    base = installed.parent
    (base / "root").mkdir()
    (base / "root" / "file").write_bytes(b"content")
    os.chown(base / "root", NOBODY.pw_uid, NOBODY.pw_gid)
    directories = [{"root": str(base / "root"), "read": True, "write": True}]
    address = own_address()
    config = base / "t.yaml"
    listen = [{"address": address, "port": 969}]
    config.write_text(yaml.safe_dump({"listen": listen, "directories": directories}))
    log = base / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            twistd("--uid", "nobody", "--gid", str(NOBODY.pw_gid), "tftp", "--config", str(config)),
            env=dict(os.environ, PYTHONPATH=str(installed)),
            cwd=base,
            stdout=out,
            stderr=out,
        )
    try:
        until(lambda: process.poll() is not None or b"serving on" in log.read_bytes())
        yield process, address, base / "root", log
    finally:
        process.terminate()
        process.wait(TIMEOUT_SECONDS)


@pytest.mark.check
@only_root
def test_root_is_dropped_after_the_port_is_bound(installed):
    with _started_as_nobody(installed) as (process, address, root, log):
        assert process.poll() is None, log.read_text()
        assert os.stat(f"/proc/{process.pid}").st_uid == NOBODY.pw_uid
        assert get(969, b"file", host=address) == b"content"
        put(969, b"new", b"stored", host=address)
        assert (root / "new").stat().st_uid == NOBODY.pw_uid


@pytest.mark.check
@only_root
def test_the_shipped_profiles_are_read_before_root_is_dropped(installed):
    (installed / "tftpd" / "config" / "profiles.yaml").chmod(0o600)
    with _started_as_nobody(installed) as (process, address, _, log):
        assert process.poll() is None, log.read_text()
        assert get(969, b"file", host=address) == b"content"


@pytest.mark.check
@only_root
@pytest.mark.parametrize("closed", ["tftpd", "."])
def test_the_daemon_refuses_a_user_who_cannot_read_its_package(installed, closed):
    (installed / closed).chmod(0o700)
    with _started_as_nobody(installed) as (process, _, _, log):
        assert process.wait(TIMEOUT_SECONDS) == 78
        assert f"uid {NOBODY.pw_uid} cannot read {installed / closed}, and" in log.read_text()
        assert "Traceback" not in log.read_text()


@pytest.mark.check
def test_few_descriptors_limit_the_sessions_and_other_requests_are_dropped(tmp_path):
    """Firmware retransmits a dropped request."""
    few = resource.RLIMIT_NOFILE, (64, 64)
    with daemon(tmp_path, preexec=lambda: resource.setrlimit(*few)) as running:
        (running.root / "file").write_bytes(b"x" * 1000)
        socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(30)]
        for sock in socks:
            sock.sendto(request(1, b"file"), ("127.0.0.1", running.port))
        until(lambda: answers(running.port))  # so all others were read
        assert "dropped (session limit reached (8))" in running.log.read_text()
        ready, _, _ = select.select(socks, [], [], 0)
        served = [(sock, sock.recvfrom(600)) for sock in ready]
        assert len(served) == 8
        assert {answer[0][:4] for _, answer in served} == {b"\0\3\0\1"}
        for sock, (_, tid) in served:
            sock.sendto(b"\0\5\0\0\0", tid)
        assert get(running.port, b"file") == b"x" * 1000
        for sock in socks:
            sock.close()
        assert "Traceback" not in running.log.read_text()


# Signals and hostile input


def test_sigterm_ends_the_daemon_and_sends_errors_to_running_clients(tmp_path):
    with daemon(tmp_path) as running:
        (running.root / "file").write_bytes(b"x" * 1000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.sendto(request(1, b"file"), ("127.0.0.1", running.port))
            assert sock.recv(600)[:4] == b"\0\3\0\1"
            running.stop()
            assert received_after(sock, b"\0\3\0\1")[0] == b"\0\5\0\0Server is stopping\0"
        assert running.transfers()[-1]["outcome"] == "stopped"


def test_an_unfinished_upload_is_removed_at_the_start_after_kill_9(tmp_path):
    with daemon(tmp_path) as running:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.sendto(request(2, b"new"), ("127.0.0.1", running.port))
            _, tid = sock.recvfrom(600)
            sock.sendto(b"\0\3\0\1" + b"x" * 512, tid)
            sock.recv(600)
        running.stop(signal.SIGKILL)
        (left,) = os.listdir(running.root)
        assert left.startswith(TEMPORARY.decode())
    with daemon(tmp_path) as running:
        until(lambda: os.listdir(running.root) == [])


def _random_datagram(rng):
    """Return random bytes, or a request with a few changed bytes."""
    if rng.random() < 0.3:
        return rng.randbytes(rng.choice([0, 1, 2, 3, 4, 5, 20, 600]))
    if rng.random() < 0.3:
        return bytes((0, rng.randrange(9))) + rng.randbytes(rng.randrange(40))
    words = [
        ("blksize", rng.choice([8, 512, 7, "abc", -5, 10**9, ""])),
        ("tsize", rng.choice([0, -1, 2**64, "x"])),
        ("windowsize", rng.choice([0, 9, 70000])),
        ("timeout", rng.choice([1, 0, 256, 3000])),
    ]
    name = rng.choice([b"file", b"..", b"", b"\xff\xfe", b"a/" * 200, b"dir", b"new", b"\\x"])
    datagram = bytearray(request(rng.choice([1, 2]), name, rng.sample(words, 3)))
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(datagram))
        datagram[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return bytes(datagram)


@pytest.mark.check
def test_the_daemon_still_serves_after_ten_thousand_hostile_datagrams(tmp_path):
    rng = random.Random(2026)
    with daemon(tmp_path) as running:
        (running.root / "file").write_bytes(b"x" * 5000)
        (running.root / "dir").mkdir()
        socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(50)]
        tids = []
        for count in range(10_000):
            sock = socks[count % len(socks)]
            to = rng.choice(tids) if tids and rng.random() < 0.4 else ("127.0.0.1", running.port)
            sock.sendto(_random_datagram(rng), to)
            if count % 20 == 0:
                sock.settimeout(0.05)
                with suppress(TimeoutError):
                    tids = [*tids[-30:], sock.recvfrom(70000)[1]]
        for sock in socks:
            sock.close()
        assert get(running.port, b"file") == b"x" * 5000
        put(running.port, b"after", b"y" * 5000)
        assert running.process.poll() is None
        assert [
            event for event in running.events() if event["level"] in ("error", "critical")
        ] == []
        assert "Traceback" not in running.log.read_text()


@pytest.mark.check
def test_two_hundred_concurrent_clients_get_intact_files(tmp_path):
    content = random.Random(7).randbytes(100_000)
    with daemon(tmp_path) as running:
        (running.root / "file").write_bytes(content)
        errors = []

        def client(number):
            try:
                if number % 2:
                    assert get(running.port, b"file", [("blksize", 1428)]) == content
                else:
                    put(running.port, b"new%d" % number, content, [("blksize", 1428)])
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert {event["outcome"] for event in running.awaited(200)} == {"done"}
        for number in range(0, 200, 2):
            assert (running.root / f"new{number}").read_bytes() == content


def test_the_json_log_is_valid_for_any_file_name(tmp_path):
    with daemon(tmp_path) as running:
        for name in (b'"}', b"{peer}", b"\xff\xfe", b"\n{", "\u202e".encode()):
            with pytest.raises(ServerError):
                get(running.port, name)
        assert len(running.awaited(5)) == 5
        for line in running.log.read_text().splitlines():
            assert isinstance(json.loads(line), dict)
