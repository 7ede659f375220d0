"""`tftpd explain` and the listener decide alike."""

import socket

import pytest

from tftpd.access.profiles import Profile
from tftpd.config.loader import load_settings_and_document
from tftpd.daemon.explain.explanation import LoadedConfig, explain
from tftpd.net.sockets import bind_listeners
from tftpd.protocol.packets import Rrq, Wrq
from tftpd.server.listener import accepts_broadcast
from tftpd.server.listening_port import upload_window_bytes

CONFIGURATION = """
listen: [{{address: 0.0.0.0, port: 6969, mode: {mode}, broadcast: {broadcast}}}]
directories: [{{path: /, root: {root}, read: true, write: true}}]
limits: {{window_bytes: 8MiB}}
profiles:
  - {{name: heard, match: {{clients: [192.0.2.1]}}, broadcast: answer}}
  - {{name: ignored, match: {{clients: [192.0.2.2]}}, broadcast: ignore}}
"""


@pytest.fixture
def load(tmp_path):
    def build(mode="per-session", broadcast="ignore"):
        path = tmp_path / "tftpd.yaml"
        path.write_text(CONFIGURATION.format(mode=mode, broadcast=broadcast, root=tmp_path))
        settings, document = load_settings_and_document(path)
        return LoadedConfig(settings, "tftpd.yaml", document)

    return build


def test_an_upload_on_a_shared_port_is_explained_with_the_window_that_fits_its_buffer(load):
    request = Wrq(b"new", b"octet", ((b"blksize", b"65464"), (b"windowsize", b"64")))
    (sock,) = bind_listeners("127.0.0.1", 0)
    with sock:
        budget = upload_window_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
    explained = explain(load("single-port"), request, "192.0.2.7")["transfer_options"]
    assert explained["windowsize"] == max(1, min(64, budget // explained["blksize"]))
    assert explain(load(), request, "192.0.2.7")["transfer_options"]["windowsize"] == 64


@pytest.mark.parametrize("broadcast", ["answer", "ignore"])
@pytest.mark.parametrize(
    ("client", "profile"), [("192.0.2.1", True), ("192.0.2.2", False), ("192.0.2.3", None)]
)
def test_broadcasts_are_explained_as_the_listener_decides(load, broadcast, client, profile):
    result = explain(load(broadcast=broadcast), Rrq(b"x", b"octet"), client, "255.255.255.255")
    accepted = accepts_broadcast(broadcast == "answer", Profile("", broadcast=profile))
    assert (result["answer"] is not None) is accepted
