"""Credentials, and the choice of a store."""

import os

import pytest

from tests.origins.settings import CredentialsFile, Origin
from tests.support.programs import library
from tests.support.web_origin import web_origin
from tftpd.origins.factory import (
    open_store,
    origin_identity,
    read_credentials,
    take_variables,
)
from tftpd.origins.stores import ObjectNotFound, OriginError


def test_variables_with_credentials_are_taken_away():
    environment = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "s", "AZURE_X": "", "GOOGLE_Y": "1"}
    taken = take_variables(environment)
    assert taken == {"AWS_SECRET_ACCESS_KEY": "s", "AZURE_X": "", "GOOGLE_Y": "1"}
    assert environment == {"PATH": "/bin"}


def test_an_origin_with_another_address_has_another_identity():
    identities = {
        origin_identity("a", Origin("s3://b")),
        origin_identity("a", Origin("s3://c")),
        origin_identity("a", Origin("s3://b", endpoint="http://h")),
        origin_identity("b", Origin("s3://b")),
    }
    assert len(identities) == 4


def test_credentials_are_read_from_a_file(tmp_path):
    path = tmp_path / "origin.env"
    path.write_text("# key\n\nAWS_ACCESS_KEY_ID=id\nexport A = 'b=c'\nB=\"d\"\nC=\n")
    assert read_credentials(path) == {"AWS_ACCESS_KEY_ID": "id", "A": "b=c", "B": "d", "C": ""}


@pytest.mark.parametrize("content", ["secretsecret", "=secretsecret", "A=1\nsecretsecret\n"])
def test_a_malformed_line_is_not_quoted(tmp_path, content):
    path = tmp_path / "origin.env"
    path.write_text(content)
    with pytest.raises(OriginError, match=r"line \d is not KEY=VALUE") as caught:
        read_credentials(path)
    assert "secretsecret" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(OriginError, match="No such file or directory"):
        read_credentials(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"A=\xff")
    with pytest.raises(OriginError, match="not UTF-8"):
        read_credentials(tmp_path / "binary")


def test_the_url_of_a_web_server_has_a_web_store():
    library("urllib3")
    with web_origin() as origin:
        store = open_store(Origin(origin.url), {})
        with pytest.raises(ObjectNotFound):
            store.get("a")
        store.close()
    assert len(origin.requests) == 1


@pytest.mark.parametrize("kind", ["web", "object"])
def test_no_proxy_of_the_environment_is_used(monkeypatch, kind):
    library("obstore")
    library("urllib3")
    with web_origin() as proxy, web_origin() as origin:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        settings = Origin("s3://boot", origin.url) if kind == "object" else Origin(origin.url)
        store = open_store(settings, take_variables(os.environ))
        with pytest.raises(ObjectNotFound):
            store.get("a")
    assert proxy.requests == []
    assert len(origin.requests) == 1


@pytest.mark.parametrize("url", ["s3://boot", "https://example.invalid"])
@pytest.mark.parametrize("content", [None, b"", b"junk"])
def test_a_file_without_certificates_is_refused(tmp_path, url, content):
    library("obstore")
    library("urllib3")
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    reason = "No such file or directory" if content is None else "no certificates in PEM"
    with pytest.raises(OriginError, match=rf"ca_file {path}: {reason}"):
        open_store(Origin(url, ca_file=str(path)), {})


@pytest.mark.parametrize("source", ["none", "environment", "file"])
def test_only_the_chosen_credentials_are_sent(tmp_path, monkeypatch, source):
    library("obstore")
    environment = {"AWS_ACCESS_KEY_ID": "ENVIRONMENT", "AWS_SECRET_ACCESS_KEY": "s" * 20}
    environment |= {"AWS_PROFILE": "other", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    path = tmp_path / "origin.env"
    path.write_text("AWS_ACCESS_KEY_ID=FROMFILE\nAWS_SECRET_ACCESS_KEY=secretsecret\n")
    credentials = CredentialsFile(str(path)) if source == "file" else source
    with web_origin() as origin:
        store = open_store(
            Origin("s3://boot", endpoint=origin.url, credentials=credentials), environment
        )
        with pytest.raises(ObjectNotFound):
            store.get("a")
        store.close()
    authorization = origin.requests[0].headers.get("authorization", "")
    expected = {"none": "", "environment": "ENVIRONMENT", "file": "FROMFILE"}[source]
    assert authorization.partition("Credential=")[2].partition("/")[0] == expected


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tftpd.origins.web_store", None)
    with pytest.raises(OriginError, match=r"pip install 'tftpd\[origins\]'"):
        open_store(Origin("https://example.invalid"), {})
