"""What a report says of a transfer beside its outcome."""

from tftpd.protocol.packets import Ack, Data, Rrq, Wrq
from tftpd.protocol.result import Outcome


def test_of_a_read(server):
    client = server.client()
    client.asks(Rrq(b"kilo", b"octet", ((b"TSIZE", b"0"), (b"blksize", b"300"), (b"odd", b"1"))))
    server.waits(0.1)
    client.says(Ack(0))
    client.waits(2.5)  # the first block is lost
    client.says(*(Ack(block) for block in range(1, 5)))
    (report,) = server.reports
    assert report.outcome is Outcome.DONE
    assert (report.size, report.bytes_transferred, report.blocks) == (1024, 1024, 4)
    assert report.options == ("tsize", "blksize")
    assert 0 < report.timeouts == report.retransmits
    assert 0.05 < report.rtt < 0.15


def test_of_a_write(server):
    client = server.client()
    client.asks(Wrq(b"in/new", b"octet", ((b"tsize", b"700"),)))
    client.says(Data(1, b"x" * 512))
    client.waits(1.5)
    client.says(Data(2, b"x" * 188))
    (report,) = server.reports
    assert report.outcome is Outcome.DONE
    assert (report.size, report.bytes_transferred, report.blocks) == (700, 700, 2)
    assert report.options == ("tsize",)
    assert report.timeouts > 0


def test_of_a_peer_that_was_never_heard_again(server):
    client = server.client()
    client.asks(Rrq(b"kilo", b"octet"))
    client.waits(60)
    (report,) = server.reports
    assert report.outcome is Outcome.TIMED_OUT
    assert report.timeouts == report.retransmits + 1
    assert report.rtt is None
    assert report.options == ()


def test_netascii_has_a_size_of_its_own_that_nobody_knows(server):
    client = server.client()
    client.asks(Rrq(b"lines", b"netascii"))
    client.says(Ack(1))
    (report,) = server.reports
    assert (report.size, report.blocks) == (None, 1)
