"""The server and the client on macOS, and the client on Windows; both are emulated."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import yaml

from tests.support.daemons import CHECKOUT, answers, daemon, free_port, until

pytestmark = pytest.mark.check

LIMIT = 60.0
CONTENT = bytes(range(256)) * 2000 + b"end"
OTHER_SYSTEMS = [sys.executable, "-m", "tests.portability.other_systems"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "100"}


def run(system, module, *arguments, limit=LIMIT, **options):
    """Run a module on a system; return its exit status, its output and its messages."""
    done = subprocess.run(
        [*OTHER_SYSTEMS, system, module, *map(str, arguments)],
        cwd=CHECKOUT, env=ENVIRONMENT, capture_output=True, timeout=limit, **options,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.returncode, done.stdout, done.stderr.decode()


def tftpc(system, *arguments, **options):
    return run(system, "tftpd.client.cli", *arguments, **options)


@contextmanager
def macos_server(tmp_path, **settings):
    """Run the server on macOS; yield its port and its directory."""
    root, port, config = tmp_path / "root", free_port(), tmp_path / "tftpd.yaml"
    root.mkdir()
    document = {
        "listen": [{"address": "0.0.0.0", "port": port}],
        "directories": [{"path": "/", "root": str(root), "read": True, "write": True}],
    }
    config.write_text(yaml.safe_dump(document | settings))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*OTHER_SYSTEMS, "darwin", "tftpd.daemon.cli", "run", "--config", str(config)],
            cwd=CHECKOUT, env=ENVIRONMENT, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until(lambda: process.poll() is not None or answers(port))
        yield port, root
    finally:
        process.terminate()
        process.wait(LIMIT)
    assert "Traceback" not in (tmp_path / "log").read_text()


@contextmanager
def linux_server(tmp_path):
    with daemon(tmp_path) as running:
        yield running.port, running.root


SERVERS = {"darwin": macos_server, "win32": linux_server}


@pytest.fixture(params=["darwin", "win32"])
def served(request, tmp_path):
    """The system of the client, the URL of a server, and its directory."""
    with SERVERS[request.param](tmp_path) as (port, root):
        (root / "file").write_bytes(CONTENT)
        yield request.param, f"tftp://127.0.0.1:{port}", root


@pytest.mark.parametrize(
    ("system", "packages"),
    [
        ("darwin", ["tftpd"]),
        ("win32", ["tftpd.client", "tftpd.protocol", "tftpd.dataplane"]),
    ],
)
def test_modules_are_imported_without_names_that_the_system_lacks(system, packages):
    status, output, messages = run(system, "tests.portability.import_packages", *packages)
    assert (status, messages) == (0, "")
    assert b"tftpd.client.blocking" in output


@pytest.mark.parametrize(
    "tests",
    [
        ["protocol", "--ignore=tests/protocol/test_stateful.py"],
        ["access", "config"],
        ["storage"],
        ["net", "loopback/test_transfers.py"],
        ["server"],
        [f"client/test_{name}.py" for name in ("blocking", "files", "get", "put", "urls")],
    ],
    ids=lambda tests: tests[0],
)
def test_the_tests_of_the_lower_layers_pass_on_macos(tests):
    paths = [test if test.startswith("-") else f"tests/{test}" for test in tests]
    status, output, _ = run("darwin", "pytest", "-q", "-p", "no:cacheprovider", *paths, limit=300)
    assert status == 0, output.decode()[-4000:]


def test_files_are_read_and_written(served, tmp_path):
    system, url, root = served
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    assert tftpc(system, "get", f"{url}/file", "-o", downloads / "new")[0] == 0
    assert (downloads / "new").read_bytes() == CONTENT
    assert tftpc(system, "put", downloads / "new", f"{url}/stored")[0] == 0
    assert (root / "stored").read_bytes() == CONTENT
    assert tftpc(system, "put", "-", f"{url}/piped", input=b"from a pipe")[0] == 0
    assert (root / "piped").read_bytes() == b"from a pipe"
    assert tftpc(system, "get", f"{url}/piped", "-q", "-o", "-")[1] == b"from a pipe"
    assert os.listdir(downloads) == ["new"]


def test_several_files_are_read_at_a_time_and_replace_others(served, tmp_path):
    system, url, root = served
    names = [f"file{number}" for number in range(6)]
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    for name in names:
        (root / name).write_bytes(name.encode() + CONTENT)
        (downloads / name).write_bytes(b"old")
    (downloads / ".tftpd-upload-of-a-killed-client").touch()
    urls = [f"{url}/{name}" for name in names]
    assert tftpc(system, "get", *urls, "-o", downloads, "--parallel", 3)[0] == 0
    assert sorted(os.listdir(downloads)) == names
    assert all((downloads / name).read_bytes() == name.encode() + CONTENT for name in names)


def test_a_failed_download_leaves_the_old_file(served, tmp_path):
    system, url, _ = served
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (downloads / "file").write_bytes(b"old")
    for arguments, status, message in [
        (
            [f"{url}/file", "--max-size", 1000],
            1,
            "tftpc: file: larger than 1000 bytes (--max-size)",
        ),
        ([f"{url}/none"], 3, "tftpc: none: File not found (ERROR 1)"),
    ]:
        done = tftpc(system, "get", *arguments, "-o", downloads / "file")
        assert (done[0], done[2].strip().replace(f"{downloads}/", "")) == (status, message)
    assert [(path.name, path.read_bytes()) for path in downloads.iterdir()] == [("file", b"old")]


def test_a_probe_reports_what_the_server_supports(served):
    system, url, _ = served
    status, output, _ = tftpc(system, "probe", f"{url}/file")
    assert status == 0, output.decode()
    assert b"windowsize" in output


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_a_closed_port_is_reported_as_no_answer(system, tmp_path):
    """Windows raises an error for each ICMP packet, also on sockets that are not connected."""
    url = f"tftp://127.0.0.1:{free_port()}/file"
    done = tftpc(system, "get", url, "-o", tmp_path / "file", "--patience", 2)
    assert done == (5, b"", "tftpc: file: the server does not answer\n")
    status, output, messages = tftpc(system, "probe", url, "--patience", 1)
    assert (status, messages) == (5, "")
    assert b"no answer from 127.0.0.1" in output


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"workers": 2}, "several workers on one port need Linux")],
)
def test_settings_that_need_linux_are_reported(tmp_path, settings, message):
    config = tmp_path / "tftpd.yaml"
    listen = [{"address": "127.0.0.1", "port": free_port()}]
    directories = [{"path": "/", "root": str(tmp_path), "read": True}]
    document = {"listen": listen, "directories": directories} | settings
    config.write_text(yaml.safe_dump(document))
    status, output, messages = run("darwin", "tftpd.daemon.cli", "run", "--config", config)
    assert status != 0
    assert message in output.decode() + messages


def test_programs_get_events_without_files_in_memory(tmp_path):
    (tmp_path / "events").mkdir()
    store = ["/bin/sh", "-c", f'cat > "{tmp_path}/events/$TFTPD_FILE"']
    with macos_server(tmp_path, events=[{"event": "read_done", "exec": store}]) as (port, root):
        (root / "file").write_bytes(b"content")
        url = f"tftp://127.0.0.1:{port}/file"
        assert tftpc("darwin", "get", url, "-o", tmp_path / "file")[0] == 0
        event = tmp_path / "events" / "file"
        until(lambda: event.exists() and b'"read_done"' in event.read_bytes())
