"""Who is told of a report."""

from twisted.logger import globalLogPublisher

from tftpd.daemon.access_log import fan_out
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult

REPORT = TransferResult(Direction.READ, ("192.0.2.7", 1), b"x", Outcome.DONE)


def test_one_observer_is_left_as_it_is():
    seen = []
    assert fan_out(seen.append) == seen.append


def test_a_fault_in_one_is_logged_and_the_others_are_told():
    first, last, events = [], [], []

    def broken(report):
        raise ValueError("broken")

    globalLogPublisher.addObserver(events.append)
    try:
        fan_out(first.append, broken, last.append)(REPORT)
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert first == last == [REPORT]
    (event,) = [event for event in events if "log_failure" in event]
    assert event["log_failure"].getErrorMessage() == "broken"
