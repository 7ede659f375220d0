"""Files made of templates, from a real daemon and in the words of `tftpd explain`."""

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.support import plain
from tests.support.daemons import daemon, until
from tftpd.daemon.cli import main

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
TOLD = "{{ ip }} {{ server }} {{ asked }} {{ name }} {{ groups.host }} {{ facts.role }}\n"

FACTS = [
    {"set": {"role": "any"}},
    {"clients": ["127.0.0.0/8"], "set": {"role": "here"}},
]


@pytest.fixture
def serving(tmp_path):
    """A daemon with templates beneath `root`, and facts."""
    root = tmp_path / "root"
    (root / "cfg").mkdir(parents=True)
    (root / "cfg" / "host.j2").write_text(TOLD)
    (root / "plain").write_bytes(b"plain")
    (root / "plain.j2").write_bytes(b"never")
    (root / "broken.j2").write_text("\n{{ facts.none }}")
    (root / "endless.j2").write_text(ENDLESS)
    with daemon(
        tmp_path,
        directories=[{"root": str(root), "read": {"templates": True}}],
        rewrite=[{"match": "^cfg/(?P<host>.*)$", "to": "cfg/host"}],
        facts=FACTS,
        limits={"template_time": 1.0},
    ) as running:
        yield running


def _children(pid: int) -> list[int]:
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += (thread / "children").read_text().split()
    return [int(child) for child in found]


def test_a_template_knows_whom_it_is_for(serving):
    made = plain.get(serving.port, b"cfg/web1")
    assert made == b"127.0.0.1 127.0.0.1 cfg/web1 cfg/host web1 here\n"
    (told,) = serving.awaited(1)
    assert (told["file"], told["served"]) == ("cfg/web1", "cfg/host.j2")


def test_a_file_that_is_there_is_no_template_and_a_template_no_file(serving):
    assert plain.get(serving.port, b"plain") == b"plain"
    with pytest.raises(plain.ServerError) as refused:
        plain.get(serving.port, b"plain.j2")
    assert refused.value.args == (1, "File not found")


def test_a_template_that_fails_is_told_in_the_log_and_not_to_the_client(serving):
    with pytest.raises(plain.ServerError) as refused:
        plain.get(serving.port, b"broken")
    assert refused.value.args == (0, "File could not be generated")
    (told,) = serving.awaited(1)
    assert told["detail"].startswith("template broken.j2: line 2: ")
    assert "none" in told["detail"]


def test_nobody_waits_for_a_template_without_end(serving):
    refusals = []

    def ask():
        try:
            plain.get(serving.port, b"endless")
        except plain.ServerError as refused:
            refusals.append(refused.args)

    stuck = [threading.Thread(target=ask) for _ in range(8)]
    for thread in stuck:
        thread.start()
    until(lambda: _children(serving.process.pid))
    for _ in range(20):
        assert plain.get(serving.port, b"plain") == b"plain"
    assert not refusals, "the others were served while it ran"
    assert plain.get(serving.port, b"cfg/web2").endswith(b"web2 here\n")
    for thread in stuck:
        thread.join(20)
    assert refusals == [(0, "File could not be generated")] * len(stuck)


def test_a_repeated_request_is_rendered_once_and_sent_once(serving):
    sock = plain._socket(plain.LOCALHOST)
    with sock:
        for _ in range(5):
            sock.sendto(plain.request(1, b"cfg/web3"), (plain.LOCALHOST, serving.port))
        first, tid = sock.recvfrom(1000)
        sock.sendto(b"\0\4\0\1", tid)
        assert first[4:].endswith(b"web3 here\n")
    assert [told["outcome"] for told in serving.awaited(1)] == ["done"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_processes_end_with_the_daemon(serving, how):
    plain.get(serving.port, b"cfg/web4")
    children = _children(serving.process.pid)
    assert children
    serving.stop(how)
    for child in children:
        until(lambda child=child: not Path(f"/proc/{child}").exists())


def test_explain_renders_what_the_daemon_would(serving, capsys):
    asked = ["-c", str(serving.config), "--client", "127.0.0.9", "--to", "127.0.0.1"]
    assert main(["explain", *asked, "read", "cfg/web5"]) == 0
    said = capsys.readouterr().out
    assert "cfg/host.j2, by rewrite[0], template: is served" in said or "cfg/host.j2" in said
    made = b"127.0.0.9 127.0.0.1 cfg/web5 cfg/host web5 here\n"
    assert f"DATA 1, {len(made)} octets" in said or made.hex() in said.replace(" ", "")
    assert main(["explain", *asked, "read", "broken"]) == 1
    assert "template broken.j2: line 2" in capsys.readouterr().out
    assert not [child for child in _children(os.getpid()) if _renders(child)]


def _renders(child: int) -> bool:
    try:
        return b"tftpd.templates.worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    except OSError:
        return False
