"""Each name has the same answer by HTTP and by TFTP."""

from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.memory import MemoryHttp
from tests.support.fakes import MemoryServer
from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import ReadPolicy
from tftpd.access.regex import pattern
from tftpd.access.rewrite import NameRules, RewriteRule, parse_template
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.packets import ErrorPacket, Rrq
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.admission import AdmissionLimits
from tftpd.server.config import ServerConfig

STATUS_BY_CODE = {1: 404, 2: 403, 4: 400, 0: 503}
PARTS = [
    *(b"a", b"b", b"sub", b"link", b"out", b"closed", b"key", b"old", b"..", b".", b"", b"A"),
    *(b"\\", b"%61", b"a?b", b"a b", b"\xff", b"\xc3\xbc", b".tftpd-upload-1", b"x" * 300, b"{ip}"),
]
NAMES = st.one_of(
    st.lists(st.sampled_from(PARTS), max_size=5).map(b"/".join),
    st.lists(st.sampled_from(PARTS), max_size=4).map(b"\\".join),
    st.binary(max_size=40).map(lambda name: name.replace(b"\0", b"")),
)


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / "sub").mkdir()
    (root / "closed").mkdir()
    for name in ("a", "b", "sub/a", "sub/b", "closed/key", "a?b", "a b", "ü", "%61"):
        (root / name).write_text(name)
    (root / "link").symlink_to("sub")
    (root / "out").symlink_to("/etc")
    match = pattern("^old/")
    rules = (RewriteRule("rewrite[0]", match, parse_template("sub/", match)),)
    fallbacks = FallbackChain((Fallback.CASE,))
    mounts = [
        Mount((), (Root(root),), read=ReadPolicy(), fallbacks=(Fallback.CASE,)),
        Mount((b"closed",), (Root(root / "closed"),)),
    ]

    def build(report):
        return ServerConfig(
            Mounts(mounts, NameRules(rules, fallbacks)),
            OptionLimits(),
            RetransmitPolicy(),
            AdmissionLimits(),
            report,
        )

    http = MemoryHttp(build)
    yield MemoryServer(build), http
    http.stop()


def _by_tftp(server, name):
    (packet,) = server.client().request(Rrq(name, b"octet"))
    server.sessions.stop()
    server.advance(100)
    server.net.sent.clear()
    if isinstance(packet, ErrorPacket):
        return STATUS_BY_CODE[packet.code], packet.message.encode() + b"\n"
    return 200, packet.payload


def _by_http(server, target):
    response = server.get(target)
    return response.status, response.body


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=NAMES, safe=st.sampled_from(["", "/", "/\\"]))
def test_each_name_has_the_same_answer(servers, name, safe):
    tftp, http = servers
    target = "/" + quote_from_bytes(name, safe=safe)
    assert _by_http(http, target) == _by_tftp(tftp, name)
    tftp_report, http_report = tftp.reports[-1], http.reports[-1]
    assert http_report.filename == tftp_report.filename
    assert http_report.served_name == tftp_report.served_name
    assert http_report.resolution_steps == tftp_report.resolution_steps
    if http_report.status != 200:
        assert (http_report.code, http_report.detail) == (tftp_report.code, tftp_report.detail)
        assert http_report.fault == tftp_report.fault
