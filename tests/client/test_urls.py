"""URLs of RFC 3617."""

import pytest

from tftpd.client.urls import Remote, is_url, parse, server
from tftpd.protocol.negotiation import Mode


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("tftp://host/file", Remote("host", b"file")),
        ("TFTP://host/a/b", Remote("host", b"a/b")),
        ("tftp://192.0.2.1:6969//a", Remote("192.0.2.1", b"/a", 6969)),
        ("tftp://[2001:db8::1]/f", Remote("2001:db8::1", b"f")),
        ("tftp://[2001:DB8::1]:70/f", Remote("2001:DB8::1", b"f", 70)),
        ("tftp://[fe80::1%25eth0]/f", Remote("fe80::1%eth0", b"f")),
        ("tftp://[fe80::1%eth0]/f", Remote("fe80::1%eth0", b"f")),
        ("tftp://h/f;mode=netascii", Remote("h", b"f", None, Mode.NETASCII)),
        ("tftp://h/f;MODE=Octet", Remote("h", b"f", None, Mode.OCTET)),
        ("tftp://h/f;v=1", Remote("h", b"f;v=1")),
        ("tftp://h/a%20b%2f%ff", Remote("h", b"a b/\xff")),
        ("tftp://h/what?#", Remote("h", b"what?#")),
        ("tftp://h/", Remote("h", b"")),
    ],
)
def test_a_url_names_a_file(url, remote):
    assert parse(url, "utf-8") == remote


def test_what_is_not_ascii_goes_in_the_encoding():
    assert parse("tftp://h/ä%e4", "latin-1").name == b"\xe4\xe4"
    assert parse("tftp://h/ä", "utf-8").name == b"\xc3\xa4"


@pytest.mark.parametrize(
    "url",
    [
        "tftp://host", "tftp:///f", "http://h/f", "tftp://h:0/f", "tftp://h:65536/f",
        "tftp://h:x/f", "tftp://user@h/f", "tftp://h/f;mode=mail", "tftp://h/f;mode=",
        "tftp://[::1/f", "tftp://[host]/f", "h/f",
    ],
)  # fmt: skip
def test_what_is_no_such_url_is_told(url):
    with pytest.raises(ValueError, match=r"form|port|mode"):
        parse(url, "utf-8")


def test_a_url_begins_with_its_scheme():
    assert is_url("TFTP://h/f")
    assert not is_url("tftp.example.net")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("host", "host", None),
        ("host:6969", "host", 6969),
        ("192.0.2.1:70", "192.0.2.1", 70),
        ("2001:db8::1", "2001:db8::1", None),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("[fe80::1%eth0]:70", "fe80::1%eth0", 70),
        ("host:port", "host:port", None),
    ],
)
def test_a_server_is_a_host_and_perhaps_a_port(text, host, port):
    assert server(text) == (host, port)


def test_a_port_that_there_is_not_is_told():
    with pytest.raises(ValueError, match="no port: 65536"):
        server("host:65536")
