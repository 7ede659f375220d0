"""The three forms of the library with a real daemon: blocking, asyncio and Twisted."""

import inspect
import os
import random
import re
import subprocess
import sys

import pytest

from tests.client.test_cli import ENVIRONMENT, LIMIT
from tests.support.daemons import CHECKOUT, daemon
from tftpd.client import aio, blocking, twisted

GUIDE = CHECKOUT / "docs" / "how-to" / "client-library.md"
CONTENT = random.Random(8).randbytes(300_000)

# One program for the three forms: `await` is left out in the blocking form.
PROGRAM = """
import io, sys
from tftpd.client import ClientSettings, LocalError, NotFound
from tftpd.client.{module} import exists, get, put, size

{keyword}def main(port):
    got = io.BytesIO()
    server, calls, packets = "127.0.0.1", [], []
    trace = lambda *packet: packets.append(packet)
    options = dict(port=port, progress=lambda *call: calls.append(call), trace=trace)
    result = {wait}get(server, "file", got, **options)
    assert result.bytes_transferred == len(got.getvalue()) == 300_000
    assert calls[-1] == (300_000, 300_000)
    assert packets[0][1][:6] == b"\\0\\1file" and packets[0][2] == (server, port)
    settings = ClientSettings(blksize=1468, windowsize=16)
    {wait}put(server, "again", got.getvalue(), port=port, settings=settings)
    {wait}get(server, "again", "back", port=port, settings=settings)
    {wait}put(server, "lock-step", "back", port=port, settings=ClientSettings(windowsize=1))
    assert {wait}size(server, "file", port=port) == 300_000
    assert {wait}exists(server, "file", port=port)
    assert not {wait}exists(server, "none", port=port)
    try:
        {wait}size(server, "none", port=port)
    except NotFound as error:
        assert error.code == 1
    try:
        {wait}get(server, "none", got, port=port)
    except NotFound as error:
        assert error.code == 1
    try:
        {wait}get(server, "file", got, port=port, settings=ClientSettings(max_size=10))
    except LocalError:
        print("complete")

{run}
"""
FORMS = {
    "blocking": ("", "", "main(int(sys.argv[1]))"),
    "aio": ("async ", "await ", "import asyncio; asyncio.run(main(int(sys.argv[1])))"),
    "twisted": (
        "async ",
        "await ",
        "from twisted.internet.defer import ensureDeferred as ensure;"
        "from twisted.internet.task import react;"
        "react(lambda _, port: ensure(main(int(port))), sys.argv[1:])",
    ),
}


@pytest.mark.parametrize("module", FORMS)
def test_a_program_reads_and_writes_files(module, tmp_path):
    keyword, wait, run = FORMS[module]
    program = PROGRAM.format(module=module, keyword=keyword, wait=wait, run=run)
    with daemon(tmp_path) as running:
        (running.root / "file").write_bytes(CONTENT)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, str(running.port)],
            cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=LIMIT,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, b"complete\n", b"")
        probes = [event for event in running.transfers() if event["outcome"] == "probe"]
        assert [(probe["file"], probe["bytes"]) for probe in probes] == [("file", 0)] * 2
        for name in ("again", "lock-step"):
            assert (running.root / name).read_bytes() == CONTENT
    assert (tmp_path / "back").read_bytes() == CONTENT


SNIPPETS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["blocking", "asyncio", "twisted", "size"])
def test_the_programs_of_the_guide_run(snippet, tmp_path):
    with daemon(tmp_path) as running:
        (running.root / "pxelinux.0").write_bytes(CONTENT)
        snippet = snippet.replace("192.0.2.1", "127.0.0.1").replace("6969", str(running.port))
        done = subprocess.run(
            [sys.executable, "-c", snippet],
            cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=LIMIT,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        assert (running.root / "r1.cfg").read_bytes() == b"hostname r1"
    assert (tmp_path / "pxelinux.0").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["exists", "get", "put", "size"])
def test_the_three_forms_have_one_signature(name):
    expected = inspect.signature(getattr(blocking, name)).parameters
    assert inspect.signature(getattr(aio, name)).parameters == expected
    assert inspect.signature(getattr(twisted, name)).parameters == expected


@pytest.mark.parametrize("command", ["get", "put", "prompt"])
def test_tftpc_transfers_files_without_twisted_and_slow_imports(command, tmp_path):
    code = (
        "import sys; from tftpd.client.cli import main; status = main();"
        "print(status, *sorted({'twisted', 'asyncio', 'json', 'pydantic', 'jinja2',"
        " 'tempfile', 'secrets'} & {*sys.modules}))"
    )
    with daemon(tmp_path) as running:
        (running.root / "file").write_bytes(CONTENT)
        (tmp_path / "local").write_bytes(CONTENT)
        url = f"tftp://127.0.0.1:{running.port}"
        words = {
            "get": ("get", "-q", "-o", "got", f"{url}/file"),
            "put": ("put", "-q", "local", f"{url}/new"),
            "prompt": ("prompt", "127.0.0.1", str(running.port)),
        }
        done = subprocess.run(
            [sys.executable, "-c", code, *words[command]],
            cwd=tmp_path, env=ENVIRONMENT, input=b"", capture_output=True, timeout=LIMIT,
        )  # fmt: skip
    assert (done.stderr, done.stdout.splitlines()[-1]) == (b"", b"0")
    assert os.path.exists(tmp_path / "got") is (command == "get")
