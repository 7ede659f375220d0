"""Socket activation with systemd-socket-activate."""

import os
import socket
import subprocess

import pytest
import yaml

from tests.support.daemons import CHECKOUT, free_port, twistd
from tests.support.plain import get
from tests.support.programs import program

pytestmark = pytest.mark.check


@pytest.fixture
def activate():
    return program("systemd-socket-activate")


def _command(activate, tmp_path, address, **settings):
    config = tmp_path / "t.yaml"
    directories = [{"root": str(tmp_path), "read": True}]
    config.write_text(yaml.safe_dump({"directories": directories, **settings}))
    start = twistd("tftp", "--config", str(config))
    return [activate, "--datagram", "-l", address, "-E", "PYTHONPATH", *start]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("mode", [None, "per-session", "single-port"])
def test_the_request_that_starts_the_daemon_is_served(activate, tmp_path, host, mode):
    """Without a mode, the configuration has no `listen`."""
    port = free_port()
    (tmp_path / "file").write_bytes(b"content" * 300)
    listen = {"listen": [{"address": host, "port": port, "mode": mode}]} if mode else {}
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    process = subprocess.Popen(
        _command(activate, tmp_path, address, **listen),
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr.readline().startswith(b"Listening on ")
        # This request starts the daemon.
        assert get(port, b"file", host=host) == b"content" * 300
        # The next request, of another client, is served too.
        assert get(port, b"file", [("blksize", 700)], host=host) == b"content" * 300
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_a_dual_stack_socket_is_refused_in_one_line(activate, tmp_path):
    port = free_port()
    process = subprocess.Popen(
        _command(activate, tmp_path, str(port)),
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr.readline().startswith(b"Listening on ")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"\0\1file\0octet\0", ("127.0.0.1", port))
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    assert b"a socket that accepts both IPv4 and IPv6: " in output
    assert b"; use two sockets with BindIPv6Only=ipv6-only\n" in output
    assert b"Traceback" not in output + errors
