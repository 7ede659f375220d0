"""Templates in a real daemon and in `tftpd explain`."""

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.support import plain
from tests.support.daemons import daemon, until
from tftpd.daemon.cli import main

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
TEMPLATE = "{{ ip }} {{ server }} {{ asked }} {{ name }} {{ groups.host }} {{ variables.role }}\n"

VARIABLES = [
    {"set": {"role": "any"}},
    {"clients": ["127.0.0.0/8"], "set": {"role": "here"}},
]


@pytest.fixture
def serving(tmp_path):
    """Run a daemon with templates below `root`, and variables."""
    root = tmp_path / "root"
    (root / "cfg").mkdir(parents=True)
    (root / "cfg" / "host.j2").write_text(TEMPLATE)
    (root / "plain").write_bytes(b"plain")
    (root / "plain.j2").write_bytes(b"never")
    (root / "broken.j2").write_text("\n{{ variables.none }}")
    (root / "endless.j2").write_text(ENDLESS)
    with daemon(
        tmp_path,
        directories=[{"root": str(root), "read": {"templates": True}}],
        rewrite=[{"match": "^cfg/(?P<host>.*)$", "to": "cfg/host"}],
        variables=VARIABLES,
        limits={"template_time": 1.0},
    ) as running:
        yield running


def _children(pid: int) -> list[int]:
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += (thread / "children").read_text().split()
    return [int(child) for child in found]


def test_a_template_is_rendered_for_its_client(serving):
    content = plain.get(serving.port, b"cfg/web1")
    assert content == b"127.0.0.1 127.0.0.1 cfg/web1 cfg/host web1 here\n"
    (event,) = serving.awaited(1)
    assert (event["file"], event["served_name"]) == ("cfg/web1", "cfg/host.j2")


def test_a_file_takes_precedence_and_a_template_itself_is_not_served(serving):
    assert plain.get(serving.port, b"plain") == b"plain"
    with pytest.raises(plain.ServerError) as refused:
        plain.get(serving.port, b"plain.j2")
    assert refused.value.args == (1, "File not found")


def test_the_error_of_a_template_is_logged_and_not_sent_to_the_client(serving):
    with pytest.raises(plain.ServerError) as refused:
        plain.get(serving.port, b"broken")
    assert refused.value.args == (0, "File could not be generated")
    (event,) = serving.awaited(1)
    assert event["detail"].startswith(f"template {serving.config.parent}/root/broken.j2: line 2: ")
    assert "none" in event["detail"]


@pytest.mark.check
def test_an_endless_template_delays_no_other_client(serving):
    refusals = []

    def request_endless():
        try:
            plain.get(serving.port, b"endless")
        except plain.ServerError as refused:
            refusals.append(refused.args)

    stuck = [threading.Thread(target=request_endless) for _ in range(8)]
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
    assert [event["outcome"] for event in serving.awaited(1)] == ["done"]


@pytest.mark.check
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_template_processes_end_with_the_daemon(serving, how):
    plain.get(serving.port, b"cfg/web4")
    children = _children(serving.process.pid)
    assert children
    serving.stop(how)
    for child in children:
        until(lambda child=child: not Path(f"/proc/{child}").exists())


def test_explain_renders_like_the_daemon(serving, capsys):
    arguments = ["-c", str(serving.config), "--client", "127.0.0.9", "--to", "127.0.0.1"]
    assert main(["explain", *arguments, "read", "cfg/web5"]) == 0
    output = capsys.readouterr().out
    assert "cfg/host.j2, by rewrite[0], template: is served" in output or "cfg/host.j2" in output
    content = b"127.0.0.9 127.0.0.1 cfg/web5 cfg/host web5 here\n"
    assert f"DATA 1, {len(content)} " in output or content.hex() in output.replace(" ", "")
    assert main(["explain", *arguments, "read", "broken"]) == 1
    assert "/root/broken.j2: line 2" in capsys.readouterr().out
    assert not [child for child in _children(os.getpid()) if _is_renderer(child)]


def _is_renderer(child: int) -> bool:
    try:
        return b"tftpd.templates.worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    except OSError:
        return False
