"""The Host header decides whether a request is answered."""

import pytest

from tftpd.status.web import is_allowed_host


@pytest.mark.parametrize(
    "header",
    [None, "localhost", "LOCALHOST:9169", "localhost.", "127.0.0.1", "127.0.0.1:9169", "[::1]",
     "[::1]:9169", "192.0.2.1:80", "boot.example.org", "Boot.Example.org.:9169",
     "[fe80::1%eth0]:1"],
)  # fmt: skip
def test_addresses_and_configured_names_are_answered(header):
    assert is_allowed_host(header, ["boot.example.org"])


@pytest.mark.parametrize(
    "header",
    ["", "evil.example", "localhost.evil.example", "evil.example:127.0.0.1", "[::1",
     "127.0.0.1.evil.example", "xboot.example.org", "127.0.0.1@evil.example", "[::1].evil.example",
     "0x7f000001", "1"],
)  # fmt: skip
def test_other_names_are_refused(header):
    assert not is_allowed_host(header, ["boot.example.org"])
