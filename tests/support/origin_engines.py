"""Real object stores and web servers, as origins of tests."""

import json
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import program

ACCESS_KEY = "AKIDTESTTESTTEST"
SECRET_KEY = "secretsecretsecretsecret"

_START_SECONDS = 60.0  # SeaweedFS chooses a leader first, which takes long on a busy machine

_SEAWEEDFS = {
    "identities": [
        {
            "name": "test",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
    ]
}

_NGINX = """\
daemon off; pid {path}/nginx.pid; error_log stderr; master_process off;
events {{ worker_connections 200; }}
http {{
    access_log {path}/access.log;
    client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;
    fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
    client_max_body_size 1g;
    server {{
        listen 127.0.0.1:{port}{tls};
        root {path}/files;
        location / {{ dav_methods PUT; create_full_put_path on; limit_rate {limit_rate}; }}
    }}
}}
"""


@dataclass
class Engine:
    """A server that runs.

    Attributes:
        url: Its address.
        path: Directory with its files.
        process: The process; a test may end it.
    """

    url: str
    path: Path
    process: subprocess.Popen[bytes]

    def restart(self) -> None:
        """Kill the process, and start another one with the same files and addresses."""
        self.process.kill()
        self.process.wait()
        self.process = _start(self.process.args, self.path)  # type: ignore[arg-type]
        _await_answer(self)


def _start(command: Sequence[str], path: Path) -> subprocess.Popen[bytes]:
    with (path / "output.log").open("ab") as output:
        return subprocess.Popen(command, cwd=path, stdout=output, stderr=output)


def _await_answer(engine: Engine) -> None:
    """Wait until a server answers HTTP in any way."""
    deadline = time.monotonic() + _START_SECONDS
    while not _answers(engine.url):
        log = (engine.path / "output.log").read_text(errors="replace")[-2000:]
        assert engine.process.poll() is None, log
        assert time.monotonic() < deadline, log
        time.sleep(0.05)


@contextmanager
def _running(command: Sequence[str], url: str, path: Path) -> Iterator[Engine]:
    """Start a server, and wait until it answers HTTP in any way."""
    engine = Engine(url, path, _start(command, path))
    try:
        _await_answer(engine)
        yield engine
    finally:  # a test may have replaced the process
        engine.process.kill()
        engine.process.wait()


def _answers(url: str) -> bool:
    try:
        context = ssl._create_unverified_context()
        urllib.request.urlopen(url, timeout=5, context=context).close()
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


def make_certificate(path: Path, name: str) -> Path:
    """Make an authority, and a certificate of a server for an address.

    Args:
        path: Directory for `server.pem`, which has the certificate and its key.
        name: Address or name of the server as in a subjectAltName, such as `IP:127.0.0.1`.

    Returns:
        File with the certificate of the authority.
    """
    openssl = program("openssl")
    authority, key, server = path / "ca.pem", path / "ca.key", path / "server.pem"
    config = path / "openssl.cnf"
    config.write_text(
        "[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = test\n"
        "[ca]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = keyCertSign\n"
        "subjectKeyIdentifier = hash\n"
        f"[server]\nbasicConstraints = CA:FALSE\nsubjectAltName = {name}\n"
        "authorityKeyIdentifier = keyid\n"
    )
    common = [openssl, "req", "-x509", "-config", config, "-nodes", "-newkey", "rsa:2048"]
    signed = ["-extensions", "server", "-CA", authority, "-CAkey", key]
    for options in (
        ["-extensions", "ca", "-keyout", key, "-out", authority, "-subj", "/CN=authority"],
        [*signed, "-keyout", path / "server.key", "-out", server],
    ):
        subprocess.run([*common, *options], check=True, capture_output=True)
    server.write_text(server.read_text() + (path / "server.key").read_text())
    return authority


@contextmanager
def nginx(path: Path, limit_rate: str = "0", certificate: Path | None = None) -> Iterator[Engine]:
    """Serve `path/files`, with uploads by PUT.

    Args:
        path: Directory of the server.
        limit_rate: Rate of each answer, in bytes per second.
        certificate: File with a certificate and its key, for https.
    """
    command = program("nginx")
    port = _free_port()
    (path / "files").mkdir(exist_ok=True)
    config = path / "nginx.conf"
    tls = f" ssl; ssl_certificate {certificate}; ssl_certificate_key {certificate}"
    text = _NGINX.format(
        path=path, port=port, limit_rate=limit_rate, tls=tls if certificate else ""
    )
    config.write_text(text)
    url = f"{'https' if certificate else 'http'}://127.0.0.1:{port}/"
    with _running([command, "-c", str(config)], url, path) as engine:
        yield engine


@contextmanager
def moto(path: Path) -> Iterator[Engine]:
    """Serve S3 from memory, without a check of signatures."""
    port = _free_port()
    command = [program("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, f"http://127.0.0.1:{port}/", path) as engine:
        yield engine


@contextmanager
def rclone(path: Path) -> Iterator[Engine]:
    """Serve S3 from `path/files`. It ignores the conditions of all requests."""
    port = _free_port()
    (path / "files").mkdir(exist_ok=True)
    command = [
        *(program("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}"),
        *("--config", "", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", str(path / "files")),
    ]
    with _running(command, f"http://127.0.0.1:{port}/", path) as engine:
        yield engine


@contextmanager
def seaweedfs(path: Path) -> Iterator[Engine]:
    """Serve S3 from SeaweedFS: master, volume server, filer and gateway in one process."""
    ports = {name: _port_with_grpc() for name in ("master", "volume", "filer", "s3")}
    (path / "data").mkdir(exist_ok=True)
    (path / "s3.json").write_text(json.dumps(_SEAWEEDFS))
    command = [
        *(program("weed"), "server", f"-dir={path}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *("-filer", "-s3", f"-s3.config={path}/s3.json", "-volume.max=20"),
        *("-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-{name}.port={port}" for name, port in ports.items()),
    ]
    url = f"http://127.0.0.1:{ports['s3']}/"
    with _running(command, url, path) as engine:
        yield engine
    shutil.rmtree(path / "data", ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port: int = tried.getsockname()[1]
        return port


def _port_with_grpc() -> int:
    """Return a free port below 20000: SeaweedFS uses the port that is higher by 10000 too."""
    for _ in range(100):
        port = 10_000 + _free_port() % 10_000
        if _is_free(port) and _is_free(port + 10_000):
            return port
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
