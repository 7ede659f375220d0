"""The command `tftpc` with a real daemon."""

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from tests.support.daemons import CHECKOUT, daemon, until
from tftpd.client import commands
from tftpd.client.cli import main

LIMIT = 60
TFTPC = [sys.executable, "-m", "tftpd.client.cli"]
ENVIRONMENT = dict(os.environ, PYTHONPATH=str(CHECKOUT))
CONTENT = random.Random(7).randbytes(100_000)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon(tmp_path_factory.mktemp("served")) as started:
        (started.root / "file").write_bytes(CONTENT)
        (started.root / "sub").mkdir()
        (started.root / "sub" / "other").write_bytes(b"other")
        yield started


@pytest.fixture
def tftpc(tmp_path):
    def run(*arguments, stdin=b""):
        return subprocess.run(
            [*TFTPC, *arguments],
            cwd=tmp_path, env=ENVIRONMENT, input=stdin, capture_output=True, timeout=LIMIT,
        )  # fmt: skip

    return run


@pytest.fixture
def url(running):
    return f"tftp://127.0.0.1:{running.port}"


@pytest.fixture
def silent_server():
    """Yield a socket whose port never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(LIMIT)
        yield sock


def test_a_download_keeps_its_remote_name(tftpc, url, tmp_path):
    done = tftpc("get", f"{url}/file")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"file: 100000 bytes in ")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_several_files_are_downloaded_into_a_directory(tftpc, running, tmp_path):
    (tmp_path / "to").mkdir()
    port = str(running.port)
    done = tftpc("get", "--port", port, "-q", "-o", "to", "127.0.0.1", "file", "sub/other")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "to" / "file").read_bytes() == CONTENT
    assert (tmp_path / "to" / "other").read_bytes() == b"other"


def test_a_host_argument_may_contain_a_port(tftpc, running):
    done = tftpc("get", "-o", "-", f"127.0.0.1:{running.port}", "sub/other")
    assert (done.returncode, done.stdout) == (0, b"other")


def test_an_unknown_host_is_reported_with_its_name(tftpc):
    done = tftpc("get", "nonesuch.invalid", "file")
    assert done.returncode == 1
    assert done.stderr.startswith(b"tftpc: nonesuch.invalid: ")
    wrong = tftpc("get", "127.0.0.1:70000", "file")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        b"tftpc: invalid port 70000: a port is 1 to 65535\n",
    )


def test_standard_output_gets_only_the_file(tftpc, url):
    done = tftpc("get", f"{url}/file", "-o", "-")
    assert (done.returncode, done.stdout) == (0, CONTENT)
    assert done.stderr.startswith(b"file: ")


def test_a_device_is_written_and_not_replaced(tftpc, url):
    assert tftpc("get", f"{url}/file", "-o", "/dev/null").returncode == 0
    assert not os.path.isfile("/dev/null")


def test_files_and_standard_input_are_uploaded(tftpc, url, running, tmp_path):
    (tmp_path / "a").write_bytes(CONTENT)
    (tmp_path / "b").write_bytes(b"b")
    assert tftpc("put", "a", "b", f"{url}/sub/").returncode == 0
    assert (running.root / "sub" / "a").read_bytes() == CONTENT
    assert (running.root / "sub" / "b").read_bytes() == b"b"
    assert tftpc("put", "-", f"{url}/stdin", stdin=b"piped").returncode == 0
    assert (running.root / "stdin").read_bytes() == b"piped"


def test_names_are_shown_in_their_encoding(tftpc, url, running, tmp_path):
    name = "说明.txt"
    (running.root / os.fsdecode(name.encode("gb2312"))).write_bytes(b"text")
    done = tftpc("get", "-v", "--encoding", "gb2312", f"{url}/{name}")
    assert done.stdout.decode().startswith(f"{name}: 4 bytes in ")
    assert f"RRQ {name} octet" in done.stderr.decode()
    assert (tmp_path / name).read_bytes() == b"text"
    done = tftpc("get", "--json", "--encoding", "gb2312", f"{url}/{name}", "-o", "x")
    assert json.loads(done.stdout)["file"] == name
    done = tftpc("get", f"{url}/%d5%fd")
    assert done.stderr == b"tftpc: \\xd5\\xfd: File not found (ERROR 1)\n"


def test_the_url_selects_netascii(tftpc, url, running, tmp_path):
    (tmp_path / "text").write_bytes(b"one\ntwo\n")
    assert tftpc("put", "text", f"{url}/text;mode=netascii").returncode == 0
    assert (running.root / "text").read_bytes() == b"one\ntwo\n"
    until(lambda: running.transfers()[-1]["mode"] == "netascii")  # the client ends before the log


def test_json_prints_one_object_for_each_file(tftpc, url):
    done = tftpc("get", "--json", "--blksize", "1024", f"{url}/file", f"{url}/none")
    good, bad = (json.loads(line) for line in done.stdout.splitlines())
    assert (good["outcome"], good["bytes"], good["blksize"]) == ("done", 100_000, 1024)
    assert (bad["outcome"], bad["code"], bad["file"]) == ("NotFound", 1, "none")
    assert done.returncode == 3


def test_verbose_prints_the_packets_and_the_negotiated_options(tftpc, url, running):
    done = tftpc("get", "-v", "--windowsize", "4", f"{url}/file")
    assert b"blksize 65464, windowsize 4, 0 retransmissions, server 127.0.0.1" in done.stdout
    lines = done.stderr.decode().splitlines()
    assert lines[0].endswith(f"to 127.0.0.1:{running.port} RRQ file octet tsize=0 "
                             "blksize=65464 windowsize=4")  # fmt: skip
    assert lines[-1].endswith("ACK 2")


def test_verbose_and_json_can_be_combined(tftpc, url):
    done = tftpc("get", "-v", "--json", f"{url}/sub/other")
    assert json.loads(done.stdout)["bytes"] == 5
    assert b"RRQ sub/other octet" in done.stderr


def test_put_accepts_a_host_and_a_path(tftpc, running, tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    assert tftpc("put", "a", f"127.0.0.1:{running.port}", "sub/c").returncode == 0
    assert (running.root / "sub" / "c").read_bytes() == b"a"
    assert tftpc("put", "a", "b", f"127.0.0.1:{running.port}", "sub/").returncode == 0
    assert (running.root / "sub" / "b").read_bytes() == b"b"


def test_an_address_of_the_other_ip_version_is_not_used(tftpc, url, running):
    assert tftpc("get", "-4", f"{url}/file").returncode == 0
    done = tftpc("get", "-6", f"{url}/file")
    assert (done.returncode, done.stderr) == (1, b"tftpc: 127.0.0.1 has no IPv6 address\n")
    done = tftpc("probe", "-4", f"tftp://[::1]:{running.port}/file")
    assert (done.returncode, done.stderr) == (1, b"tftpc: ::1 has no IPv4 address\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gte", "tftp://h/f"], 'unknown command "gte"; did you mean "get"?'),
        (["gte", "-o", "x", "tftp://h/f"], 'unknown command "gte"; did you mean "get"?'),
        (["prob", "host", "file"], 'unknown command "prob"; did you mean "probe"?'),
        (["fetch", "tftp://h/f"], 'unknown command "fetch"'),
        (["tftp://h/f", "tftp://h/g"], 'missing command: use "tftpc get URL"'),
    ],
)
def test_a_misspelt_command_is_not_a_host(tftpc, arguments, message):
    done = tftpc(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith(f"tftpc: {message}")


@pytest.mark.check
@pytest.mark.parametrize(
    "command",
    [
        ["get", "--json", "{url}/file"],
        ["get", "{url}/file"],
        ["get", "-o", "-", "{url}/file"],
        ["probe", "--json", "{url}/file"],
        ["127.0.0.1"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("output", ["full disk", "closed pipe"])
def test_output_that_cannot_be_written_is_reported_in_one_line(tmp_path, url, command, output):
    if output == "full disk":
        stdout, reason = os.open("/dev/full", os.O_WRONLY), "No space left on device"
    else:
        reading_end, stdout = os.pipe()
        os.close(reading_end)
        reason = "Broken pipe"
    try:
        done = subprocess.run(
            [*TFTPC, *(word.format(url=url) for word in command)],
            cwd=tmp_path, env=ENVIRONMENT, input=b"status\n", stdout=stdout,
            stderr=subprocess.PIPE, timeout=LIMIT,
        )  # fmt: skip
    finally:
        os.close(stdout)
    assert (done.returncode, done.stderr.decode()) == (1, f"tftpc: standard output: {reason}\n")


def test_no_options_sends_a_request_without_options(tftpc, url):
    done = tftpc("get", "-v", "--no-options", f"{url}/sub/other")
    assert done.stderr.decode().splitlines()[0].endswith("RRQ sub/other octet")
    assert b"without options" not in done.stdout


def test_verbose_says_that_a_request_was_repeated_without_options(silent_server, tmp_path):
    url = f"tftp://127.0.0.1:{silent_server.getsockname()[1]}/f"
    process = subprocess.Popen(
        [*TFTPC, "get", "-v", url],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with process.stdout:
        while (received := silent_server.recvfrom(600))[0] != b"\0\1f\0octet\0":
            pass
        silent_server.sendto(b"\0\3\0\1", received[1])
        assert process.stdout.read().endswith(b", request repeated without options\n")
    assert process.wait(LIMIT) == 0


@pytest.mark.parametrize("first_block", [0, 1])
def test_put_counts_from_0_and_a_server_that_needs_it_causes_a_hint(
    silent_server, tmp_path, first_block
):
    (tmp_path / "f").write_bytes(b"text")
    url = f"tftp://127.0.0.1:{silent_server.getsockname()[1]}/f"
    options = ["--no-options", "--patience", "1", "--first-block", str(first_block)]
    process = subprocess.Popen(
        [*TFTPC, "put", *options, "f", url], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE
    )
    request, client = silent_server.recvfrom(600)
    assert request == b"\0\2f\0octet\0"
    silent_server.sendto(b"\0\4\0\0", client)
    assert silent_server.recv(600) == b"\0\3\0%ctext" % first_block
    silent_server.sendto(b"\0\4\0\0", client)
    with process.stderr:
        error = process.stderr.read()
    assert (process.wait(LIMIT), b"--first-block 0" in error) == (5 * first_block, first_block)


@pytest.mark.check
def test_failures_have_different_exit_statuses(tftpc, url, silent_server, tmp_path):
    (tmp_path / "f").write_bytes(b"")
    assert tftpc("get", f"{url}/none").returncode == 3
    assert tftpc("get", f"{url}/../etc/passwd", "-o", "x").returncode == 4
    assert tftpc("get", f"{url}/file", "--max-size", "10").returncode == 1
    assert tftpc("put", "absent", f"{url}/absent").returncode == 1
    timed_out = tftpc(
        "get", "--patience", "1", f"tftp://127.0.0.1:{silent_server.getsockname()[1]}/f"
    )
    assert timed_out.returncode == 5
    assert b"does not answer" in timed_out.stderr


def error_text(done, silent_server):
    """Return the message of a command that failed before it sent a packet."""
    silent_server.setblocking(False)
    with pytest.raises(BlockingIOError):
        silent_server.recv(1)
    assert (done.returncode, done.stdout) == (1, b"")
    return done.stderr.decode()


def test_local_files_are_checked_before_the_request(tftpc, silent_server, tmp_path):
    url = f"tftp://127.0.0.1:{silent_server.getsockname()[1]}"
    (tmp_path / "dir").mkdir()
    for command, message in {
        ("get", f"{url}/f", "-o", "none/f"): "none/f: No such file or directory",
        ("get", f"{url}/f", "-o", "none/"): "none/: No such directory",
        ("get", f"{url}/dir"): "dir: Is a directory",
        ("put", "none", f"{url}/f"): "none: No such file or directory",
        ("put", "dir", f"{url}/f"): "dir: Is a directory",
    }.items():
        assert error_text(tftpc(*command), silent_server) == f"tftpc: {message}\n"
    port = str(silent_server.getsockname()[1])
    done = tftpc("127.0.0.1", port, stdin=b"put *.cfg backup/\nget f none/\n")
    assert error_text(done, silent_server) == (
        "tftpc: *.cfg: No such file or directory\ntftpc: none/: No such directory\n"
    )


def test_errors_of_devices_and_names_are_those_of_the_local_file(tftpc, url):
    done = tftpc("get", f"{url}/file", "-o", "/dev/full")
    assert (done.returncode, done.stderr) == (1, b"tftpc: /dev/full: No space left on device\n")
    done = tftpc("get", f"{url}/file", "-o", "a" * 300)
    assert (done.returncode, done.stderr) == (1, b"tftpc: %s: File name too long\n" % (b"a" * 300))


@pytest.mark.parametrize(
    ("command", "closed", "status", "message"),
    [
        ("get {url}/file -o file", "<&-", 0, ""),
        ("get {url}/file -q -o file", ">&-", 0, ""),
        ("get {url}/file -o file", ">&-", 1, "standard output: Bad file descriptor"),
        ("get {url}/file -o -", ">&-", 1, "standard output: Bad file descriptor"),
        ("get {url}/none -o file", "2>&-", 3, ""),
        ("put - {url}/closed", "<&-", 1, "temporary file (see TMPDIR): Bad file descriptor"),
    ],
)
def test_closed_standard_streams(url, tmp_path, command, closed, status, message):
    script = f'"$@" {command.format(url=url)} {closed}'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *TFTPC],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=LIMIT,
    )  # fmt: skip
    assert (done.returncode, done.stderr.decode().count("\n")) == (status, bool(message))
    assert message in done.stderr.decode()


def test_a_read_only_destination_is_reported_before_the_request(tftpc, silent_server, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write to every directory")
    (tmp_path / "dir").mkdir(mode=0o555)
    url = f"tftp://127.0.0.1:{silent_server.getsockname()[1]}/f"
    done = tftpc("get", url, "-o", "dir")
    assert error_text(done, silent_server) == "tftpc: dir/f: the directory is not writable\n"


def test_a_file_beyond_the_maximum_size_is_reported_with_the_option(tftpc, url):
    done = tftpc("get", f"{url}/file", "--max-size", "10")
    assert done.returncode == 1
    assert done.stderr == b"tftpc: file: larger than 10 bytes (--max-size)\n"


def test_a_destination_that_cannot_be_opened_is_reported(tftpc, url, tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "sock"))
        done = tftpc("get", f"{url}/file", "-o", "sock")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"sock: No such device or address" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["get"],
        ["get", "host"],
        ["get", "tftp://host"],
        ["get", "tftp://h/"],
        ["get", "tftp://h/.."],
        ["get", "tftp://h/a", "tftp://h/b", "-o", "file"],
        ["get", "tftp://h/%00"],
        ["get", "--blksize", "7", "tftp://h/f"],
        ["get", "--windowsize", "x", "tftp://h/f"],
        ["get", "--patience", "soon", "tftp://h/f"],
        ["get", "--port", "70000", "h", "f"],
        ["get", "--mode", "mail", "h", "f"],
        ["get", "--encoding", "nonesuch", "h", "f"],
        ["put", "--first-block", "2", "a", "tftp://h/f"],
        ["get", "--first-block", "0", "h", "f"],
        ["put", "tftp://h/f"],
        ["put", "a", "b"],
        ["put", "a", "b", "host", "c"],
        ["get", "--port", "٦٩", "h", "f"],
        ["get", "tftp://h:٦٩/f"],
        ["get", "-4", "-6", "h", "f"],
        ["get", "http://h/f"],
        ["put", "a", "ftp://h/f"],
        ["get", "-4", "--local", "::1", "h", "f"],
        ["get", "-q", "-v", "h", "f"],
        ["gte", "h", "f"],
        ["put", "a", "b", "tftp://h/f"],
        ["put", "-", "tftp://h/"],
    ],
    ids=" ".join,
)
def test_an_invalid_command_line_exits_with_2(tftpc, arguments):
    done = tftpc(*arguments)
    assert (done.returncode, b"Traceback" in done.stderr) == (2, False)
    assert done.stderr


def test_an_interrupt_sends_an_error_to_the_server(silent_server, tmp_path):
    url = f"tftp://127.0.0.1:{silent_server.getsockname()[1]}/f"
    process = subprocess.Popen([*TFTPC, "get", url], cwd=tmp_path, env=ENVIRONMENT)
    try:
        request, client = silent_server.recvfrom(1024)
        silent_server.sendto(b"\0\3\0\1" + bytes(512), client)
        while silent_server.recv(1024) != b"\0\4\0\1":
            pass
        process.send_signal(signal.SIGINT)
        while not (packet := silent_server.recv(1024)).startswith(b"\0\5"):
            pass
        assert packet == b"\0\5\0\0Transfer was cancelled\0"
        assert process.wait(LIMIT) == 130
    finally:
        process.kill()
        process.wait()
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_is_parsed_without_twisted():
    code = "import sys; from tftpd.client import cli, jobs; sys.exit('twisted' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT).returncode == 0


def test_the_garbage_collector_is_enabled_after_the_imports(running):
    code = (
        "import gc, sys; from tftpd.client.cli import main; main();"
        "sys.exit(not gc.isenabled() or gc.get_freeze_count() < 1_000)"
    )
    command = [sys.executable, "-c", code, "get", f"tftp://127.0.0.1:{running.port}/file", "-o-"]
    assert subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL).returncode == 0


WITHOUT_TEMPORARY_DIRECTORY = """
import sys, tempfile

def fail(*arguments):
    raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

tempfile._get_default_tempdir = fail
from tftpd.client.cli import main
sys.exit(main())
"""


@pytest.fixture
def tftpc_without_temporary_directory(tmp_path):
    """Return a function that runs `tftpc` without a writable directory for temporary files."""

    def run(*arguments, stdin=b""):
        return subprocess.run(
            [sys.executable, "-c", WITHOUT_TEMPORARY_DIRECTORY, *arguments],
            cwd=tmp_path,
            env=dict(ENVIRONMENT, TMPDIR="/proc"),
            input=stdin,
            capture_output=True,
            timeout=LIMIT,
        )

    return run


@pytest.mark.parametrize("output", ["-", os.devnull, "file"])
def test_get_works_without_temporary_directory(tftpc_without_temporary_directory, url, output):
    done = tftpc_without_temporary_directory("get", f"{url}/sub/other", "-o", output)
    assert done.returncode == 0, done.stderr


def test_put_from_standard_input_without_temporary_directory_fails_clearly(
    tftpc_without_temporary_directory, url
):
    done = tftpc_without_temporary_directory("put", "-", f"{url}/stdin", stdin=b"piped")
    assert done.returncode == 1
    assert done.stderr == (
        b"tftpc: cannot copy the input to a temporary file (see TMPDIR): "
        b"No usable temporary directory found in ['/tmp']\n"
    )


def test_a_url_pattern_reads_several_files(tftpc, url, running, tmp_path):
    for name in ("r1", "r2", "s1", "s2"):
        (running.root / name).write_text(name)
    done = tftpc("get", "-q", f"{url}/{{r,s}}[1-2]")
    assert (done.returncode, done.stderr) == (0, b"")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        name: name for name in ("r1", "r2", "s1", "s2")
    }


def test_without_patterns_brackets_are_part_of_the_name(tftpc, url, running):
    (running.root / "a[1-2]").write_text("brackets")
    done = tftpc("get", "-g", "-o", "-", f"{url}/a[1-2]")
    assert (done.returncode, done.stdout) == (0, b"brackets")


@pytest.mark.check
def test_parallel_transfers_run_at_the_same_time(tftpc, silent_server):
    """Each of four requests waits for a second; one after the other they would take four."""
    port = silent_server.getsockname()[1]
    started = time.monotonic()
    done = tftpc("get", "--parallel", "4", "--patience", "2", f"tftp://127.0.0.1:{port}/[1-4]")
    assert time.monotonic() - started < 6
    assert done.returncode == 5
    assert sorted(line.split(b":")[1] for line in done.stderr.splitlines()) == [
        b" 1", b" 2", b" 3", b" 4",
    ]  # fmt: skip


def test_parallel_transfers_store_all_files(tftpc, url, running, tmp_path):
    (running.root / "many").mkdir()
    for number in range(20):
        (running.root / "many" / str(number)).write_bytes(bytes([number]) * 5000)
    done = tftpc("get", "--json", "--parallel", "8", f"{url}/many/[0-19]", f"{url}/missing")
    assert done.returncode == 3
    outcomes = [json.loads(line)["outcome"] for line in done.stdout.splitlines()]
    assert sorted(outcomes) == ["NotFound"] + ["done"] * 20
    for number in range(20):
        assert (tmp_path / str(number)).read_bytes() == bytes([number]) * 5000


def test_an_interrupt_ends_all_parallel_transfers(tmp_path, silent_server):
    port = silent_server.getsockname()[1]
    command = [*TFTPC, "get", "--parallel", "3", f"tftp://127.0.0.1:{port}/[1-9]"]
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE) as client:
        peers = {silent_server.recvfrom(600)[1] for _ in range(3)}
        for peer in peers:
            silent_server.sendto(b"\0\3\0\1" + bytes(512), peer)
        client.send_signal(signal.SIGINT)
        try:
            assert client.wait(LIMIT) == 130
        finally:
            client.kill()
    errors = set()
    while errors != peers:
        datagram, peer = silent_server.recvfrom(600)
        if datagram[:2] == b"\0\5":
            errors.add(peer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.check
def test_a_timeout_is_tried_again(tmp_path, silent_server):
    port = silent_server.getsockname()[1]
    url = f"tftp://127.0.0.1:{port}/x"
    command = [*TFTPC, "get", "--retry", "2", "--patience", "1", "-o", "-", url]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=pipe, stderr=pipe
    ) as client:
        _, first = silent_server.recvfrom(600)
        peer = first
        while peer == first:  # a new attempt has a new port
            _, peer = silent_server.recvfrom(600)
        silent_server.sendto(b"\0\3\0\1data", peer)
        stdout, stderr = client.communicate(timeout=LIMIT)
    assert (client.returncode, stdout) == (0, b"data")
    assert b"; next attempt in 1 s\n" in stderr


@pytest.mark.parametrize(("code", "attempts"), [(0, 2), (1, 1), (2, 1), (3, 2)])
def test_only_temporary_errors_are_tried_again(tftpc, silent_server, code, attempts):
    port = silent_server.getsockname()[1]
    peers = set()

    def refuse():
        with suppress(OSError):
            while True:
                _, peer = silent_server.recvfrom(600)
                peers.add(peer)
                silent_server.sendto(b"\0\5\0%c\0" % code, peer)

    thread = threading.Thread(target=refuse, daemon=True)
    thread.start()
    done = tftpc("get", "--retry", "1", "--no-options", f"tftp://127.0.0.1:{port}/x")
    assert done.returncode != 0
    assert len(peers) == attempts


@pytest.mark.check
def test_the_rate_is_limited(tftpc, url, tmp_path):
    started = time.monotonic()
    done = tftpc("get", "--json", "--limit-rate", "64k", f"{url}/file")
    assert time.monotonic() - started > 100_000 / 65536 - 0.3
    result = json.loads(done.stdout)
    assert (result["outcome"], result["retransmits"]) == ("done", 0)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_limited_transfer_has_small_blocks_even_if_large_ones_are_requested(tftpc, url):
    done = tftpc("get", "--json", "--limit-rate", "128k", "--blksize", "65464", f"{url}/file")
    result = json.loads(done.stdout)
    assert (result["blksize"], result["windowsize"], result["retransmits"]) == (32_768, 1, 0)


@pytest.mark.parametrize("n_threads", [0, 1])
def test_without_threads_parallel_transfers_fail_or_share_those_that_run(
    running, tmp_path, monkeypatch, capsys, n_threads
):
    started = []

    class FewThreads(threading.Thread):
        def start(self):
            if len(started) >= n_threads:
                raise RuntimeError("can't start new thread")
            started.append(self)
            super().start()

    monkeypatch.setattr(commands, "Thread", FewThreads)
    monkeypatch.chdir(tmp_path)
    names = ["file", "sub/other"]
    words = ["get", "--parallel", "2", f"127.0.0.1:{running.port}", *names]
    monkeypatch.setattr(sys, "argv", ["tftpc", *words])
    assert main() == (0 if n_threads else 1)
    output = capsys.readouterr()
    assert output.err == ("" if n_threads else "tftpc: no thread can be started\n")
    assert output.out.count(" bytes in ") == (2 if n_threads else 0)


@pytest.mark.check
def test_the_rate_of_an_upload_is_limited(tftpc, running, url, tmp_path):
    (tmp_path / "up").write_bytes(CONTENT)
    started = time.monotonic()
    done = tftpc("put", "--json", "--limit-rate", "128k", "up", f"{url}/limited")
    assert time.monotonic() - started > 100_000 / 131_072 - 0.3
    assert json.loads(done.stdout)["retransmits"] == 0


@pytest.mark.parametrize("rate", ["1k", "-5", "x", "10x", ""])
def test_a_limit_of_the_rate_has_a_minimum_and_a_unit(tftpc, url, rate):
    done = tftpc("get", "--limit-rate", rate, f"{url}/file")
    assert done.returncode == 2
    assert done.stderr


@pytest.mark.parametrize("output", ["-", "copy"])
def test_the_checksum_of_a_download_is_printed(tftpc, url, output):
    done = tftpc("get", "--checksum", "sha256", "-v", "-o", output, f"{url}/file")
    digest = hashlib.sha256(CONTENT).hexdigest().encode()
    assert digest in (done.stderr if output == "-" else done.stdout)
    result = json.loads(tftpc("get", "--json", "--checksum", "sha256", f"{url}/file").stdout)
    assert result["sha256"].encode() == digest


def test_the_checksum_of_an_upload_is_that_of_the_local_file(tftpc, url, tmp_path):
    (tmp_path / "local").write_bytes(CONTENT)
    done = tftpc("put", "--json", "--checksum", "sha256", "local", f"{url}/hashed")
    assert json.loads(done.stdout)["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    piped = tftpc("put", "--json", "--checksum", "sha256", "-", f"{url}/hashed", stdin=b"piped")
    assert json.loads(piped.stdout)["sha256"] == hashlib.sha256(b"piped").hexdigest()


def test_without_the_option_there_is_no_checksum(tftpc, url):
    assert "sha256" not in json.loads(tftpc("get", "--json", f"{url}/file").stdout)
