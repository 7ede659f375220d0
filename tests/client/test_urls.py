"""TFTP URLs (RFC 3617)."""

from pathlib import PureWindowsPath

import pytest

from tftpd.client import jobs
from tftpd.client.errors import UsageError
from tftpd.client.globs import MAX_URLS, expand_url
from tftpd.client.jobs import RemoteFile, is_url, parse_url, remote_file
from tftpd.protocol.negotiation import Mode


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("tftp://host/file", RemoteFile("host", b"file")),
        ("TFTP://host/a/b", RemoteFile("host", b"a/b")),
        ("tftp://192.0.2.1:6969//a", RemoteFile("192.0.2.1", b"/a", 6969)),
        ("tftp://[2001:db8::1]/f", RemoteFile("2001:db8::1", b"f")),
        ("tftp://[2001:DB8::1]:70/f", RemoteFile("2001:DB8::1", b"f", 70)),
        ("tftp://[fe80::1%25eth0]/f", RemoteFile("fe80::1%eth0", b"f")),
        ("tftp://[fe80::1%eth0]/f", RemoteFile("fe80::1%eth0", b"f")),
        ("tftp://h/f;mode=netascii", RemoteFile("h", b"f", None, Mode.NETASCII)),
        ("tftp://h/f;MODE=Octet", RemoteFile("h", b"f", None, Mode.OCTET)),
        ("tftp://h/f;mode=binary", RemoteFile("h", b"f", None, Mode.OCTET)),
        ("tftp://h/f;mode=ASCII", RemoteFile("h", b"f", None, Mode.NETASCII)),
        ("tftp://h/f;v=1", RemoteFile("h", b"f;v=1")),
        ("tftp://h/a%20b%2f%ff", RemoteFile("h", b"a b/\xff")),
        ("tftp://h/what?#", RemoteFile("h", b"what?#")),
        ("tftp://h/", RemoteFile("h", b"")),
    ],
)
def test_a_url_is_parsed(url, remote):
    assert parse_url(url, "utf-8") == remote


def test_non_ascii_characters_are_encoded():
    assert parse_url("tftp://h/ä%e4", "latin-1").name == b"\xe4\xe4"
    assert parse_url("tftp://h/ä", "utf-8").name == b"\xc3\xa4"


@pytest.mark.parametrize(
    "url",
    [
        "tftp://host", "tftp:///f", "http://h/f", "tftp://h:0/f", "tftp://h:65536/f",
        "tftp://h:x/f", "tftp://h:٦٩/f", "tftp://user@h/f", "tftp://h/f;mode=mail", "tftp://h/f;mode=",
        "tftp://[::1/f", "tftp://[host]/f", "h/f",
    ],
)  # fmt: skip
def test_an_invalid_url_is_rejected(url):
    with pytest.raises(UsageError, match=r"form|port|mode"):
        parse_url(url, "utf-8")


def test_a_url_begins_with_tftp():
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
def test_a_host_and_an_optional_port_are_parsed(text, host, port):
    assert remote_file(text, "f", "utf-8") == RemoteFile(host, b"f", port)


def test_an_invalid_port_is_rejected():
    with pytest.raises(UsageError, match="invalid port 65536"):
        remote_file("host:65536", "f", "utf-8")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", ["a"]),
        ("{a,b,}.cfg", ["a.cfg", "b.cfg", ".cfg"]),
        ("r[8-11]", ["r8", "r9", "r10", "r11"]),
        ("r[08-11]", ["r08", "r09", "r10", "r11"]),
        ("[a-c]", ["a", "b", "c"]),
        ("[X-Z:2]", ["X", "Z"]),
        ("[0-10:5]", ["0", "5", "10"]),
        ("{x,y}/[1-2]", ["x/1", "x/2", "y/1", "y/2"]),
        ("%5B1-2%5D", ["%5B1-2%5D"]),
    ],
)
@pytest.mark.parametrize("host", ["h", "[2001:db8::1]", "[::1]:69"])
def test_a_pattern_stands_for_several_urls(host, pattern, names):
    assert expand_url(f"tftp://{host}/{pattern}") == [f"tftp://{host}/{name}" for name in names]


@pytest.mark.parametrize(
    "pattern",
    ["{a", "a}", "[1-", "1]", "[5-1]", "[c-a]", "[a-C]", "[1-2:0]", "{}", "[]", "{a,{b}}"],
)
def test_an_invalid_pattern_is_rejected(pattern):
    with pytest.raises(UsageError, match=r"pattern|empty range"):
        expand_url(f"tftp://h/{pattern}")


@pytest.mark.parametrize("pattern", ["[1-999999999999]", "[1-1000][1-1000]", "{a,b}[1-99999]"])
def test_a_pattern_stands_for_a_bounded_number_of_urls(pattern):
    with pytest.raises(UsageError, match=f"more than {MAX_URLS} URLs"):
        expand_url(f"tftp://h/{pattern}")


@pytest.mark.parametrize("name", [b"dir\\file", b"..\\file", b"c:file", b"..", b""])
def test_a_name_that_is_a_path_on_windows_needs_a_local_file(monkeypatch, name):
    monkeypatch.setattr(jobs, "Path", PureWindowsPath)
    with pytest.raises(UsageError, match="without a file name"):
        jobs.destination(RemoteFile("h", b"dir/" + name), None)


def test_a_backslash_is_part_of_a_name_on_posix_systems():
    assert str(jobs.destination(RemoteFile("h", b"dir\\file"), None)) == "dir\\file"
