"""Listening addresses in the configuration file: protocols and their keys."""

import pytest

from tftpd.config import loader
from tftpd.config.errors import ConfigError
from tftpd.config.loader import load_settings


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that loads the settings with an entry of `listen`."""
    monkeypatch.setattr(loader, "find_spec", lambda name: object())
    (tmp_path / "cert.pem").touch()

    def load(*entries):
        path = tmp_path / "t.yaml"
        listen = "".join(f"  - {{{entry}}}\n" for entry in entries)
        path.write_text(f"directories: [{{root: ., read: true}}]\nlisten:\n{listen}")
        return load_settings(path)

    return load


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("address: 192.0.2.1", ("udp", "192.0.2.1", 69)),
        ("address: 192.0.2.1, protocol: http", ("tcp", "192.0.2.1", 80)),
        ("address: '::1', protocol: http, port: 8080", ("tcp", "::1", 8080)),
        (
            "address: 192.0.2.1, protocol: https, certificate: cert.pem",
            ("tcp", "192.0.2.1", 443),
        ),
    ],
)
def test_each_protocol_has_a_port(load, entry, name):
    assert load(entry).listen[0].name == name


def test_udp_and_tcp_ports_are_different(load):
    settings = load("address: '::', port: 69", "address: 0.0.0.0, port: 69, protocol: http")
    names = [listen.name for _, listen in settings.expand_listen()]
    assert names == [("udp", "::", 69), ("udp", "0.0.0.0", 69), ("tcp", "0.0.0.0", 69)]


def test_certificates_are_relative_to_the_file(load, tmp_path):
    (listen,) = load("address: '::1', protocol: https, certificate: cert.pem").listen
    assert (listen.certificate, listen.key) == (str(tmp_path / "cert.pem"), None)


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (
            ["address: '::1', protocol: http, broadcast: answer"],
            "t.yaml:3: listen[0]: broadcast cannot be used with protocol http",
        ),
        (
            ["address: '::1', trusted_proxies: ['::1']"],
            "t.yaml:3: listen[0]: trusted_proxies cannot be used with protocol tftp",
        ),
        (
            ["address: '::1', protocol: http, certificate: cert.pem"],
            "t.yaml:3: listen[0]: certificate cannot be used with protocol http",
        ),
        (
            ["address: '::1', protocol: https"],
            't.yaml:3: listen[0]: protocol https needs the key "certificate"',
        ),
        (
            ["address: '::1', protocol: https, certificate: cert.pem, key: none.pem"],
            "none.pem does not exist",
        ),
        (
            [
                "address: '::1', port: 80",
                "address: '::1', protocol: http",
                "address: '::1', port: 80",
            ],
            't.yaml:5: listen[2].address: "::1" port 80 is already the address of listen[0]',
        ),
        (
            ["address: '::1', protocol: http", "address: '::1', protocol: http, port: 80"],
            't.yaml:4: listen[1].address: "::1" port 80 is already the address of listen[0]',
        ),
        (["address: '::1', protocol: ftp"], "expected one of tftp, http, https"),
        (
            ["address: '::1', protocol: http, trusted_proxies: [proxy]"],
            'expected a network such as 10.0.0.0/8, got "proxy"',
        ),
    ],
)
def test_problems(load, entries, problem):
    with pytest.raises(ConfigError) as raised:
        load(*entries)
    assert problem in str(raised.value)


def test_https_needs_a_library(load, monkeypatch):
    monkeypatch.setattr(loader, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "tftpd\[tls\]"'):
        load("address: '::1', protocol: https, certificate: cert.pem")
