"""The daemon on a socket that systemd's own program has bound."""

import os
import shutil
import socket
import subprocess

import pytest
import yaml

from tests.support.daemons import CHECKOUT, free_port, twistd
from tests.support.plain import get


@pytest.fixture
def activate():
    """The program's path; skips without it, unless TFTPD_INTEROP is `required`."""
    path = shutil.which("systemd-socket-activate")
    if path is None and os.environ.get("TFTPD_INTEROP") != "required":
        pytest.skip("systemd-socket-activate is not installed")
    assert path, "systemd-socket-activate is not installed"
    return path


def _command(activate, tmp_path, address, **settings):
    config = tmp_path / "t.yaml"
    directories = [{"root": str(tmp_path), "read": True}]
    config.write_text(yaml.safe_dump({"directories": directories, **settings}))
    start = twistd("tftp", "--config", str(config))
    return [activate, "--datagram", "-l", address, "-E", "PYTHONPATH", *start]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("mode", [None, "per-session", "single-port"])
def test_a_request_that_came_before_the_daemon_is_served(activate, tmp_path, host, mode):
    """Without a mode, `listen` is left out."""
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
        # It is only this request that has the daemon started.
        assert get(port, b"file", host=host) == b"content" * 300
        # And it takes the next, of another client: it does not hang in the socket.
        assert get(port, b"file", [("blksize", 700)], host=host) == b"content" * 300
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_a_socket_for_both_families_is_refused_in_one_line(activate, tmp_path):
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
        said, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    assert b"that takes IPv4 too; use two, BindIPv6Only=ipv6-only\n" in said
    assert b"Traceback" not in said + errors
