"""Rendering in real processes, and failures of these processes."""

import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial

import pytest

from tests.support.daemons import CHECKOUT
from tests.templates.conftest import children
from tftpd.access.policy import Grant, ReadPolicy, RenderLimits
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused, ResourceExhausted
from tftpd.templates import process
from tftpd.templates.renderer import TemplateRenderer

LIMIT = 60.0
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TIMED_OUT = "template t.j2: took more than 0.3 s"


def _refused(renderer, grant, variables=None):
    with pytest.raises(RequestRefused) as refusal:
        renderer.render(grant, variables or {})
    return refusal.value


def _reason(renderer, grant):
    refused = _refused(renderer, grant)
    assert (refused.code, refused.text) == (ErrorCode.NOT_DEFINED, ErrorText.TEMPLATE_FAILED)
    return refused.reason.replace(f"{grant.root}/", "")


def _wait_until(condition):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        os.sched_yield()


def _wait_for_busy_child(other_than=None):
    _wait_until(lambda: any(pid != other_than and _is_busy(pid) for pid in children()))
    return next(pid for pid in children() if pid != other_than)


def _is_busy(pid):
    """Return whether a process has used so much time that it must run a job."""
    return _cpu_seconds(pid) > 0.4


def _cpu_seconds(pid):
    """Return the CPU seconds of a process."""
    with open(f"/proc/{pid}/stat") as file:
        ticks = sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def test_a_template_is_rendered(renderer, template):
    grant = template("{{ ip }} {{ name }} {{ variables.x }}\n")
    variables = {
        "ip": "10.0.0.7",
        "name": os.fsdecode(b"\xff"),
        "variables": {"x": [1, None, True]},
    }
    assert renderer.render(grant, variables) == b"10.0.0.7 \xff [1, None, True]\n"


def test_one_process_renders_several_templates(renderer, template):
    renderer.render(template("a"), {})
    (before,) = children()
    for _ in range(3):
        renderer.render(template("b"), {})
    assert children() == [before]


def test_no_process_is_started_before_the_first_job(renderer):
    assert children() == []


def test_a_large_file_is_complete(renderer, template):
    renderer.limits = RenderLimits(4 << 20, 30.0)
    data = renderer.render(
        template("{% for i in range(1024) %}{{ x }}{% endfor %}"), {"x": "x" * 4096}
    )
    assert data == b"x" * (4 << 20)


def test_missing_and_faulty_templates_give_different_errors(renderer, template):
    missing = _refused(renderer, template(None))
    assert (missing.code, missing.text) == (ErrorCode.FILE_NOT_FOUND, ErrorCode.FILE_NOT_FOUND.text)
    grant = template("\n{{ x }}", 'sub/a"b.j2')
    assert _refused(renderer, grant).reason.startswith(f"template {grant.root}/sub/")
    assert _reason(renderer, grant) == "template sub/a\\\"b.j2: line 2: 'x' is undefined"


def test_a_directory_is_an_access_violation(renderer, template, root):
    (root / "t.j2").mkdir()
    assert _refused(renderer, template(None)).code is ErrorCode.ACCESS_VIOLATION


@pytest.mark.parametrize("text", [ENDLESS, "{{ 10 ** (10 ** 10) }}"])
def test_a_slow_template_is_ended(renderer, template, text):
    renderer.limits = RenderLimits(seconds=0.3)
    assert _reason(renderer, template(text)) == TIMED_OUT
    assert children() == []
    renderer.limits = RenderLimits(seconds=30.0)
    assert renderer.render(template("next"), {}) == b"next"


def test_a_slow_template_is_refused_for_a_while_unless_it_changes(renderer, template):
    renderer.limits = RenderLimits(seconds=0.2)
    grant = template(ENDLESS)
    assert "took more than" in _reason(renderer, grant)
    began = time.monotonic()
    for _ in range(50):
        assert "exceeded its time limit less than" in _reason(renderer, grant)
    assert time.monotonic() - began < 50 * 0.2
    renderer.limits = RenderLimits(seconds=30.0)
    assert renderer.render(template("mended"), {}) == b"mended"


@pytest.mark.check
@pytest.mark.parametrize(
    "text",
    [
        "{{ 'x' * 10 ** 10 }}",
        "{{ [0] * 10 ** 9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'x' | center(10 ** 9) }}",
        "{% set x = 'x' * 10 ** 8 %}{{ [x ~ 1, x ~ 2, x ~ 3, x ~ 4] | join }}",
    ],
)
def test_a_template_that_needs_too_much_memory_is_refused(renderer, template, text):
    assert _reason(renderer, template(text)) == "template t.j2: needs more than 256 MiB of memory"
    assert children() == []
    assert renderer.render(template("next"), {}) == b"next"


def test_a_file_that_is_too_large_keeps_the_process(renderer, template):
    renderer.limits = RenderLimits(1 << 10, 30.0)
    renderer.render(template("a"), {})
    before = children()
    grant = template("{% for i in range(99999) %}{{ i }}{% endfor %}")
    assert _reason(renderer, grant) == "template t.j2: the file is larger than 1024 bytes"
    assert children() == before


def test_a_template_that_includes_itself_keeps_the_process(renderer, template):
    renderer.render(template("a"), {})
    before = children()
    assert "includes itself" in _reason(renderer, template("{% include 't.j2' %}"))
    assert children() == before


@pytest.mark.check
@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV"), (signal.SIGRTMIN + 6, "signal 40")],
)
def test_killing_a_busy_process_twice_fails_its_job(renderer, template, number, name):
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(_reason, renderer, template(ENDLESS))
        first = _wait_for_busy_child()
        os.kill(first, number)
        os.kill(_wait_for_busy_child(first), number)
        reason = f"template t.j2: the render process was killed by {name}"
        assert job.result(LIMIT) == reason
    assert children() == []
    assert renderer.render(template("next"), {}) == b"next"


def test_a_job_whose_process_is_killed_is_tried_again(renderer, template):
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(renderer.render, template(ENDLESS), {})
        process_id = _wait_for_busy_child()
        template("done")  # the same file
        os.kill(process_id, signal.SIGKILL)
        assert job.result(LIMIT) == b"done"
    assert process_id not in children()


def test_a_killed_idle_process_is_replaced(renderer, template):
    renderer.render(template("a"), {})
    (pid,) = children()
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    _wait_for_exit(descriptor)
    assert renderer.render(template("b"), {}) == b"b"
    assert len(children()) == 1
    assert pid not in children()


def test_a_stopped_process_is_replaced(renderer, template):
    renderer.render(template("a"), {})
    (pid,) = children()
    os.kill(pid, signal.SIGSTOP)
    renderer.limits = RenderLimits(seconds=0.3)
    assert _reason(renderer, template("b")) == TIMED_OUT
    renderer.limits = RenderLimits(seconds=30.0)
    assert renderer.render(template("b"), {}) == b"b"
    assert pid not in children()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_termination_signals_do_not_end_a_process(renderer, template, number):
    renderer.render(template("a"), {})
    (pid,) = children()
    os.kill(pid, number)
    assert renderer.render(template("b"), {}) == b"b"
    assert children() == [pid]


@pytest.mark.check
def test_twenty_threads_share_two_processes(renderer, template):
    template("{{ n }}", "part.j2")
    grant = template("{% for i in range(1000) %}{% include 'part.j2' %},{% endfor %}")
    maximum = []

    def made(number):
        data = renderer.render(grant, {"n": number})
        maximum.append(len(children()))
        return data

    with ThreadPoolExecutor(20) as pool:
        numbers = [*range(60)]
        for number, data in zip(numbers, pool.map(made, numbers, timeout=LIMIT), strict=True):
            assert data == b"%d," % number * 1000
    assert max(maximum) == 2


@pytest.mark.check
def test_a_slow_template_does_not_delay_others(template):
    with (
        closing(TemplateRenderer(RenderLimits(seconds=30.0))) as renderer,
        ThreadPoolExecutor(1) as pool,
    ):
        slow = pool.submit(_refused, renderer, template("{{ 10 ** (10 ** 10) }}", "slow.j2"))
        _wait_until(children)
        _wait_until(lambda: _is_busy(children()[0]))
        for _ in range(5):
            assert renderer.render(template("quick"), {}) == b"quick"
        assert not slow.done()
        renderer.close()
        slow.result(LIMIT)


@pytest.mark.check
def test_slow_templates_of_one_root_do_not_keep_another_root_waiting(template, tmp_path):
    """Ten threads wait already, with templates that never end."""
    renderer = TemplateRenderer(RenderLimits(seconds=0.5), max_wait=1.5)
    other = tmp_path / "other"
    other.mkdir()
    (other / "t.j2").write_text("good")
    numbers, ended = iter(range(1000)), threading.Event()
    grants = [template(ENDLESS, f"{n}.j2") for n in range(40)]

    def occupy():
        while not ended.is_set():
            with suppress(RequestRefused):
                renderer.render(grants[next(numbers) % len(grants)], {})

    threads = [threading.Thread(target=occupy) for _ in range(12)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.7)
        for _ in range(3):
            good = Grant(other, (b"t.j2",), ReadPolicy())
            assert renderer.render(good, {}) == b"good"
    finally:
        ended.set()
        renderer.close()
        for thread in threads:
            thread.join()


def test_a_job_waits_a_limited_time_for_a_slot(template):
    renderer = TemplateRenderer(RenderLimits(seconds=30.0), max_processes=1, max_wait=0.1)
    with closing(renderer), ThreadPoolExecutor(1) as pool:
        slow = pool.submit(_refused, renderer, template(ENDLESS, "slow.j2"))
        _wait_until(children)
        assert (
            _reason(renderer, template("quick"))
            == "template t.j2: no render process was free within 0.1 s"
        )
        assert not slow.done()
        renderer.close()
        slow.result(LIMIT)


def test_closing_refuses_running_and_waiting_jobs(template):
    renderer = TemplateRenderer(RenderLimits(seconds=30.0), max_processes=1)
    grant = template(ENDLESS)
    with ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(_refused, renderer, grant) for _ in range(5)]
        _wait_until(children)
        _wait_until(lambda: _is_busy(children()[0]))
        started = time.monotonic()
        renderer.close()
        assert children() == []
        for job in jobs:
            refused = job.result(LIMIT)
            assert (refused.code, refused.text) == (ErrorCode.NOT_DEFINED, ErrorText.STOPPING)
        assert time.monotonic() - started < LIMIT / 4


def test_a_closed_renderer_refuses_jobs(template):
    renderer = TemplateRenderer()
    renderer.close()
    renderer.close()
    assert _refused(renderer, template("a")).text == ErrorText.STOPPING
    assert children() == []


def test_closing_during_a_start_leaves_no_process(template):
    grant = template("a")
    for _ in range(5):
        renderer = TemplateRenderer(RenderLimits(seconds=30.0))
        threads = [
            threading.Thread(target=partial(_render_once, renderer, grant)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        renderer.close()
        for thread in threads:
            thread.join(LIMIT)
        assert children() == []


def _render_once(renderer, grant):
    with suppress(RequestRefused):
        renderer.render(grant, {})


def test_variables_that_cannot_be_pickled_raise_and_keep_the_process(renderer, template):
    renderer.render(template("a"), {})
    before = children()
    with pytest.raises(TypeError):
        renderer.render(template("a"), {"ip": threading.Lock()})
    assert children() == before


def test_without_jinja2_jobs_are_refused_and_no_process_is_started_again(
    template, tmp_path, monkeypatch
):
    counted = tmp_path / "counted"
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "jinja2.py").write_text(
        f"open({str(counted)!r}, 'a').write('1')\nraise ImportError('there is none')\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "without")
    with closing(TemplateRenderer()) as renderer:
        for _ in range(3):
            assert _reason(renderer, template("a")) == (
                "template t.j2: needs jinja2: there is none"
            )
        assert counted.read_text() == "1"
        assert children() == []


def test_a_job_without_descriptors_is_refused_for_lack_of_resources(renderer, template):
    """The listener drops such a request, and the client retries."""
    grant = template("a")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), hard))
    try:
        refused = _refused(renderer, grant)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert isinstance(refused, ResourceExhausted)
    reason = "cannot start a render process: Too many open files"
    assert refused.reason == f"template {grant.root}/t.j2: {reason}"
    assert renderer.render(grant, {}) == b"a"


FAKE_PROCESS = """
import socket, sys
s = socket.socket(fileno=0)
{}
s.recv(1 << 20)
"""
READY = r"s.sendall(b'\2\0\0\0\0'); s.recv(1 << 16);"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit(3)", "the render process ended"),
        (r"s.sendall(b'GET / HTTP/1.0\r\n\r\n')", "the render process sent an invalid message"),
        (r"s.sendall(b'\4\0\0\0\1x')", "the render process sent an invalid message"),
        (READY + r"s.sendall(b'\3\xff\xff\xff\xff')", "the render process sent an invalid message"),
        (
            READY + r"s.sendall(b'\3\0\1\0\0' + b'x' * 65536)",
            "the render process sent an invalid message",
        ),
        (READY + r"s.sendall(b'\2\0\0\0\0')", "the render process sent an invalid message"),
        (READY + r"s.sendall(b'\4\0\0\0\2{}')", "the render process sent an invalid message"),
        (
            READY + r"s.sendall(b'\3\0\0\0\5ab'); s.close(); raise SystemExit",
            "the render process ended",
        ),
    ],
)
def test_messages_of_a_process_are_not_trusted(template, monkeypatch, code, reason):
    monkeypatch.setattr(process, "_COMMAND", [sys.executable, "-c", FAKE_PROCESS.format(code)])
    with closing(TemplateRenderer(RenderLimits(1 << 10, 30.0))) as renderer:
        assert _reason(renderer, template("a")) == f"template t.j2: {reason}"
        assert children() == []


@pytest.mark.parametrize("then", [r"s.sendall(b'!'); s.recv(1)", "s.close(); signal.pause()"])
def test_a_process_that_sends_extra_data_or_disconnects_is_replaced(template, monkeypatch, then):
    code = f"import signal; {READY} s.sendall(b'\\3\\0\\0\\0\\2ok'); {then}"
    monkeypatch.setattr(process, "_COMMAND", [sys.executable, "-c", FAKE_PROCESS.format(code)])
    with closing(TemplateRenderer(RenderLimits(1 << 10, 30.0))) as renderer:
        for before in ([], children()):
            assert renderer.render(template("a"), {}) == b"ok"
            (socket_,) = (worker._socket for worker in renderer._idle)
            assert select.select([socket_], [], [], LIMIT)[0]  # the process has answered or ended
            assert not set(children()) & set(before)
            assert len(children()) == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import signal; signal.pause()", TIMED_OUT),
        ("s.recv(1); s.close(); raise SystemExit", "template t.j2: the render process ended"),
    ],
)
def test_a_process_that_does_not_read_its_job_fails_the_job(template, monkeypatch, code, reason):
    code = READY.partition(";")[0] + "; " + code
    monkeypatch.setattr(process, "_COMMAND", [sys.executable, "-c", FAKE_PROCESS.format(code)])
    with closing(
        TemplateRenderer(RenderLimits(seconds=0.3 if reason == TIMED_OUT else 30.0))
    ) as renderer:
        grant = template("a")
        refused = _refused(renderer, grant, {"much": "x" * (4 << 20)})
        assert refused.reason.replace(f"{grant.root}/", "") == reason
        assert children() == []


def test_a_missing_template_is_reported_while_a_slow_one_is_refused(renderer, template):
    renderer.limits = RenderLimits(seconds=0.3)
    assert _reason(renderer, template(ENDLESS)) == TIMED_OUT
    missing = _refused(renderer, template(None, "none.j2"))
    assert missing.code is ErrorCode.FILE_NOT_FOUND


def test_a_process_that_is_never_ready_is_ended(template, monkeypatch):
    monkeypatch.setattr(process, "_COMMAND", [sys.executable, "-c", FAKE_PROCESS.format("")])
    monkeypatch.setattr(process, "_START_SECONDS", 0.3)
    with closing(TemplateRenderer()) as renderer:
        assert _reason(renderer, template("a")) == "template t.j2: did not start within 0.3 s"
        assert children() == []


def test_a_process_does_not_see_the_environment_of_the_daemon(renderer, template, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    renderer.render(template("a"), {})
    (pid,) = children()
    with open(f"/proc/{pid}/environ", "rb") as file:
        names = {entry.partition(b"=")[0] for entry in file.read().split(b"\0") if entry}
    assert names - {b"LD_LIBRARY_PATH", b"PYTHONHOME", b"COVERAGE_PROCESS_CONFIG"} == {
        b"PYTHONPATH"
    }


def test_a_started_process_takes_the_first_job(renderer, template):
    renderer.start()
    before = children()
    renderer.render(template("a"), {})
    assert children() == before != []


def test_a_process_inherits_no_descriptor_and_has_limits(renderer, template, tmp_path):
    with open(tmp_path / "held", "w") as held:
        os.set_inheritable(held.fileno(), True)
        renderer.render(template("a"), {})
        (pid,) = children()
        links = {
            int(entry): os.readlink(f"/proc/{pid}/fd/{entry}")
            for entry in os.listdir(f"/proc/{pid}/fd")
        }
    assert links.pop(0).startswith("socket:")
    # libffi 3.5, which ctypes loads, keeps its own file open.
    inherited = {fd: path for fd, path in links.items() if "/libffi.so" not in path}
    assert inherited == {1: "/dev/null", 2: "/dev/null"}
    none = (0, 0)
    # tests/support/coverage_plugin.py keeps the hard limit, so that it can save the data.
    counted = "COVERAGE_PROCESS_CONFIG" in os.environ
    assert resource.prlimit(pid, resource.RLIMIT_FSIZE) == ((0, -1) if counted else none)
    assert resource.prlimit(pid, resource.RLIMIT_NPROC) == none
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == none
    assert resource.prlimit(pid, resource.RLIMIT_AS)[1] < 1 << 30


PARENT = """
import sys, threading
from pathlib import Path
from tftpd.access.policy import Grant, ReadPolicy
from tftpd.access.policy import Grant, ReadPolicy, RenderLimits
from tftpd.templates.renderer import TemplateRenderer
from tests.templates.conftest import children

renderer = TemplateRenderer(RenderLimits(seconds=float(sys.argv[2])))
def render(name):
    return renderer.render(Grant(Path(sys.argv[1]), (name,), ReadPolicy()), {"ip": "10.0.0.7"})
assert render(b"t.j2") == b"10.0.0.7"
assert not any(name.partition(".")[0] in ("jinja2", "markupsafe") for name in sys.modules)
print(*children(), flush=True)
if sys.stdin.readline():
    threading.Thread(target=render, args=[b"endless.j2"]).start()
sys.stdin.readline()
"""


@pytest.fixture
def parent(root, template):
    """Start a daemon with an idle process; return the daemon, and the process with its pidfd."""
    template("{{ ip }}")
    template(ENDLESS, "endless.j2")
    started = []

    def start(seconds, before=""):
        parent = subprocess.Popen(
            [sys.executable, "-P", "-c", before + PARENT, str(root), str(seconds)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(parent)
        pid = int(parent.stdout.readline())
        return parent, pid, os.pidfd_open(pid)

    yield start
    for parent in started:
        parent.kill()
        parent.communicate(timeout=LIMIT)


def _wait_for_exit(descriptor):
    """Wait until the process of a pidfd has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(LIMIT * 1000)
    os.close(descriptor)


def test_the_daemon_does_not_import_jinja2(parent):
    daemon, _, descriptor = parent(30.0)
    daemon.communicate(b"", timeout=LIMIT)
    assert daemon.returncode == 0
    _wait_for_exit(descriptor)


def test_rendering_works_under_a_memory_limit_of_the_daemon(parent):
    little = "import resource; resource.setrlimit(resource.RLIMIT_AS, (250 << 20, 250 << 20))"
    daemon, pid, descriptor = parent(30.0, little)
    assert resource.prlimit(pid, resource.RLIMIT_AS) == (250 << 20, 250 << 20)
    daemon.communicate(b"", timeout=LIMIT)
    assert daemon.returncode == 0
    _wait_for_exit(descriptor)


def test_an_idle_process_ends_after_the_daemon_was_killed(parent):
    daemon, _, descriptor = parent(30.0)
    daemon.kill()
    _wait_for_exit(descriptor)


@pytest.mark.check
def test_a_busy_process_ends_soon_after_the_daemon_was_killed(parent):
    daemon, pid, descriptor = parent(2.0)
    before = _cpu_seconds(pid)
    daemon.stdin.write(b"go\n")
    daemon.stdin.flush()
    _wait_until(lambda: _cpu_seconds(pid) > before + 0.05)
    daemon.kill()
    _wait_for_exit(descriptor)
