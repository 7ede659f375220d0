"""The command `tftpc probe` with a real daemon."""

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
        (started.root / "small").write_bytes(CONTENT[:5000])
        yield started


def probe(*arguments):
    return subprocess.run(
        [*TFTPC, "probe", *arguments], env=ENVIRONMENT, capture_output=True, timeout=LIMIT
    )


@pytest.mark.check
def test_tftpd_is_healthy_and_probed_within_30_seconds(running):
    started = time.monotonic()
    done = probe("--json", f"tftp://127.0.0.1:{running.port}/file")
    assert (done.returncode, done.stderr) == (0, b"")
    assert time.monotonic() - started < 30
    printed = json.loads(done.stdout)
    assert (printed["status"], printed["size"], printed["tsize"]["value"]) == (0, 600_000, 600_000)
    assert printed["answer"]["origin"] == "own port"
    assert {entry["first_block_bytes"] - entry["requested"] for entry in printed["blksizes"]} == {0}
    assert (printed["repetition"]["copies"], printed["repetition"]["transfers"]) == ([1, 1, 1], 1)
    assert printed["rollover"] == "0"
    assert {entry["failure_reason"] for entry in printed["firmware_answers"]} == {None}
    assert all(sample["rate"] > 0 for sample in printed["samples"])
    assert {finding["level"] for finding in printed["findings"]} <= {"note", "risk"}


def test_incomplete_transfers_are_ended_with_an_error(running):
    ended = [transfer for transfer in running.transfers() if transfer["outcome"] != "done"]
    assert {transfer["outcome"] for transfer in ended} <= {"aborted by peer", "probe"}


@pytest.mark.check
def test_the_report_is_printed_as_a_table(running):
    done = probe("--port", str(running.port), "127.0.0.1", "small")
    printed = done.stdout.decode().splitlines()
    assert printed[0] == f"small on 127.0.0.1 port {running.port}"
    assert "     1468  granted       yes" in "\n".join(printed)
    assert done.returncode == 0


@pytest.mark.check
def test_missing_and_refused_files_have_different_exit_statuses(running):
    url = f"tftp://127.0.0.1:{running.port}"
    assert probe(f"{url}/none").returncode == 3
    assert probe(f"{url}/../etc/passwd").returncode == 4


@pytest.mark.check
def test_a_server_that_does_not_answer_exits_with_5():
    done = probe("--json", "--patience", "1", f"tftp://127.0.0.1:{free_port()}/f")
    assert done.returncode == 5
    printed = json.loads(done.stdout)
    assert (printed["answer"]["kind"], printed["findings"][0]["kind"]) == ("nothing", "silent")


def test_an_unknown_host_is_reported():
    done = probe("tftp://nonesuch.invalid/f")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Traceback" not in done.stderr


def test_a_broadcast_address_is_rejected():
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
def test_an_invalid_command_line_exits_with_2(arguments):
    done = probe(*arguments)
    assert (done.returncode, b"Traceback" in done.stderr) == (2, False)


def test_an_interrupt_ends_the_probe_at_once():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(LIMIT)
        command = [*TFTPC, "probe", f"tftp://127.0.0.1:{server.getsockname()[1]}/f"]
        process = subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            request, client = server.recvfrom(1024)  # without options; this exchange ends at once
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


def test_an_interrupt_during_a_transfer_sends_an_error():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(LIMIT)
        command = [*TFTPC, "probe", f"tftp://127.0.0.1:{server.getsockname()[1]}/f"]
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        try:
            while True:
                printed, client = server.recvfrom(1024)
                if printed.startswith(b"\0\1") and b"blksize" in printed:
                    break
                if printed.startswith(b"\0\1"):
                    server.sendto(b"\0\3\0\1" + bytes(512), client)
            server.sendto(b"\0\6blksize\x00512\0", client)
            while not server.recv(1024).startswith(b"\0\4\0\0"):
                pass
            process.send_signal(signal.SIGINT)
            while not (printed := server.recv(1024)).startswith(b"\0\5"):
                pass
            assert printed == b"\0\5\0\0Client needs no more data\0"
            assert process.wait(LIMIT) == 130
        finally:
            process.kill()
            process.wait()
