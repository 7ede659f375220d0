"""`tftpc probe` against a real daemon, as a user runs it."""

import json
import random
import signal
import socket
import subprocess
import time

import pytest

from tests.client.test_cli import ENVIRONMENT, LIMIT, TFTPC
from tests.support.daemons import daemon, free_port

CONTENT = random.Random(7).randbytes(600_000)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon(tmp_path_factory.mktemp("served")) as started:
        (started.root / "file").write_bytes(CONTENT)
        yield started


def probe(*arguments):
    return subprocess.run(
        [*TFTPC, "probe", *arguments], env=ENVIRONMENT, capture_output=True, timeout=LIMIT
    )


def test_our_own_daemon_is_healthy_and_known_within_half_a_minute(running):
    began = time.monotonic()
    done = probe("--json", f"tftp://127.0.0.1:{running.port}/file")
    assert (done.returncode, done.stderr) == (0, b"")
    assert time.monotonic() - began < 30
    said = json.loads(done.stdout)
    assert (said["status"], said["size"], said["tsize"]["value"]) == (0, 600_000, 600_000)
    assert said["answer"]["origin"] == "own port"
    assert {one["arrived"] - one["asked"] for one in said["blksizes"]} == {0}
    assert (said["repeats"]["copies"], said["repeats"]["ports"]) == ([1, 1, 1], 1)
    assert said["rollover"] == "0"
    assert {one["objection"] for one in said["boots"]} == {None}
    assert all(one["rate"] > 0 for one in said["samples"])
    assert {one["level"] for one in said["findings"]} <= {"note", "risk"}


def test_each_transfer_that_was_cut_short_is_told_so(running):
    ended = [one for one in running.transfers() if one["outcome"] != "done"]
    assert {one["outcome"] for one in ended} <= {"aborted by peer", "probe"}


def test_the_table_is_for_people(running):
    done = probe("--port", str(running.port), "127.0.0.1", "file")
    said = done.stdout.decode().splitlines()
    assert said[0] == f"file on 127.0.0.1 port {running.port}"
    assert "     1468  granted       yes" in "\n".join(said)
    assert done.returncode == 0


def test_a_missing_file_and_a_refused_one(running):
    url = f"tftp://127.0.0.1:{running.port}"
    assert probe(f"{url}/none").returncode == 3
    assert probe(f"{url}/../etc/passwd").returncode == 4


def test_a_server_that_is_not_there():
    done = probe("--json", "--patience", "1", f"tftp://127.0.0.1:{free_port()}/f")
    assert done.returncode == 5
    said = json.loads(done.stdout)
    assert (said["answer"]["kind"], said["findings"][0]["kind"]) == ("nothing", "silent")


def test_a_host_that_nobody_knows():
    done = probe("tftp://nonesuch.invalid/f")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Traceback" not in done.stderr


def test_everyone_is_not_probed():
    done = probe("255.255.255.255", "f")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["host"],
        ["host", "a", "b"],
        ["tftp://h/a", "tftp://h/b"],
        ["tftp://h/"],
        ["tftp://h/f;mode=netascii"],
        ["--patience", "-1", "h", "f"],
        ["--patience", "nan", "h", "f"],
        ["--blksize", "512", "h", "f"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense(arguments):
    done = probe(*arguments)
    assert (done.returncode, b"Traceback" in done.stderr) == (2, False)


def test_an_interrupt_ends_it_at_once_and_tells_the_server():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(LIMIT)
        command = [*TFTPC, "probe", f"tftp://127.0.0.1:{server.getsockname()[1]}/f"]
        process = subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            request, client = server.recvfrom(1024)  # the plain one, which is over at once
            server.sendto(b"\0\3\0\1" + bytes(512), client)
            assert server.recv(1024).startswith(b"\0\5\0\0")
            request, client = server.recvfrom(1024)
            assert b"tsize" in request
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT) == 130
            assert process.stderr.read() == b""
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


def test_an_interrupt_in_the_midst_of_a_transfer_tells_the_server():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(LIMIT)
        command = [*TFTPC, "probe", f"tftp://127.0.0.1:{server.getsockname()[1]}/f"]
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        try:
            while True:
                said, client = server.recvfrom(1024)
                if said.startswith(b"\0\1") and b"blksize" in said:
                    break
                if said.startswith(b"\0\1"):
                    server.sendto(b"\0\3\0\1" + bytes(512), client)
            server.sendto(b"\0\6blksize\x00512\0", client)
            while not server.recv(1024).startswith(b"\0\4\0\0"):
                pass
            process.send_signal(signal.SIGINT)
            while not (said := server.recv(1024)).startswith(b"\0\5"):
                pass
            assert said == b"\0\5\0\0Client needs no more data\0"
            assert process.wait(LIMIT) == 130
        finally:
            process.kill()
            process.wait()
