"""Results are passed to all observers."""

from twisted.logger import globalLogPublisher

from tftpd.daemon.access_log import fan_out
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult

RESULT = TransferResult(Direction.READ, ("192.0.2.7", 1), b"x", Outcome.DONE)


def test_a_failure_of_one_observer_is_logged_and_the_others_are_called():
    first, last, events = [], [], []

    def broken(result):
        raise ValueError("broken")

    globalLogPublisher.addObserver(events.append)
    try:
        fan_out(first.append, broken, last.append)(RESULT)
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert first == last == [RESULT]
    (event,) = [event for event in events if "log_failure" in event]
    assert event["log_failure"].getErrorMessage() == "broken"
