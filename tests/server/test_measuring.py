"""The disk usage of several roots is measured although one of them hangs."""

from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.internet.task import Clock

from tftpd.server.server import ProcessServer
from tftpd.storage.quota import UsageTracker


def test_a_root_that_hangs_delays_the_next_one_once_for_five_seconds(tmp_path):
    clock, started = Clock(), []
    hanging, other = UsageTracker(tmp_path / "hanging"), UsageTracker(tmp_path / "other")

    def in_thread(work):
        started.append(work.__self__)
        if work.__self__ is other:
            return succeed(None)
        hanging._counting.acquire()
        return Deferred()

    server = ProcessServer.__new__(ProcessServer)
    server._reactor, server._in_thread = clock, in_thread
    server._usage_trackers = {tmp_path / "hanging": hanging, tmp_path / "other": other}
    ensureDeferred(server._measure())
    assert started == [hanging]
    clock.advance(5)
    assert started == [hanging, other]
    ensureDeferred(server._measure())
    assert started == [hanging, other, other]


def test_a_count_that_fails_does_not_end_the_counting(tmp_path):
    started = []
    trackers = [UsageTracker(tmp_path / name) for name in ("changing", "other")]
    server = ProcessServer.__new__(ProcessServer)
    server._reactor, server._usage_trackers = Clock(), dict(enumerate(trackers))
    server._in_thread = lambda work: started.append(work.__self__) or fail(OSError("moved"))
    done = ensureDeferred(server._measure())
    assert done.called
    assert started == trackers
    done.addErrback(lambda failure: started.append(failure))
    assert started == trackers
