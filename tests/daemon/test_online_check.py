"""`tftpd check --online` asks each origin once."""

import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tftpd.config import origin_checks
from tftpd.config.loader import load_settings
from tftpd.daemon import online_check
from tftpd.daemon.cli import main
from tftpd.origins.stores import OriginError

CONFIGURATION = """
origins:
  fleet: {url: s3://boot/tree, credentials: environment}
  spare:
    url: s3://spare
cache: {path: c}
directories:
  - {path: /, root: [srv, "origin:fleet"], read: true}
  - {path: /new, root: "origin:fleet/new", write: {create: true, overwrite: false}}
  - {path: /any, root: "origin:spare", write: {overwrite: true}}
listen: [{address: 127.0.0.1, port: 6969}]
"""


class Stores:
    """Stores that record their probes; `failures` has an exception for a URL."""

    def __init__(self):
        self.failures = {}
        self.probes = []
        self.closed = 0

    def __call__(self, section, environment):
        return _Store(self, section.url, dict(environment))


class _Store:
    def __init__(self, stores, url, environment):
        self.stores, self.url, self.environment = stores, url, environment

    def probe(self, writes):
        self.stores.probes.append((self.url, writes, self.environment))
        if self.url in self.stores.failures:
            raise self.stores.failures[self.url]

    def close(self):
        self.stores.closed += 1


@pytest.fixture
def stores(monkeypatch):
    stores = Stores()
    monkeypatch.setattr(origin_checks, "find_spec", lambda name: object())
    monkeypatch.setattr(online_check, "open_store", stores)
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    return stores


@pytest.fixture
def config(tmp_path):
    (tmp_path / "srv").mkdir()
    path = tmp_path / "t.yaml"
    path.write_text(CONFIGURATION)
    return str(path)


LISTEN = "listen[0]: 127.0.0.1 port 6969 receives IPv4 requests"


def test_each_origin_is_asked_once(stores, config, capsys):
    assert main(["check", "--online", config]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "origins.fleet: s3://boot/tree answers",
        "origins.spare: s3://spare answers",
        f"{config}: no problems",
        LISTEN,
    ]
    # Only uploads that may not replace an object need a conditional create.
    environment = {"AWS_SECRET_ACCESS_KEY": "s"}
    assert stores.probes == [
        ("s3://boot/tree", True, environment),
        ("s3://spare", False, environment),
    ]
    assert stores.closed == 2
    assert "AWS_SECRET_ACCESS_KEY" not in os.environ


def test_without_the_option_no_origin_is_asked(stores, config, capsys):
    assert main(["check", config]) == 0
    assert stores.probes == []


def test_an_origin_that_cannot_be_used_is_shown_with_its_line(stores, config, capsys):
    stores.failures["s3://spare"] = OriginError("no such bucket")
    assert main(["check", "--online", config]) == 1
    printed = capsys.readouterr()
    assert printed.out == "origins.fleet: s3://boot/tree answers\n"
    assert printed.err == f"{config}:4: origins.spare: no such bucket\n"
    assert stores.closed == 2


def test_a_blocked_connection_names_the_setting_of_systemd(stores, config, capsys):
    stores.failures["s3://boot/tree"] = OriginError("Operation not permitted", blocked=True)
    assert main(["check", "--online", config]) == 1
    assert capsys.readouterr().err == (
        f"{config}:3: origins.fleet: Operation not permitted; under systemd, IPAddressAllow= "
        "permits it: run `tftpd install-units` again\n"
    )


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.paths.append(self.path)
        self.send_error(404)

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *arguments):
        pass


def test_a_web_server_answers(tmp_path, capsys):
    """The whole way, with the real store."""
    with HTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.paths = []
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/boot"
        (tmp_path / "t.yaml").write_text(
            f'origins: {{web: {{url: "{url}", timeout: {{connect: 5, read: 5}}}}}}\n'
            'cache: {path: c}\ndirectories: [{root: "origin:web", read: true}]\n'
        )
        assert main(["check", "--online", str(tmp_path / "t.yaml")]) == 0
        server.shutdown()
        thread.join(10)
    assert f"origins.web: {url} answers" in capsys.readouterr().out
    assert server.paths
    assert all(path.startswith("/boot") for path in server.paths)
    # The port is closed now.
    ((name, reason),) = online_check.ask_origins(load_settings(tmp_path / "t.yaml"))
    assert (name, bool(reason)) == ("web", True)
