"""HTTP over TLS, with certificates of the tests."""

import http.client
import os
import socket
import ssl
import subprocess

import pytest

from tests.support.daemons import daemon, free_port
from tests.support.programs import library, program

library("OpenSSL")

pytestmark = pytest.mark.check

BIG = os.urandom(1 << 20)


def _make_certificate(directory, name="localhost"):
    """Write cert.pem and key.pem."""
    command = [program("openssl"), "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return ssl.create_default_context(cafile=str(directory / "cert.pem"))


def _get(port, context, *headers):
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
    connection.request("GET", "/big", headers=dict(headers))
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


@pytest.fixture
def listen():
    """A listener for TFTP, and one for HTTPS."""
    tcp = {"address": "127.0.0.1", "port": free_port(socket.SOCK_STREAM)}
    secure = tcp | {"protocol": "https", "certificate": "cert.pem", "key": "key.pem"}
    return [{"address": "127.0.0.1", "port": free_port()}, secure]


@pytest.mark.parametrize("workers", [1, 2])
def test_files_are_served_and_certificates_renewed(tmp_path, listen, workers):
    context = _make_certificate(tmp_path)
    port = listen[1]["port"]
    with daemon(tmp_path, listen=listen, workers=workers) as running:
        (running.root / "big").write_bytes(BIG)
        assert _get(port, context) == (200, BIG)
        assert _get(port, context, ("Range", "bytes=-10")) == (206, BIG[-10:])
        assert running.awaited(2)[0]["protocol"] == "https"
        renewed = _make_certificate(tmp_path, "renewed")
        running.reload()
        assert _get(port, renewed)[0] == 200
        with pytest.raises(ssl.SSLError):
            _get(port, context)
        (tmp_path / "key.pem").write_text("no key")
        (message,) = [text for text in running.reload("not reloaded") if "not reloaded" in text]
        assert "key.pem cannot be used" in message
        assert _get(port, renewed)[0] == 200


def test_a_listener_changes_its_protocol(tmp_path, listen):
    context = _make_certificate(tmp_path)
    port = listen[1]["port"]
    plain = [listen[0], {"address": "127.0.0.1", "port": port, "protocol": "http"}]
    with daemon(tmp_path, listen=plain) as running:
        (running.root / "big").write_bytes(BIG)
        for entries in (listen, plain):
            running.change(listen=entries)
            running.reload()
            if entries is listen:
                assert _get(port, context) == (200, BIG)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/big")
        assert connection.getresponse().read() == BIG
        connection.close()


def test_a_client_without_tls_is_not_served(tmp_path, listen):
    _make_certificate(tmp_path)
    with daemon(tmp_path, listen=listen) as running:
        (running.root / "big").write_bytes(BIG)
        with socket.create_connection(("127.0.0.1", listen[1]["port"]), 20) as sock:
            sock.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not sock.recv(1000).startswith(b"HTTP")
        assert running.transfers() == []
