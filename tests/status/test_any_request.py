"""The status page in memory: any HTTP request after any transfers gets a valid answer."""

import json

import hypothesis.strategies as st
from hypothesis import given, settings
from prometheus_client.parser import text_string_to_metric_families

from tests.fuzz.harness import no_hidden_faults
from tests.status.pages import MemoryReactor
from tftpd.config.sections import StatusSection
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.status.service import StatusService

REPORTS = st.builds(
    TransferResult,
    direction=st.sampled_from(Direction),
    peer=st.tuples(
        st.sampled_from(["192.0.2.7", "192.0.2.8", "2001:db8::7", "fe80::7%eth0"]),
        st.integers(0, 0xFFFF),
    ),
    filename=st.sampled_from(
        [b"pxelinux.0", b"pxelinux.cfg/01-00-00-5e-00-53-01", b"bootx64.efi", b"grub.cfg", b"x\n"]
    )
    | st.binary(max_size=60),
    outcome=st.sampled_from(Outcome),
    bytes_transferred=st.integers(0, 0xFFFFFFFF),
    seconds=st.integers(0, 0xFFFF).map(lambda number: number / 100),
    mode=st.none() | st.sampled_from(Mode),
    code=st.sampled_from([None, 0, 1, 99]),
    detail=st.text(max_size=20),
    size=st.none() | st.integers(0, 0xFFFFFFFF),
    timeouts=st.integers(0, 255),
    rtt=st.sampled_from([None, 0.0, 0.5]),
    profile=st.sampled_from(["", "ipxe"]),
)
REQUESTS = st.lists(
    st.sampled_from(
        [
            *(b"GET /status", b"GET /metrics", b"GET /", b"HEAD /status", b"POST /", b"?since="),
            *(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: localhost\r\n", b"Host: [::1]:80\r\n"),
            *(b"Host: ", b"evil.example\r\n", b"Content-Length: 3\r\n", b"\r\n", b"9" * 20),
            *(b"Transfer-Encoding: chunked\r\n", b"&", b"=", b"%00", b"%", b"since", b"-1"),
        ]
    )
    | st.binary(max_size=20)
).map(b"".join)


def _body(response):
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.0 200 ", b"HTTP/1.1 200 "))
    return body


@settings(deadline=1000, max_examples=30)
@given(st.lists(REPORTS, max_size=12), REQUESTS)
def test_any_transfers_and_any_request_give_valid_json_metrics_and_http(reports, request):
    reactor = MemoryReactor()
    status = StatusService(reactor, StatusSection(port=8069))
    status.bind()
    with no_hidden_faults():
        for report in reports:
            status(report)
        answer = json.loads(_body(reactor.request(b"GET /status HTTP/1.0\r\n\r\n")))
        assert {"sessions", "ended", "clients"} <= set(answer)
        metrics = _body(reactor.request(b"GET /metrics HTTP/1.0\r\n\r\n")).decode()
        assert list(text_string_to_metric_families(metrics))
        response = reactor.request(request)
        status.stop()
    assert not response or response.startswith(b"HTTP/1.")
    assert b" 500 " not in response[:20]
