"""Stores against real engines."""

import os
import subprocess
import threading
import time

import pytest

from tests.origins.buckets import make_bucket
from tests.origins.settings import CredentialsFile, Origin, Timeout
from tests.origins.stores import read
from tests.support import origin_engines
from tests.support.daemons import until
from tests.support.programs import library
from tftpd.origins.factory import open_store
from tftpd.origins.stores import (
    NotModified,
    ObjectExists,
    ObjectNotFound,
    OriginError,
    OriginUnavailable,
)

library("obstore")
library("urllib3")

pytestmark = [pytest.mark.check, pytest.mark.xdist_group("origin engines")]

BIG = os.urandom(6 << 20)
"""More than one part of an upload."""


@pytest.fixture(scope="module")
def credentials(tmp_path_factory):
    path = tmp_path_factory.mktemp("credentials") / "origin.env"
    path.write_text(
        f"AWS_ACCESS_KEY_ID={origin_engines.ACCESS_KEY}\n"
        f"AWS_SECRET_ACCESS_KEY={origin_engines.SECRET_KEY}\n"
    )
    return CredentialsFile(str(path))


def _make_origin(engine, credentials):
    """Create the bucket in an engine, and return the settings of its origin."""
    return Origin(**{**make_bucket(engine).section, "credentials": credentials})


@pytest.fixture(scope="module")
def moto(tmp_path_factory, credentials):
    with origin_engines.moto(tmp_path_factory.mktemp("moto")) as engine:
        yield _make_origin(engine, credentials)


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory, credentials):
    with origin_engines.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as engine:
        yield _make_origin(engine, credentials)


@pytest.fixture(params=["moto", "seaweedfs"])
def bucket(request):
    store = open_store(request.getfixturevalue(request.param), {})
    yield store
    store.close()


@pytest.mark.parametrize("content", [b"", b"small", BIG], ids=["empty", "small", "big"])
def test_what_was_stored_is_read(bucket, content):
    key = f"stored/ü %2e%2e {len(content)}"
    parts = [content[start : start + 100_000] for start in range(0, len(content), 100_000)]
    etag = bucket.put(key, parts, create=False)
    info, body = read(bucket, key)
    assert body == content
    assert (info.size, info.etag) == (len(content), etag)
    with pytest.raises(NotModified):
        bucket.get(key, etag)
    bucket.put(key, [b"changed"], create=False)
    assert read(bucket, key, etag)[1] == b"changed"


@pytest.mark.parametrize("content", [b"small", BIG], ids=["small", "big"])
def test_one_of_many_creates_wins(request, bucket, content):
    if content is BIG and "moto" in request.node.name:
        pytest.skip("moto completes an upload in parts without a lock")
    key = f"created {len(content)}"
    outcomes = []

    def create(n):
        try:
            bucket.put(key, [bytes([n]), content[1:]], create=True)
            outcomes.append(n)
        except ObjectExists:
            outcomes.append(None)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [n for n in outcomes if n is not None]
    assert len(outcomes) == 4
    assert len(winners) == 1
    assert read(bucket, key)[1] == bytes(winners) + content[1:]


@pytest.mark.parametrize("sent", [[b"x"], [BIG, BIG]], ids=["small", "big"])
def test_an_upload_that_stops_leaves_no_object(bucket, sent):
    def chunks():
        yield from sent
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bucket.put("stopped", chunks(), create=False)
    with pytest.raises(ObjectNotFound):
        bucket.get("stopped")


def test_a_good_bucket_passes_the_probe(bucket):
    bucket.probe(writes=True)
    bucket.probe(writes=True)


def test_a_missing_bucket_fails_the_probe(moto):
    store = open_store(Origin("s3://missing", moto.endpoint, moto.credentials), {})
    with pytest.raises(OriginError, match="there is no 'missing'"):
        store.probe(writes=False)


def test_wrong_credentials_fail_the_probe(seaweedfs, tmp_path):
    path = tmp_path / "wrong.env"
    path.write_text(
        f"AWS_ACCESS_KEY_ID={origin_engines.ACCESS_KEY}\nAWS_SECRET_ACCESS_KEY=wrongwrong\n"
    )
    store = open_store(Origin(seaweedfs.url, seaweedfs.endpoint, CredentialsFile(str(path))), {})
    with pytest.raises(OriginError, match="403 Forbidden SignatureDoesNotMatch") as caught:
        store.probe(writes=False)
    assert "wrongwrong" not in str(caught.value)


def test_a_store_that_ignores_conditions_fails_the_probe(tmp_path, credentials):
    with origin_engines.rclone(tmp_path) as engine:
        (tmp_path / "files/boot").mkdir()
        store = open_store(Origin("s3://boot", engine.url.rstrip("/"), credentials), {})
        store.put("a", [b"1"], create=False)
        assert read(store, "a")[1] == b"1"
        store.probe(writes=False)
        with pytest.raises(OriginError, match="ignores conditional writes"):
            store.probe(writes=True)


def test_nginx_as_a_web_server(tmp_path):
    with origin_engines.nginx(tmp_path) as engine:
        store = open_store(Origin(f"{engine.url}tree"), {})
        key = "ü/%2e%2e/a?b"
        store.put(key, [b"12", b"345"], create=False)
        assert (tmp_path / "files/tree" / key).read_bytes() == b"12345"
        info, body = read(store, key)
        assert (info.size, body) == (5, b"12345")
        with pytest.raises(NotModified):
            store.get(key, info.etag)
        with pytest.raises(ObjectNotFound):
            store.get("absent")
        with pytest.raises(OriginError, match="ignores conditional writes"):
            store.probe(writes=True)

        def chunks():
            yield b"1"
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.put("stopped", chunks(), create=False)
        assert not (tmp_path / "files/tree/stopped").exists()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Serve https; the value is the server, and the file of its authority."""
    path = tmp_path_factory.mktemp("tls")
    ca_file = origin_engines.make_certificate(path, "IP:127.0.0.1")
    with origin_engines.nginx(path, certificate=path / "server.pem") as engine:
        (path / "files/boot").mkdir()
        (path / "files/boot/a").write_bytes(b"secret")
        yield engine, str(ca_file)


def origin_with_tls(kind, url, ca_file):
    if kind == "object":  # nginx answers a GET as S3 does
        return Origin("s3://boot", url.rstrip("/"), ca_file=ca_file)
    return Origin(f"{url}boot", ca_file=ca_file)


@pytest.mark.parametrize("kind", ["web", "object"])
def test_a_private_authority_is_trusted(tls, kind):
    engine, ca_file = tls
    store = open_store(origin_with_tls(kind, engine.url, ca_file), {})
    assert read(store, "a")[1] == b"secret"


@pytest.mark.parametrize("kind", ["web", "object"])
@pytest.mark.parametrize("trusted", ["system", "another"])
def test_an_unknown_authority_is_refused(tls, tmp_path, kind, trusted):
    engine, _ = tls
    another = str(origin_engines.make_certificate(tmp_path, "IP:127.0.0.1"))
    ca_file = another if trusted == "another" else None
    store = open_store(origin_with_tls(kind, engine.url, ca_file), {})
    with pytest.raises(
        OriginError, match=r"certificate not accepted: .*(issuer|signature).*; ca_file"
    ) as error:
        store.get("a")
    assert not isinstance(error.value, OriginUnavailable)


@pytest.mark.parametrize("kind", ["web", "object"])
def test_a_certificate_for_another_host_is_refused(tmp_path, kind):
    ca_file = str(origin_engines.make_certificate(tmp_path, "DNS:origin.example"))
    with origin_engines.nginx(tmp_path, certificate=tmp_path / "server.pem") as engine:
        store = open_store(origin_with_tls(kind, engine.url, ca_file), {})
        with pytest.raises(
            OriginError,
            match=r"not accepted: (not valid for name|IP address mismatch|hostname '127)",
        ):
            store.get("a")


def restart(engine):
    engine.process.kill()
    engine.process.wait()
    engine.process = subprocess.Popen(engine.process.args, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("kind", ["web", "object"])
def test_an_origin_that_restarts_is_read_to_the_end(tmp_path, kind):
    (tmp_path / "files").mkdir()
    (tmp_path / "files/boot").mkdir()
    (tmp_path / "files/boot/big").write_bytes(BIG)
    with origin_engines.nginx(tmp_path, limit_rate="3m") as engine:
        origin = Origin(f"{engine.url}boot")
        if kind == "object":  # nginx answers a GET as S3 does
            origin = Origin("s3://boot", engine.url.rstrip("/"), timeout=Timeout(read=2))
        download = open_store(origin, {}).get("big")
        chunks = download.chunks()
        content = next(chunks)
        restart(engine)
        assert content + b"".join(chunks) == BIG
        download.close()
        # nginx writes the line after the last byte.
        until(lambda: '" 206 ' in (tmp_path / "access.log").read_text())


def test_a_slow_origin_is_read_while_it_sends(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files/big").write_bytes(BIG)
    with origin_engines.nginx(tmp_path, limit_rate="3m") as engine:
        download = open_store(Origin(engine.url), {}).get("big")
        began = time.monotonic()
        first = next(download.chunks())
        assert len(first) < len(BIG) // 2
        assert time.monotonic() - began < 1.5  # the whole takes two seconds
        download.close()
