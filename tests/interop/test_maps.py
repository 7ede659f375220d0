"""Name maps of tftp-hpa's in.tftpd: our imported rules give the same names."""

import os
import socket
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.interop.servers import KINDS, running_server
from tftpd.access.client import ClientIdentity
from tftpd.access.rewrite import apply_rules
from tftpd.config.loader import load_settings
from tftpd.daemon.cli import main
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Rrq, decode

pytestmark = pytest.mark.check

CLIENT = ClientIdentity(ip_address("127.0.0.1"))
LIMIT = 10.0

MAPS = {
    "drives": (
        "rg \\\\ /  # separators\nri ^[a-z]:\nr ^/\nrge [A-Z] \\L\\0\nr . never\n",
        ["C:\\Boot\\BCD", "\\boot\\x", "d:x", "plain", "/abs/ABS"],
    ),
    "prefixes": (
        "r ^(/tftpboot)?/(.*)$ \\2\nr ^x86PC/(UNDI/)?([^/]*)$ bios/\\2\nr \\.(cfg|conf)$ .txt\n",
        ["/tftpboot/a/b", "/tftpbootx", "/x", "x86PC/UNDI/pxelinux.0", "x86PC/y", "a.cfg",
         "a.conf", "a.cfgx"],
    ),
    "variables": (
        "r ^menu$ menus/\\i-\\x\n"
        "r ^low$ \\L\\xQ\\E\\xQ\\U\\0\nr ^gone(x)?$ [\\1\\7]\\\\\\ \\#\\q\n",
        ["menu", "low", "gone", "gonex", "other"],
    ),
    "order": (
        "r ^zero zero\nr ^c d\nrs ^b c\nr ^a b\nre ^e f\nr ^f g\n~e ^[defg]\nr ^ x-\n",
        ["b", "e", "f", "d", "h"],
    ),
    "refusals": (
        "rG4 ^x y\nrP ^q z\nr6 ^w z\na ^secret\n~a ^[a-z]\n",
        ["x", "q", "w", "secret", "secretx", "not", "1"],
    ),
    "longest": (
        "re ^(a|ab)(c|bcd)(d*)$ \\1-\\2-\\3\nr m(.*)n(.*)o <\\2,\\1>\nr (x|xy)z* N\n"
        "r (q|qu)+ W\nr k{,2}l J\n",
        ["abcd", "acdd", "1m2n3n4o5", "axyzz", "axzz", "aququ", "kkkl", "l"],
    ),
    "bytes": (  # the last line of Foreman's map is the first one here
        b"rg (.*)\xc3\xbf$ \\1\nrg (.*)\xff$ \\1\nri ^[\xc0-\xdf]x up\nr \\\xb0$ \xc3\xbc\n",
        [b"pxelinux.0\xc3\xbf", b"pxelinux.0\xff", b"a\xff\xff", b"\xc4x", b"\xe4x", b"a\xb0",
         b"\xe4\xf6"],
    ),
    "phones": (
        "ri ^(.+)/(.+-sip.jar)$ locales/\\1/\\2\nri ^(.+)/(.+-tones.xml)$ locales/\\1/\\2\n"
        "ri ^(Ringlist)(\\.xml|-wb\\.xml)(\\.sgn)?$ ringtones/\\1\\2\\3\n"
        "ri ^(.+)(\\.raw|\\.rwb)(\\.sgn)?$ ringtones/\\1\\2\\3\n"
        "ri ^Desktops/(.+)/(.+\\.png)(\\.sgn)?$ wallpapers/\\1/\\2\\3\n",
        ["a/b/c-tones.xml", "a/-tones.xml/b-TONES.XML", "x/mk-sip.jar", "Ringlist-wb.xml.sgn",
         "a.raw", "a.raw.rwb.sgn", "desktops/320x212/b/x.png", "a.raw.sgn.sgn"],
    ),
    "classes": (
        "rg [[:digit:]]{3} N\nri ^[]x[:blank:]]+ y\nr [^a-zA-Z0-9/.-] _\n",
        ["a123456", "12", "]X]a", "a~b~", "X"],
    ),
}  # fmt: skip


def _request(url, name):
    """Read a file; return its content, or the code of the ERROR."""
    port = int(url.rsplit(":", 1)[1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(LIMIT)
        sock.sendto(Rrq(name, b"octet").encode(), ("127.0.0.1", port))
        datagram, peer = sock.recvfrom(2048)
        answer = decode(datagram)
        if isinstance(answer, Data):
            sock.sendto(Ack(answer.block).encode(), peer)
            return answer.payload
        assert isinstance(answer, ErrorPacket)
        return answer.code


@pytest.mark.parametrize("name", MAPS)
def test_imported_rules_rewrite_names_as_in_tftpd_does(name, tmp_path, capsys):
    text, names = MAPS[name]
    (tmp_path / "map").write_bytes(text if isinstance(text, bytes) else text.encode())
    names = [name if isinstance(name, bytes) else name.encode() for name in names]
    (tmp_path / "root").mkdir()
    assert main(["import-map", str(tmp_path / "map")]) == 0
    out = capsys.readouterr().out
    (tmp_path / "t.yaml").write_text("directories: [{root: root, read: true}]\n" + out)
    rules = load_settings(tmp_path / "t.yaml").build_name_rules().rules
    expected = {}
    for requested in names:
        try:
            rewritten = apply_rules(rules, requested, False, CLIENT).name
        except RequestRefused:
            expected[requested] = 2
            continue
        expected[requested] = rewritten
        file = tmp_path / "root" / os.fsdecode(rewritten.lstrip(b"/"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(rewritten)
        file.chmod(0o644)
    (kind,) = (kind for kind in KINDS if kind.name == "in.tftpd")
    command = kind.command
    mapped = replace(
        kind, command=lambda port, root: ["-m", str(tmp_path / "map"), *command(port, root)]
    )
    with running_server(mapped, tmp_path / "root") as server:
        assert {requested: _request(server.url, requested) for requested in names} == expected
