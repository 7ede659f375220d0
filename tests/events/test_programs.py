"""Programs that run for an event."""

import email
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.docs.blocks import read_blocks
from tests.support.daemons import CHECKOUT
from tftpd.config.events import EventSection
from tftpd.events.programs import ProgramHook

EVENT = {"schema": 1, "id": "5a3c", "event": "upload_stored", "file": "r1", "client": "10.0.0.7"}
EVENT |= {"path": "/srv/r\udcff", "outcome": "done", "node": "boot1"}


def _run(text, event=EVENT, **values):
    section = EventSection(event="read_done", exec=["/bin/sh", "-c", text, "name"], **values)
    return ProgramHook(section).deliver(event)


def test_a_program_gets_the_event_and_its_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("SITE", "lab")
    attempt = _run(f"cat >{tmp_path}/json; env -0 >{tmp_path}/env; pwd; echo problem >&2")
    assert (attempt.problem, attempt.output) == ("", "/\nproblem")
    assert json.loads((tmp_path / "json").read_text()) == EVENT | {"path": "/srv/r\\xff"}
    variables = (tmp_path / "env").read_bytes().split(b"\0")
    assert {b"TFTPD_PATH=/srv/r\xff", b"TFTPD_EVENT=upload_stored", b"TFTPD_ID=5a3c"} < {*variables}
    assert {b"TFTPD_CLIENT=10.0.0.7", b"TFTPD_OUTCOME=done", b"SITE=lab"} < {*variables}
    assert not any(each.startswith(b"NOTIFY_SOCKET=") for each in variables)


def test_systems_without_files_in_memory_use_temporary_files(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    attempt = _run("cat")
    assert json.loads(attempt.output)["event"] == EVENT["event"]


@pytest.mark.parametrize(
    ("text", "problem", "again"),
    [
        ("exit 3", "exit status 3", False),
        ("exit 75", "exit status 75", True),
        ("kill -9 $$", "ended by signal 9", False),
    ],
)
def test_a_program_that_fails_is_a_problem(text, problem, again):
    attempt = _run(text)
    assert (attempt.problem, attempt.again) == (problem, again)


def test_an_absent_program_may_come_back(tmp_path):
    section = EventSection(event="read_done", exec=[str(tmp_path / "absent")])
    attempt = ProgramHook(section).deliver(EVENT)
    assert attempt.problem == "the program cannot start: No such file or directory"
    assert attempt.again


def test_the_output_is_bounded_and_does_not_block_the_program():
    attempt = _run("head -c 1000000 /dev/zero | tr '\\0' x; echo end >&2")
    assert (attempt.problem, attempt.output) == ("", "x" * 4096)


def test_the_time_limit_ends_the_whole_group(tmp_path):
    began = time.monotonic()
    attempt = _run(f"sleep 1000 & echo $! >{tmp_path}/child; wait", timeout=0.3)
    assert time.monotonic() - began < 2
    assert (attempt.problem, attempt.again) == ("not finished within 0.3 s", False)
    _assert_ended(int((tmp_path / "child").read_text()))


def test_a_program_does_not_wait_for_a_child_that_keeps_its_output_open(tmp_path):
    began = time.monotonic()
    attempt = _run(f"sleep 1000 & echo $! >{tmp_path}/child; echo done")
    assert time.monotonic() - began < 2
    assert (attempt.problem, attempt.output) == ("", "done")
    _assert_ended(int((tmp_path / "child").read_text()))


def _assert_ended(pid):
    for _ in range(100):
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return
        if status.rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} runs")


def test_a_stop_ends_the_program_which_runs_again_later():
    section = EventSection(event="read_done", exec=["/bin/sleep", "1000"])
    hook = ProgramHook(section)
    threading.Timer(0.2, hook.stop).start()
    attempt = hook.deliver(EVENT)
    assert (attempt.problem, attempt.again) == ("the daemon stopped", True)


def _receive_mail(server, mails):
    """Speak SMTP with one client."""
    connection, _ = server.accept()
    with connection, connection.makefile("rwb") as stream:

        def answer(line):
            stream.write(line + b"\r\n")
            stream.flush()

        answer(b"220 test")
        while line := stream.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                answer(b"354 go on")
                mails.append(b"".join(iter(stream.readline, b".\r\n")))
            answer(b"221 bye" if verb == b"QUIT" else b"250 ok")


def test_the_program_of_the_manual_sends_a_mail(tmp_path):
    blocks = read_blocks(CHECKOUT / "docs/how-to/events.md")
    text = next(block.text for block in blocks if "notify-mail <<" in block.text)
    program = tmp_path / "notify-mail"
    program.write_text(text.partition("<<'END'\n")[2].partition("END\n")[0])
    mails = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_receive_mail, args=[server, mails], daemon=True)
        thread.start()
        environment = dict(os.environ, SMTP_PORT=str(server.getsockname()[1]))
        command = [sys.executable, str(program)]
        text = json.dumps(EVENT | {"path": "/srv/r1"})
        subprocess.run(command, input=text, text=True, env=environment, check=True, timeout=30)
        thread.join(10)
    mail = email.message_from_bytes(mails[0])
    assert mail["Subject"] == "upload_stored: r1 by 10.0.0.7"
    assert json.loads(mail.get_payload(decode=True))["id"] == "5a3c"
