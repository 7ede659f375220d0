"""Fields of the results."""

from tftpd.protocol.packets import Ack, Data, Rrq, Wrq
from tftpd.protocol.result import Outcome


def test_the_result_of_a_read_is_complete(server):
    client = server.client()
    client.request(Rrq(b"kilo", b"octet", ((b"TSIZE", b"0"), (b"blksize", b"300"), (b"odd", b"1"))))
    server.advance(0.1)
    client.send(Ack(0))
    client.advance(2.5)  # the first block is lost
    client.send(*(Ack(block) for block in range(1, 5)))
    (report,) = server.reports
    assert report.outcome is Outcome.DONE
    assert (report.size, report.bytes_transferred, report.blocks) == (1024, 1024, 4)
    assert report.options == ("tsize", "blksize")
    assert 0 < report.timeouts == report.retransmits
    assert 0.05 < report.rtt < 0.15


def test_the_result_of_a_write_is_complete(server):
    client = server.client()
    client.request(Wrq(b"in/new", b"octet", ((b"tsize", b"700"),)))
    client.send(Data(1, b"x" * 512))
    client.advance(1.5)
    client.send(Data(2, b"x" * 188))
    (report,) = server.reports
    assert report.outcome is Outcome.DONE
    assert (report.size, report.bytes_transferred, report.blocks) == (700, 700, 2)
    assert report.options == ("tsize",)
    assert report.timeouts > 0


def test_the_result_of_a_client_that_disappeared_is_complete(server):
    client = server.client()
    client.request(Rrq(b"kilo", b"octet"))
    client.advance(60)
    (report,) = server.reports
    assert report.outcome is Outcome.TIMED_OUT
    assert report.timeouts == report.retransmits + 1
    assert report.rtt is None
    assert report.options == ()


def test_the_size_of_a_netascii_transfer_is_unknown(server):
    client = server.client()
    client.request(Rrq(b"lines", b"netascii"))
    client.send(Ack(1))
    (report,) = server.reports
    assert (report.size, report.blocks) == (None, 1)
