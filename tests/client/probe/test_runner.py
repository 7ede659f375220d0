"""Whole probes of servers that do as they should, and of others."""

import pytest
from twisted.internet.defer import CancelledError, Deferred

from tests.client.probe import serving
from tests.client.probe.serving import ADDRESS, OTHER, probed
from tests.support.fakes import SERVER
from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.errors import LocalError
from tftpd.client.probe.findings import Level, findings
from tftpd.client.probe.observations import AnswerKind, AnswerOrigin, OptionResult, RolloverResult
from tftpd.client.probe.runner import BLKSIZES, WINDOWSIZES, Probe
from tftpd.protocol.packets import ErrorPacket

SIZE = 700_000


def looked_at(server, **how):
    """What is seen of it, once all is known to be given up."""
    seen, took = probed(server, **how)
    assert server.net.ports == {}
    assert server.net.clock.getDelayedCalls() == []
    assert {(error.code, error.message) for error in server.errors} <= {
        (0, "Client needs no more data"),
        (8, "Option negotiation refused"),
    }
    return seen, took


def kinds(seen):
    """What is found, but for what is only good to know."""
    return {one.kind for one in findings(seen) if one.level is not Level.NOTE}


@pytest.fixture(scope="module")
def good():
    server = serving.Good(SIZE)
    seen, took = looked_at(server)
    return server, seen, took


def test_a_good_server_answers_at_once_from_a_port_of_its_own(good):
    _, seen, _ = good
    answer = seen.answer
    assert (answer.kind, answer.origin, answer.requests) == (
        AnswerKind.DATA,
        AnswerOrigin.OWN_PORT,
        1,
    )
    assert (answer.address, answer.port) == (SERVER, 3001)
    assert answer.seconds == pytest.approx(0.001)


def test_all_that_a_good_server_grants_is_seen(good):
    _, seen, _ = good
    assert [(one.asked, one.value, one.arrived) for one in seen.blksizes] == [
        (size, size, size) for size in BLKSIZES
    ]
    assert [(one.asked, one.value, one.blocks) for one in seen.windowsizes] == [
        (size, size, size) for size in WINDOWSIZES
    ]
    assert [(one.option, one.how) for one in seen.others] == [
        ("timeout", OptionResult.GRANTED),
        ("rollover", OptionResult.GRANTED),
    ]
    assert (seen.tsize.value, seen.size) == (SIZE, SIZE)


def test_what_a_good_server_does_twice(good):
    _, seen, _ = good
    repeats = seen.repeats
    assert repeats.after == pytest.approx(1.0, abs=0.03)
    assert (repeats.copies, repeats.ports) == ((1, 1, 1), 1)
    assert seen.rollover is RolloverResult.ZERO


def test_speeds_are_those_of_one_window_for_each_round_trip(good):
    _, seen, _ = good
    rates = {(one.blksize, one.windowsize): one.rate for one in seen.samples}
    assert rates[512, 1] == pytest.approx(512 / 0.002, rel=0.01)
    assert rates[1468, 16] == pytest.approx(16 * 1468 / 0.002, rel=0.05)
    assert not any(one.problem for one in seen.samples)


def test_a_good_server_is_told_the_end_of_each_transfer_and_nothing_is_found(good):
    server, seen, took = good
    unfinished = [
        one for one in server.transfers.values() if one.acked * one.blksize <= server.size
    ]
    assert unfinished == []
    assert [one.kind for one in findings(seen)] == ["fastest", "healthy"]
    assert took < 20


def test_a_silent_server_is_asked_for_as_long_as_patience_lasts():
    server = serving.Silent()
    seen, took = looked_at(server, patience=5.0)
    assert seen.answer.kind is AnswerKind.NOTHING
    assert (seen.answer.requests, len(server.requests)) == (3, 3)
    assert took == pytest.approx(5.0, abs=0.1)
    assert kinds(seen) == {"silent"}


@pytest.mark.parametrize("server", [serving.Garbage, serving.Flood])
def test_nonsense_without_end_is_not_listened_to_longer(server):
    seen, took = looked_at(server())
    assert seen.answer.kind is AnswerKind.NOTHING
    assert took == pytest.approx(5.0, abs=0.1)


def test_nonsense_beside_each_transfer_neither_misleads_nor_delays():
    seen, took = looked_at(serving.GarbageAfter())
    assert kinds(seen) == set()
    assert took < 20


def test_a_missing_file_ends_it_after_the_first_trial():
    server = serving.Missing()
    seen, took = looked_at(server)
    assert (seen.answer.kind, seen.answer.code, seen.blksizes) == (AnswerKind.ERROR, 1, ())
    assert len(server.requests) == 1
    assert kinds(seen) == {"missing"}


def test_answers_above_what_was_asked():
    seen, _ = looked_at(serving.GrantsTooMuch())
    assert seen.blksizes[0].how is OptionResult.ILLEGAL
    assert seen.blksizes[-1].how is OptionResult.GRANTED
    assert kinds(seen) == {"blksize-illegal", "firmware"}


def test_options_that_nobody_asked_for():
    seen, _ = looked_at(serving.AddsOptions())
    assert {one.unasked for one in seen.blksizes} == {("blksize2",)}
    assert kinds(seen) >= {"options-unasked", "firmware"}


def test_a_black_hole_above_1468():
    seen, took = looked_at(serving.BlackHole())
    assert (max(seen.passable), seen.lost) == (1468, (2048, 4096))
    assert kinds(seen) == {"black-hole"}
    assert took < 20


def test_a_black_hole_that_firmware_falls_into():
    server = serving.BlackHole()
    server.largest = 1400
    seen, _ = looked_at(server)
    assert (max(seen.passable), seen.lost) == (1024, (1428, 1432))
    assert kinds(seen) == {"black-hole", "firmware"}
    [worst] = [one for one in findings(seen) if one.kind == "black-hole"]
    assert "Cap blksize at 1024" in worst.text


def test_a_file_that_fits_one_block_shows_no_black_hole():
    seen, _ = looked_at(serving.BlackHole(1000))
    assert seen.lost == ()
    assert [one.arrived for one in seen.blksizes] == [512] + [1000] * 10
    assert [one.ended for one in seen.blksizes] == [False] + [True] * 10


def test_answers_from_another_address():
    seen, _ = looked_at(serving.Elsewhere())
    assert (seen.answer.origin, seen.answer.address) == (AnswerOrigin.OTHER_ADDRESS, OTHER)
    assert seen.samples == ()
    assert kinds(seen) == {"other-address"}


def test_answers_from_the_port_that_was_asked():
    seen, _ = looked_at(serving.SinglePort())
    assert (seen.answer.origin, seen.answer.port) == (AnswerOrigin.SAME_PORT, 69)
    assert kinds(seen) == set()


def test_the_sorcerers_apprentice():
    seen, _ = looked_at(serving.Apprentice())
    assert seen.repeats.copies == (2, 2, 2)
    assert kinds(seen) == {"apprentice"}


def test_a_request_that_starts_a_second_transfer():
    seen, _ = looked_at(serving.Twofold())
    assert seen.repeats.ports == 2
    assert kinds(seen) == set()


def test_a_block_that_is_never_repeated():
    seen, _ = looked_at(serving.NeverRepeats(), patience=3.0)
    assert (seen.repeats.after, seen.repeats.waited) == (None, 4.5)
    assert kinds(seen) == {"no-repeat"}


@pytest.mark.parametrize(
    ("server", "after"),
    [(serving.StopsAt65535, RolloverResult.NOTHING), (serving.RollsTo1, RolloverResult.ONE)],
)
def test_what_comes_after_block_65535(server, after):
    seen, _ = looked_at(server())
    assert seen.rollover is after
    assert kinds(seen) == {"rollover"}


def test_a_small_file_shows_several_blocks_but_no_rollover():
    seen, _ = looked_at(serving.Good(30))
    assert seen.repeats.copies == (1, 1, 1)
    assert seen.rollover is RolloverResult.TOO_SMALL
    assert {one.kind for one in findings(seen)} == {"short-file", "healthy"}


def test_lock_step_may_be_too_slow_for_block_65535():
    seen, took = looked_at(serving.NoWindows())
    assert seen.rollover is RolloverResult.UNTOLD
    assert took < 20


def test_a_server_without_options():
    server = serving.IgnoresOptions()
    seen, _ = looked_at(server)
    assert {one.how for one in (seen.tsize, *seen.blksizes, *seen.windowsizes)} == {
        OptionResult.IGNORED
    }
    assert kinds(seen) == {"tsize-missing", "firmware"}
    assert [(one.blksize, one.windowsize) for one in seen.samples] == [(512, 1)]


def test_a_server_that_refuses_options():
    seen, _ = looked_at(serving.RefusesOptions())
    assert {one.how for one in (seen.tsize, *seen.blksizes, *seen.windowsizes)} == {
        OptionResult.REFUSED
    }
    assert "blksize-refused" in kinds(seen)


def test_a_size_that_is_not_true():
    seen, _ = looked_at(serving.WrongSize())
    assert (seen.tsize.value, seen.size) == (1234, SIZE)
    assert kinds(seen) == {"tsize-wrong"}


def test_a_first_request_that_gets_lost_is_sent_again():
    class Deaf(serving.Good):
        def request(self, rrq, client):
            if len(self.requests) > 1:
                super().request(rrq, client)

    seen, _ = looked_at(Deaf())
    assert (seen.answer.kind, seen.answer.requests) == (AnswerKind.DATA, 2)
    assert "lost-request" in kinds(seen)


def test_what_comes_again_may_be_no_packet():
    class Garbles(serving.NeverRepeats):
        def ticks(self):
            for transfer in self.transfers.values():
                if self.net.clock.seconds() - transfer.sent_at > 1:
                    self.say(b"\0\3\0", transfer)

    seen, _ = looked_at(Garbles(), patience=2.0)
    assert seen.repeats.garbled


def begun(net):
    where = ServerEndpoint(ADDRESS, ("192.0.2.7", 0), 1468, False)
    probe = Probe(net.runtime, where, SERVER, b"f", 5.0, lambda _: None)
    ended = []
    done = Deferred.fromCoroutine(probe.run())
    done.addErrback(lambda failure: ended.append(failure.type))
    return done, ended


@pytest.mark.parametrize("seconds", [0.0005, 0.5, 3.0, 6.0, 8.0])
def test_one_that_is_cancelled_leaves_nothing_whatever_it_is_at(seconds):
    server = serving.Good()
    done, ended = begun(server.net)
    while server.net.clock.seconds() < seconds:
        server.net.clock.advance(0.001)
        server.carries()
        server.ticks()
    done.cancel()
    assert ended == [CancelledError]
    for _ in range(100):
        server.carries()
        server.net.clock.advance(0.05)
    assert (server.net.ports, server.net.clock.getDelayedCalls()) == ({}, [])
    if seconds > 0.01:
        assert isinstance(server.errors[-1], ErrorPacket)


def test_no_port_is_an_error_of_ours(net):
    net.no_ports = True
    _, ended = begun(net)
    assert ended == [LocalError]
