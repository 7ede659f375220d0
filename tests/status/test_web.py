"""The status page of a real daemon, over HTTP."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import succeed

from tests.status.pages import WAIT_SECONDS, MemoryReactor, SlowReader, web
from tests.support.daemons import CHECKOUT, daemon, free_port, twistd, until
from tests.support.plain import ServerError, get, put, request
from tftpd import dataplane
from tftpd.access.variables import VariableRule, VariableTable
from tftpd.config.sections import StatusSection
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.neighbours import Neighbours
from tftpd.server.snapshot import SessionSnapshot, SessionState, Snapshot
from tftpd.status.service import StatusService

PATHS = ["/", "/style.css", "/script.js", "/icon.svg", "/status", "/metrics", "/health"]

HOSTILE = [
    b"<script>alert(1)</script>",
    b"\"'><img src=x onerror=alert(1)>",
    b"line\nfeed\r\ttab",
    b"\xff\xfe\xe4",
    b"a\xe2\x80\xaegnp.exe",  # U+202E reverses the rest
    b"</script><!--",
    b"x" * 480,
]


def _metrics(page):
    _, headers, body = page.request("/metrics")
    assert headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(body.decode())
    return {
        (
            sample.name,
            *(text for name, text in sample.labels.items() if name != "node"),
        ): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_status_shows_a_running_transfer_and_then_its_result(tmp_path):
    with web(tmp_path) as page:
        (page.running.root / "vmlinuz").write_bytes(b"x" * 10_500)
        with SlowReader(page.running.port, b"vmlinuz") as client:
            client.read(4)
            (one,) = page.status()["running"]
            assert one["client"] == "127.0.0.1"
            assert (one["file"], one["kind"], one["state"]) == ("vmlinuz", "kernel", "running")
            assert (one["bytes"], one["size"], one["percent"]) == (4000, 10_500, 38.1)
            assert (one["block"], one["blocks"], one["blksize"]) == (4, 11, 1000)
            assert one["direction"] == "read"
            assert one["age"] >= one["idle"] >= 0
            status = page.status()
            assert status["sessions"]["read"] == {"opening": 0, "running": 1, "dallying": 0}
            assert status["clients"][0]["text"] == "loading vmlinuz, 38 %"
            assert status["hostname"] == status["node"] == socket.gethostname()
            assert status["data_plane"] == dataplane.NAME
            metrics = _metrics(page)
            assert metrics["tftpd_sessions", "read", "running"] == 1
            assert metrics["tftpd_running_bytes", "read"] == 4000
            assert metrics["tftpd_transfers_total", "read", "done"] == 0
            client.read(7)
        page.running.awaited(1)
        until(lambda: page.status()["running"] == [])
        status = page.status()
        (ended,) = status["ended"]
        assert (ended["file"], ended["outcome"], ended["bytes"]) == ("vmlinuz", "done", 10_500)
        assert ended["options"] == ["tsize", "blksize"]
        assert ended["profile"] is None
        (client,) = status["clients"]
        assert (client["verdict"], client["text"], client["boots"]) == ("booted", "booted", 1)
        assert [step["kind"] for step in client["steps"]] == ["kernel"]
        metrics = _metrics(page)
        assert metrics["tftpd_transfers_total", "read", "done"] == 1
        assert metrics["tftpd_transferred_bytes_total", "read"] == 10_500
        assert metrics["tftpd_rtt_seconds_count",] == 1
        assert metrics["process_open_fds",] > 0


def test_a_recognised_client_has_the_name_of_its_profile(tmp_path):
    grub = (("blksize", 1024), ("tsize", 0))
    lab = {"name": "lab", "match": {"files": ["lab/*"]}}
    with web(tmp_path, profiles=[lab]) as page:
        (page.running.root / "kernel").write_bytes(b"x" * 5000)
        with SlowReader(page.running.port, b"kernel", grub) as client:
            (one,) = page.status()["running"]
            assert one["profile"] == "grub"
            client.hang_up()
        with SlowReader(page.running.port, b"lab/none", grub) as client:
            assert client.refused
        first, second = page.running.awaited(2)
        assert (first["profile"], second["profile"]) == ("grub", "lab")
        assert first["message"].endswith(", profile grub")
        assert [one["profile"] for one in page.status()["ended"]] == ["grub", "lab"]
        metrics = _metrics(page)
        assert metrics["tftpd_profile_transfers_total", "grub"] == 1
        assert metrics["tftpd_profile_transfers_total", "lab"] == 0  # it was refused
        assert metrics["tftpd_profile_transfers_total", "ipxe"] == 0


def test_an_answer_has_only_changes_since_the_given_number(tmp_path):
    with web(tmp_path) as page:
        (page.running.root / "file").write_bytes(b"x")
        get(page.running.port, b"file")
        page.running.awaited(1)
        first = page.status()
        assert len(first["ended"]) == len(first["clients"]) == 1
        again = page.status(first["number"])
        assert again["ended"] == again["clients"] == []
        put(page.running.port, b"new", b"y")
        page.running.awaited(2)
        (ended,) = page.status(first["number"])["ended"]
        assert (ended["file"], ended["direction"]) == ("new", "write")


@pytest.mark.parametrize("since", ["", "x", "-1", "9" * 400, "1&since=2", "%00"])
def test_an_invalid_since_parameter_is_ignored(page, since):
    code, _, body = page.request(f"/status?since={since}")
    assert code == 200
    assert json.loads(body)["state"] == "serving"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return the status page of a daemon that the tests share; they leave no state behind."""
    with web(tmp_path_factory.mktemp("page"), status={"names": ["boot.example.org"]}) as running:
        yield running


@pytest.mark.parametrize("path", PATHS)
def test_every_path_has_strict_security_headers(page, path):
    code, headers, body = page.request(path)
    assert code == 200
    assert body
    assert headers["content-length"] == str(len(body))
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["server"] == "tftpd"
    assert "access-control-allow-origin" not in headers
    head = page.request(path, "HEAD")
    assert (head[0], head[2]) == (200, b"")
    if path != "/status" and path != "/metrics":
        assert head[1]["content-length"] == headers["content-length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "ODD"])
def test_other_methods_are_not_allowed(page, method):
    code, headers, _ = page.request("/status", method)
    assert (code, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/page/index.html", "/../service.py", "/%2e%2e/site.py", "//", "/index.html"],
)
def test_other_paths_are_not_found(page, path):
    code, _, body = page.request(path)
    assert (code, body) == (404, b"not found\n")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:9169", 200), ("BOOT.example.org", 200),
     ("evil.example", 403), ("127.0.0.1.evil.example:9169", 403), ("", 403)],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/status", "/", "/nothing"])
def test_a_foreign_host_name_is_refused(page, host, expected, path):
    code, _, _ = page.request(path, Host=host)
    assert code == (404 if expected == 200 and path == "/nothing" else expected)


def test_a_health_check_over_http_1_0_needs_no_host_header(page):
    with socket.create_connection(("127.0.0.1", page.port), WAIT_SECONDS) as sock:
        sock.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nok\n")


def test_a_request_body_is_discarded(page):
    with socket.create_connection(("127.0.0.1", page.port), WAIT_SECONDS) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n")
        for _ in range(80):
            sock.sendall(b"x" * 100_000)
        assert sock.recv(1000).startswith(b"HTTP/1.1 405 ")


def test_idle_connections_do_not_close_the_page_for_others(page):
    with ExitStack() as connections:
        idle = [
            connections.enter_context(
                socket.create_connection(("127.0.0.1", page.port), WAIT_SECONDS)
            )
            for _ in range(64)
        ]
        for _ in range(3):
            assert page.request("/health")[::2] == (200, b"ok\n")
        with pytest.raises(ConnectionResetError):
            idle[0].recv(1)


def test_hostile_names_are_escaped_in_json_and_absent_from_metrics(tmp_path):
    with web(tmp_path) as page:
        for name in HOSTILE:
            with pytest.raises(ServerError):
                get(page.running.port, name)
        page.running.awaited(len(HOSTILE))
        code, headers, body = page.request("/status")
        assert (code, headers["content-type"]) == (200, "application/json")
        files = [one["file"] for one in json.loads(body)["ended"]]
        assert files == [
            "<script>alert(1)</script>",
            "\\\"'><img src=x onerror=alert(1)>",
            "line\\nfeed\\r\\ttab",
            "\\xff\\xfe\\xe4",
            "a\\u202egnp.exe",
            "</script><!--",
            "x" * 159 + "…",
        ]
        assert "alert" not in page.request("/metrics")[2].decode()


def test_resolved_names_are_counted_and_shown(tmp_path):
    with web(tmp_path, names={"fallbacks": ["drive", "case"]}) as page:
        (page.running.root / "BCD").write_bytes(b"x" * 1000)
        port = page.running.port
        for name in (b"BCD", b"C:\\bcd", b"bcd"):
            get(port, name)
        with pytest.raises(ServerError):
            get(port, b"c:none")
        page.running.awaited(4)
        status = page.status()
        found = {"drive": 1, "trailing": 0, "encoding": 0, "prefix": 0, "case": 2}
        found |= {"sibling": 0, "default_loader": 0, "rewrite": 0, "template": 0}
        assert status["resolved_names"] == found
        assert [(one["served_name"], one["resolution_steps"]) for one in status["ended"]] == [
            (None, []),
            ("BCD", ["drive", "case"]),
            ("BCD", ["case"]),
            (None, []),
        ]
        assert _metrics(page)["tftpd_resolved_names_total", "case"] == 2


@pytest.mark.check
def test_each_client_has_a_verdict(tmp_path):
    with web(tmp_path) as page:
        (page.running.root / "boot.efi").write_bytes(b"x" * 10_000)
        port = page.running.port
        with SlowReader(port, b"boot.efi", host="127.0.0.2") as probe:
            probe.hang_up()
        with SlowReader(port, b"nothing.cfg", host="127.0.0.3") as miss:
            assert miss.refused
        with SlowReader(port, b"boot.efi", host="127.0.0.4") as stuck:
            stuck.read(3)
            page.running.awaited(2)
            until(lambda: _verdicts(page).get("127.0.0.4", "").startswith("stuck at block 3 of 11"))
            assert _verdicts(page) == {
                "127.0.0.2": "probe only: requested the size of boot.efi",
                "127.0.0.3": "not found only: nothing.cfg",
                "127.0.0.4": _verdicts(page)["127.0.0.4"],
            }


def _verdicts(page):
    return {client["client"]: client["text"] for client in page.status()["clients"]}


def test_malformed_datagrams_are_counted(tmp_path):
    with web(tmp_path) as page, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(3):
            sock.sendto(b"\0\1", ("127.0.0.1", page.running.port))
        until(lambda: _metrics(page)["tftpd_dropped_datagrams_total", "malformed"] == 3)


def _pid_of(page, number):
    return page.status()["workers"][number]["pid"]


@pytest.mark.check
def test_the_status_merges_all_workers(tmp_path):
    with web(tmp_path, workers=2) as page, ExitStack() as clients:
        (page.running.root / "file").write_bytes(b"x" * 9_000)
        until(lambda: all(_answering(page)))
        slow = [clients.enter_context(SlowReader(page.running.port, b"file")) for _ in range(12)]
        for client in slow:
            client.read(2)
        until(lambda: len(page.status()["running"]) == 12)
        assert {one["bytes"] for one in page.status()["running"]} == {2000}
        until(lambda: _metrics(page)["tftpd_running_bytes", "read"] == 24_000)
        for client in slow:
            client.read(8)
        page.running.awaited(12)
        until(lambda: page.status()["running"] == [])
        assert _metrics(page)["tftpd_transfers_total", "read", "done"] == 12
        assert page.status()["clients"][0]["text"] == "read file"


@pytest.mark.check
def test_the_status_shows_workers_that_die_or_do_not_answer(tmp_path):
    with web(tmp_path, workers=2) as page:
        until(lambda: all(_answering(page)))
        first = _pid_of(page, 0)
        os.kill(first, signal.SIGKILL)
        until(lambda: page.status()["workers"][0]["answers"] and _pid_of(page, 0) != first)
        assert page.status()["workers"][0]["restarts"] == 1
        assert _metrics(page)["tftpd_worker_restarts_total",] == 1
        stopped = _pid_of(page, 1)
        os.kill(stopped, signal.SIGSTOP)
        try:
            until(lambda: _answering(page) == [True, False])
            assert _metrics(page)["tftpd_workers_unresponsive",] == 1
        finally:
            os.kill(stopped, signal.SIGCONT)
        until(lambda: page.status()["workers"][1]["answers"])


def _answering(page):
    return [worker["answers"] for worker in page.status()["workers"]]


def _health_over(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(WAIT_SECONDS)
        sock.connect(str(path))
        sock.sendall(b"GET /health HTTP/1.0\r\nHost: anything\r\n\r\n")
        return b"".join(iter(lambda: sock.recv(1000), b""))


def test_a_unix_socket_is_accessible_to_owner_and_group_only(tmp_path):
    path = tmp_path / "status.sock"
    with daemon(tmp_path, status={"socket": str(path)}) as running:
        assert stat.filemode(path.stat().st_mode) == "srw-rw----"
        assert _health_over(path).endswith(b"ok\n")
        running.stop(signal.SIGKILL)
    assert path.exists()
    with daemon(tmp_path, status={"socket": str(path)}):
        assert _health_over(path).endswith(b"ok\n")
    assert not path.exists()


def test_a_unix_socket_in_use_is_not_replaced(tmp_path):
    path = tmp_path / "status.sock"
    with daemon(tmp_path, status={"socket": str(path)}):
        (tmp_path / "other").mkdir()
        with (
            pytest.raises(AssertionError, match="cannot serve the status page on"),
            daemon(tmp_path / "other", status={"socket": str(path)}),
        ):
            pass
        assert _health_over(path).endswith(b"ok\n")


@pytest.mark.check
def test_a_port_in_use_ends_the_start_with_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = tmp_path / "t.yaml"
        config.write_text(
            f"listen: [{{address: 127.0.0.1, port: {free_port()}}}]\n"
            f"directories: [{{root: {tmp_path}, read: true}}]\n"
            f"status: {{port: {taken.getsockname()[1]}}}\n"
        )
        ended = subprocess.run(
            twistd("tftp", "--config", str(config)),
            capture_output=True,
            text=True,
            timeout=60,
            env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        )
    assert ended.returncode == 1
    assert "cannot serve the status page on 127.0.0.1 port" in ended.stdout
    assert "Address already in use" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(("address", "warned"), [("127.0.0.1", 0), ("0.0.0.0", 1), ("::1", 0)])
def test_an_address_other_than_loopback_causes_a_warning(tmp_path, address, warned):
    with web(tmp_path, status={"address": address}) as page:
        log = page.running.log.read_text()
    assert log.count("has no password") == warned


def test_without_configuration_no_socket_is_opened_and_no_library_imported(tmp_path):
    with daemon(tmp_path) as running:
        maps = Path(f"/proc/{running.process.pid}/net/tcp").read_text()
        own = {os.readlink(fd.path) for fd in os.scandir(f"/proc/{running.process.pid}/fd")}
        sockets = {f"socket:[{line.split()[9]}]" for line in maps.splitlines()[1:]}
        assert not own & sockets
    code = (
        "import sys, tftpd.daemon.service, tftpd.daemon.worker\n"
        "print([name for name in ('prometheus_client', 'twisted.web') if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
    )
    assert loaded.stdout == "[]\n"


@pytest.mark.check
def test_health_reports_that_the_daemon_drains(tmp_path):
    """A stopped worker delays the end of the daemon."""
    with web(tmp_path, workers=2) as page:
        until(lambda: all(_answering(page)))
        assert page.request("/health")[::2] == (200, b"ok\n")
        stopped = _pid_of(page, 1)
        os.kill(stopped, signal.SIGSTOP)
        page.running.process.terminate()
        until(lambda: page.request("/health")[::2] == (503, b"draining\n"))
        os.kill(stopped, signal.SIGCONT)
        assert page.running.process.wait(WAIT_SECONDS) in (0, -signal.SIGTERM)


def test_reloads_are_counted_and_update_the_listeners(tmp_path):
    with web(tmp_path) as page:
        config = tmp_path / "tftpd.yaml"
        document = yaml.safe_load(config.read_text())
        first, second = page.running.port, free_port()
        assert page.status()["config_file"] == str(config)
        assert page.status()["listeners"] == [f"127.0.0.1:{first}"]
        document["listen"].append({"address": "127.0.0.1", "port": second})
        config.write_text(yaml.safe_dump(document))
        page.running.process.send_signal(signal.SIGHUP)
        until(lambda: _metrics(page)["tftpd_reloads_total", "ok"] == 1)
        assert page.status()["listeners"] == [f"127.0.0.1:{first}", f"127.0.0.1:{second}"]
        document["status"] = True
        config.write_text(yaml.safe_dump(document))
        page.running.process.send_signal(signal.SIGHUP)
        until(lambda: _metrics(page)["tftpd_reloads_total", "ok"] == 2)
        warnings = [event["message"] for event in page.running.events() if event["level"] == "warn"]
        assert warnings == ["status has changed: restart the daemon to apply it"]
        assert _metrics(page)["tftpd_config_last_reload_successful",] == 1
        config.write_text("nonsense")
        page.running.process.send_signal(signal.SIGHUP)
        until(lambda: _metrics(page)["tftpd_reloads_total", "failed"] == 1)
        assert _metrics(page)["tftpd_config_last_reload_successful",] == 0


@pytest.mark.check
@pytest.mark.parametrize("workers", [1, 2])
def test_metrics_show_the_quota_of_a_directory_and_its_usage(tmp_path, workers):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "old").write_bytes(b"x" * 700)
    root = str(tmp_path / "root")
    write = {"create": True, "quota": "1MiB", "max_files": 5}
    with web(tmp_path, workers=workers, directories=[{"root": root, "write": write}]) as page:
        until(lambda: _metrics(page).get(("tftpd_directory_used_bytes", root)) == 700)
        metrics = _metrics(page)
        assert metrics["tftpd_directory_files", root] == 1
        assert metrics["tftpd_directory_quota_bytes", root] == 1 << 20
        assert metrics["tftpd_directory_max_files", root] == 5
        until(lambda: ("tftpd_directory_free_bytes", root) in _metrics(page))


def test_requests_and_uploads_survive_a_restart(tmp_path):
    state = tmp_path / "state.json"
    with web(tmp_path, status={"state": "state.json"}) as page:
        put(page.running.port, b"sw1.cfg", b"x" * 700)
        with pytest.raises(ServerError):
            get(page.running.port, b"missing")
        page.running.awaited(2)
        before = page.status()
        assert page.running.stop() in (0, -signal.SIGTERM)
    assert stat.filemode(state.stat().st_mode) == "-rw-------"
    with web(tmp_path, status={"state": str(state)}) as page:
        after = page.status()
        assert [after[key] for key in ("number", "ended", "uploads")] == [
            before[key] for key in ("number", "ended", "uploads")
        ]
        assert [client["text"] for client in after["clients"]] == ["stored sw1.cfg"]
        (upload,) = after["uploads"]
        assert (upload["client"], upload["file"], upload["bytes"]) == ("127.0.0.1", "sw1.cfg", 700)
        assert (upload["number"], upload["failed"], upload["detail"]) == (1, None, None)
        get(page.running.port, b"sw1.cfg")
        page.running.awaited(1)
        status = page.status(after["number"])
        assert [one["number"] for one in status["ended"]] == [3]
        assert status["uploads"] == []


def test_systemd_provides_the_directory_of_the_state(tmp_path):
    (tmp_path / "state").mkdir()
    port = free_port(socket.SOCK_STREAM)

    def environment(log):
        return {"STATE_DIRECTORY": f"{tmp_path}/state:{tmp_path}/state/upload"}

    with daemon(tmp_path, environment=environment, status={"port": port}) as running:
        put(running.port, b"new", b"")
        running.awaited(1)
        running.stop()
    assert os.listdir(tmp_path / "state") == ["status.json"]


@pytest.mark.parametrize("kind", ["text", "impossible", "fifo", "link", "directory"])
def test_a_state_that_cannot_be_read_is_a_warning(tmp_path, kind):
    state = tmp_path / "state.json"
    if kind == "text":
        state.write_text("not JSON")
    elif kind == "impossible":
        step = {"kind": "file", "names": [], "outcome": "done", "code": None, "detail": "",
                "bytes_transferred": 1, "position": "", "began": 0, "ended": 0}  # fmt: skip
        content = {"format": 1, "time": 0, "clock": 0, "number": 1, "ended": [], "uploads": {}}
        state.write_text(
            json.dumps(content | {"clients": {"10.0.0.1": {"steps": [step], "changed": 1}}})
        )
    elif kind == "fifo":
        os.mkfifo(state)
    elif kind == "link":
        (tmp_path / "other").write_text("untouched")
        state.symlink_to(tmp_path / "other")
    else:
        state.mkdir()
    with web(tmp_path, status={"state": str(state)}) as page:
        assert page.status()["ended"] == []
        put(page.running.port, b"new", b"")
        page.running.awaited(1)
        page.running.stop()
        warnings = [event["message"] for event in page.running.events() if event["level"] == "warn"]
    assert warnings[0].startswith(
        f"the saved requests of the status page in {state} cannot be read: "
    )
    if kind == "directory":
        assert warnings[1].endswith("cannot be written: Is a directory")
    else:
        assert json.loads(state.read_bytes())["number"] == 1
        assert not state.is_symlink()


def _source(*running):
    return SimpleNamespace(snapshot=lambda: succeed(Snapshot(running)))


UPLOAD = TransferResult(Direction.WRITE, ("10.0.0.7", 1), b"x", Outcome.DONE)


def test_clients_have_their_mac_address_and_the_host_name_of_the_configuration(monkeypatch):
    known = {"10.0.0.7": bytes.fromhex("525400123456")}
    monkeypatch.setattr(Neighbours, "mac", lambda self, client: known.get(client[0]))
    rules = [
        VariableRule({"hostname": "unknown", "other": 1}),
        VariableRule({"hostname": "web1"}, macs=[known["10.0.0.7"]]),
        VariableRule({"hostname": 8}, clients=[ip_network("10.0.0.8")]),
    ]
    settings = SimpleNamespace(
        active_profiles=list,
        build_mounts=list,
        build_variables=lambda: VariableTable(rules),
        devices=[],
        node=None,
    )
    service = StatusService(reactor := MemoryReactor(), StatusSection())
    service.bind()
    service.configure([], settings)
    # The first transfer of one client still runs.
    service.start(_source(SessionSnapshot(Direction.READ, ("::ffff:10.0.0.9", 1), b"x",
                                          SessionState.OPENING)))  # fmt: skip
    service(UPLOAD)
    service(replace(UPLOAD, peer=("10.0.0.8", 1)))

    def identities():
        response = reactor.request(b"GET /status HTTP/1.0\r\n\r\n")
        clients = json.loads(response.partition(b"\r\n\r\n")[2])["clients"]
        return {client["client"]: (client["mac"], client["hostname"]) for client in clients}

    assert identities() == {
        "10.0.0.7": ("52:54:00:12:34:56", "web1"),
        "10.0.0.8": (None, None),
        "::ffff:10.0.0.9": (None, "unknown"),
    }
    known.clear()  # the client has left the neighbour table
    reactor.advance(60)
    assert identities()["10.0.0.7"][0] == "52:54:00:12:34:56"
    known["10.0.0.7"] = bytes.fromhex("525400abcdef")  # another machine has its address
    service(UPLOAD)
    reactor.advance(60)
    assert identities()["10.0.0.7"] == ("52:54:00:ab:cd:ef", "unknown")
    rules.clear()
    service.configure([], settings)
    service(UPLOAD)
    reactor.advance(60)
    assert identities()["10.0.0.7"] == ("52:54:00:ab:cd:ef", None)
    service.stop()


def test_the_state_is_saved_now_and_then(tmp_path):
    reactor, state = MemoryReactor(), tmp_path / "state.json"
    service = StatusService(reactor, StatusSection(state=str(state)))
    service.start(_source())
    service(UPLOAD)
    reactor.advance(59)
    assert not state.exists()
    reactor.advance(1)
    saved = state.stat()
    reactor.advance(600)
    assert state.stat() == saved  # nothing has changed
    service(UPLOAD)
    service.stop()
    assert json.loads(state.read_bytes())["number"] == 2
    assert reactor.getDelayedCalls() == []


def test_maintenance_continues_after_a_fault(tmp_path):
    """No thread can be started, or a text of the configuration is no UTF-8."""
    reactor, state = MemoryReactor(), tmp_path / "state.json"
    service = StatusService(reactor, StatusSection(state=str(state)))
    service.start(_source())
    reactor.callInThreadWithCallback = lambda *_: (_ for _ in ()).throw(RuntimeError("no thread"))
    service(UPLOAD)
    reactor.advance(60)
    assert not state.exists()
    del reactor.callInThreadWithCallback
    service(UPLOAD)
    reactor.advance(60)
    assert json.loads(state.read_bytes())["number"] == 2
    service(replace(UPLOAD, profile="\ud800"))
    reactor.advance(60)
    service.stop()
    assert reactor.getDelayedCalls() == []


def test_requests_to_the_page_are_not_logged(tmp_path):
    with web(tmp_path) as page:
        before = len(page.running.events())
        for path in PATHS:
            page.request(path)
        assert page.running.events()[before:] == []


@pytest.mark.check
def test_the_number_of_listed_sessions_is_bounded(tmp_path):
    with web(tmp_path) as page, ExitStack() as sockets:
        (page.running.root / "file").write_bytes(b"x" * 5000)
        for _ in range(600):
            sock = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.sendto(request(1, b"file"), ("127.0.0.1", page.running.port))
        until(lambda: page.status()["sessions"]["read"]["opening"] == 600)
        before = time.monotonic()
        assert len(page.status()["running"]) == 500
        assert time.monotonic() - before < 2


def test_health_reports_a_worker_that_does_not_answer():
    service = StatusService.__new__(StatusService)
    service._state = "serving"
    service._source = SimpleNamespace(problem="worker 1 does not answer\n")
    service._origins = SimpleNamespace(problem="no fetcher\n")
    answer = service._answer_health(None)
    assert (answer.code, answer.body) == (503, b"worker 1 does not answer\nno fetcher\n")
