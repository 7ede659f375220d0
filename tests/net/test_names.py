"""Names that are understood as others, through the listener."""

from dataclasses import replace

from tests.fakes import MemoryServer
from tftpd.access.mounts import Mounts
from tftpd.access.naming import Naming
from tftpd.access.patterns import pattern
from tftpd.access.rewriting import Rule, template
from tftpd.transfer.report import Outcome
from tftpd.wire.packets import Ack, Data, Error, Rrq, Wrq

SEVEN = b"1234567"


def _rule(match, to, **how):
    found = pattern(match)
    return Rule("rewrite[0]", found, template(to, found), **how)


def _naming(offer, naming):
    def build(report):
        built = offer(report)
        return replace(built, mounts=Mounts(built.mounts, naming))

    return MemoryServer(build)


def test_a_rewritten_name_is_served_and_reported(offer):
    server = _naming(offer, Naming((_rule("^old/", ""),)))
    client = server.client()
    assert client.asks(Rrq(b"old/seven", b"octet")) == [Data(1, SEVEN)]
    client.says(Ack(1))
    (report,) = server.reports
    assert (report.filename, report.served, report.by) == (b"old/seven", b"seven", ("rewrite[0]",))
    assert server.idle


def test_a_name_that_no_rule_touches_is_reported_as_it_is(offer):
    server = _naming(offer, Naming((_rule("^old/", ""),)))
    client = server.client()
    client.asks(Rrq(b"seven", b"octet"))
    client.says(Ack(1))
    (report,) = server.reports
    assert (report.served, report.by) == (None, ())


def test_an_upload_goes_by_the_rewritten_name(offer, root):
    server = _naming(offer, Naming((_rule("^", "in/{ip}-", reads=False),)))
    client = server.client()
    client.asks(Wrq(b"config", b"octet"))
    client.says(Data(1, b"x"))
    assert (root / "in/192.0.2.7-config").read_bytes() == b"x"
    (report,) = server.reports
    assert (report.outcome, report.served) == (Outcome.DONE, b"in/192.0.2.7-config")
    server.waits(120)
    assert server.idle


def test_no_rule_leads_out_of_a_directory(offer):
    for to in ("../", "/../../etc/passwd", "in/../../", "\\..\\"):
        server = _naming(offer, Naming((_rule("^out", to),)))
        (refused,) = server.client().asks(Rrq(b"out", b"octet"))
        assert refused == Error(2, "Access violation")
        (report,) = server.reports
        assert report.outcome is Outcome.REFUSED
        assert "by rewrite[0]" in report.detail


def test_a_refusal_tells_the_name_that_was_looked_for(offer):
    server = _naming(offer, Naming((_rule("^old/", "in/"),)))
    assert server.client().asks(Rrq(b"old/x", b"octet")) == [Error(1, "File not found")]
    assert server.reports[0].detail == 'No such file or directory ("in/x" by rewrite[0])'
