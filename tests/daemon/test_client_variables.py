"""Template variables of single clients: `tftpd ctl set`, `unset` and `variables`."""

import json
import os
import signal
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from tests.support import plain
from tests.support.daemons import daemon, until
from tftpd.daemon import client_variables
from tftpd.daemon.cli import main
from tftpd.daemon.client_variables import SINGLE_USE_SECONDS, VariableError, VariableStore
from tftpd.status.state_file import MAX_FILE_BYTES

TEMPLATE = "{{ variables.boot | default('disk') }}"
MAC = "52:54:00:12:34:56"


class Serving:
    """Stands for the servers: it keeps what they would get."""

    def __init__(self):
        self.sent = {}

    def set_variables(self, clients):
        self.sent.update(clients)

    def values(self, client):
        return {name: each.value for name, each in self.sent[client].items()}


class Threads(Clock):
    """A reactor whose threads run the work at once."""

    def getThreadPool(self):
        return self

    def callInThreadWithCallback(self, on_result, work, *arguments):
        try:
            result = work(*arguments)
        except Exception as error:
            on_result(False, error)
        else:
            on_result(True, result)

    def callFromThread(self, work, *arguments):
        work(*arguments)


@pytest.fixture
def clock(monkeypatch):
    """Return the wall clock of the store."""
    clock = Clock()
    clock.advance(1_000_000)
    monkeypatch.setattr(client_variables.time, "time", clock.seconds)
    return clock


def _store(path=None):
    serving = Serving()
    return VariableStore(Threads(), serving, path and str(path)), serving


def _names(store):
    return [(each["client"], each["name"]) for each in store.describe()]


def _failure(deferred):
    failures = []
    deferred.addErrback(lambda failure: failures.append(failure.value))
    return str(failures[0])


def test_values_are_added_replaced_and_removed():
    store, serving = _store()
    store.set("52-54-00-12-34-56".upper(), {"boot": "installer", "disk": "sda"}, None, False)
    store.set(MAC, {"disk": "vda"}, None, False)
    assert serving.values(MAC) == {"boot": "installer", "disk": "vda"}
    store.set("::ffff:192.0.2.7", {"boot": 1}, None, False)
    assert _names(store) == [("192.0.2.7", "boot"), (MAC, "boot"), (MAC, "disk")]
    removed = []
    store.unset(MAC, ["disk", "other"]).addCallback(removed.append)
    assert serving.values(MAC) == {"boot": "installer"}
    store.unset(MAC, []).addCallback(removed.append)
    store.unset(MAC, []).addCallback(removed.append)
    assert (removed, serving.sent[MAC]) == ([1, 1, 0], {})
    assert _names(store) == [("192.0.2.7", "boot")]


def test_a_value_expires(clock):
    store, serving = _store()
    store.set(MAC, {"boot": "installer"}, 60.0, False)
    store.set(MAC, {"disk": "sda"}, None, False)
    clock.advance(59)
    assert len(_names(store)) == 2
    clock.advance(1)
    assert _names(store) == [(MAC, "disk")]
    assert serving.values(MAC) == {"disk": "sda"}


@pytest.mark.parametrize(("seconds", "end"), [(None, SINGLE_USE_SECONDS), (30.0, 30.0)])
def test_values_for_one_boot_end_soon_after_their_first_use(clock, seconds, end):
    store, serving = _store()
    store.set(MAC, {"boot": "installer"}, seconds, True)
    store.set(MAC, {"disk": "sda"}, None, False)
    serving.on_single_use(MAC)
    assert {name: each.once for name, each in serving.sent[MAC].items()} == {
        "boot": False,
        "disk": False,
    }
    clock.advance(end - 1)
    serving.on_single_use(MAC)  # of a second template, which was rendered at the same time
    assert len(_names(store)) == 2
    clock.advance(1)
    assert _names(store) == [(MAC, "disk")]


def test_values_survive_a_restart(tmp_path, clock):
    path = tmp_path / "variables.json"
    store, _ = _store(path)
    store.load()
    store.set(MAC, {"boot": {"kernel": "k", "speed": 9600}}, 3600.0, True)
    store.set("::1", {"a": None}, None, False)
    assert path.stat().st_mode & 0o777 == 0o600
    store, serving = _store(path)
    store.load()
    assert serving.values(MAC) == {"boot": {"kernel": "k", "speed": 9600}}
    assert serving.sent[MAC]["boot"].once
    clock.advance(3600)
    assert _names(store) == [("::1", "a")]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 2, "clients": {}}', b"\xff" * 9])
def test_a_damaged_file_is_logged_and_replaced(tmp_path, content):
    path = tmp_path / "variables.json"
    path.write_bytes(content)
    store, serving = _store(path)
    store.load()
    assert serving.sent == {}
    store.set(MAC, {"boot": "x"}, None, False)
    assert json.loads(path.read_bytes())["clients"][MAC]["boot"]["value"] == "x"


def test_a_value_that_cannot_be_stored_is_reported(tmp_path):
    path = tmp_path / "missing" / "variables.json"
    store, serving = _store(path)
    text = _failure(store.set(MAC, {"boot": "x"}, None, True))
    assert text == (
        f"changed until the daemon stops: cannot write {path}: No such file or directory"
    )
    assert serving.values(MAC) == {"boot": "x"}
    serving.on_single_use(MAC)  # only logs that


@pytest.mark.parametrize(
    ("client", "values", "text"),
    [
        ("router", {"a": 1}, "expected a MAC or IP address such as 52:54:00:12:34:56"),
        (7, {"a": 1}, "got 7"),
        ("52:54:00", {"a": 1}, "got '52:54:00'"),
        (MAC, {"a-b": 1}, "a-b: expected a name of letters, digits and underscores"),
        (MAC, {"a": {"b c": 1}}, "a.b c: expected a name"),
        (MAC, {}, "expected at least one name"),
        (MAC, None, "expected a mapping of names and values"),
        (MAC, {"keys": "x" * 3000}, "expected at most 3000 bytes for one client"),
    ],
)
def test_an_invalid_value_is_refused(client, values, text):
    store, serving = _store()
    with pytest.raises(VariableError) as refused:
        store.set(client, values, None, False)
    assert text in str(refused.value)
    assert serving.sent == {}


def test_the_number_of_clients_is_limited(monkeypatch, clock):
    monkeypatch.setattr(client_variables, "MAX_CLIENTS", 2)
    store, _ = _store()
    store.set("192.0.2.1", {"a": 1}, 60.0, False)
    store.set("192.0.2.2", {"a": 1}, None, False)
    with pytest.raises(VariableError, match="2 clients have values"):
        store.set("192.0.2.3", {"a": 1}, None, False)
    store.set("192.0.2.2", {"a": 2}, None, False)
    clock.advance(60)
    store.set("192.0.2.3", {"a": 1}, None, False)


@pytest.fixture(params=[1, 2])
def settings(tmp_path, request):
    """Return the settings of a daemon with a template, by the number of workers."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "boot.cfg.j2").write_text(TEMPLATE)
    return {
        "workers": request.param,
        "control": {"socket": str(tmp_path / "ctl.sock"), "variables": "state.json"},
        "directories": [{"root": str(root), "read": {"templates": True}}],
    }


def _ctl(settings, *arguments):
    return main(["ctl", *arguments, "--socket", settings["control"]["socket"]])


def _get_often(port):
    """Request the template from several ports, which several workers serve."""
    return {plain.get(port, b"boot.cfg") for _ in range(6)}


@pytest.mark.check
def test_a_machine_boots_the_installer_once(tmp_path, settings, capsys):
    with daemon(tmp_path, **settings) as running:
        assert _get_often(running.port) == {b"disk"}
        arguments = ["set", "127.0.0.1", "boot=installer", "--expires", "30m", "--once"]
        assert _ctl(settings, *arguments) == 0
        assert capsys.readouterr().out == "set for 127.0.0.1\n"
        assert _ctl(settings, "variables") == 0
        assert " or after the next boot  " in capsys.readouterr().out
        assert _get_often(running.port) == {b"installer"}
        until(lambda: any(each.get("event") == "variables_used" for each in running.events()))
        assert _ctl(settings, "variables", "--json") == 0
        (variable,) = json.loads(capsys.readouterr().out)["variables"]
        assert (variable["name"], variable["value"]) == ("boot", "installer")
        assert variable["expires"]
        assert not variable["once"]
    assert (tmp_path / "state.json").exists()  # relative to the configuration


@pytest.mark.check
def test_values_reach_new_workers_and_survive_a_restart_and_a_reload(tmp_path, settings, capsys):
    with daemon(tmp_path, **settings) as running:
        assert _ctl(settings, "set", "127.0.0.1", "boot=installer") == 0
        if settings["workers"] > 1:
            pid = running.process.pid
            for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                os.kill(int(worker), signal.SIGKILL)
        assert _get_often(running.port) == {b"installer"}
        running.change(limits={"sessions": 9})
        running.reload()
        assert _get_often(running.port) == {b"installer"}
    with daemon(tmp_path, **settings) as running:
        assert _get_often(running.port) == {b"installer"}
        assert _ctl(settings, "unset", "127.0.0.1", "boot") == 0
        assert _get_often(running.port) == {b"disk"}
        assert _ctl(settings, "unset", "127.0.0.1") == 1
        assert capsys.readouterr().err == "tftpd: 127.0.0.1 has no such variable\n"


def test_the_largest_file_can_be_read_again():
    assert client_variables.MAX_CLIENTS * client_variables.MAX_CLIENT_BYTES < MAX_FILE_BYTES
