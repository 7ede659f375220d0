"""Complete probes of correct and incorrect servers."""

import pytest
from twisted.internet.defer import CancelledError, Deferred

from tests.client.in_memory import run_in_memory
from tests.client.probe import serving
from tests.client.probe.serving import ADDRESS, LARGE, OTHER, SIZE, run_probe
from tests.support.fakes import SERVER
from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.errors import LocalError
from tftpd.client.probe.exchange import ProbeTarget
from tftpd.client.probe.findings import Level, derive_findings
from tftpd.client.probe.observations import AnswerKind, AnswerOrigin, OptionResult, RolloverResult
from tftpd.client.probe.runner import BLKSIZES, WINDOWSIZES, Probe
from tftpd.protocol.packets import ErrorPacket


def probe_and_check_cleanup(server, **options):
    """Probe a server, check that nothing is left open, and return the observations."""
    observed, duration = run_probe(server, **options)
    assert server.net.ports == {}
    assert server.net.clock.getDelayedCalls() == []
    assert {(error.code, error.message) for error in server.errors} <= {
        (0, "Client needs no more data"),
        (8, "Option negotiation refused"),
    }
    return observed, duration


def kinds(observed):
    """Return the kinds of all findings that are not notes."""
    return {entry.kind for entry in derive_findings(observed) if entry.level is not Level.NOTE}


@pytest.fixture(scope="module")
def good():
    server = serving.Good(LARGE)
    observed, duration = probe_and_check_cleanup(server)
    return server, observed, duration


def test_a_correct_server_answers_from_a_new_port(good):
    _, observed, _ = good
    answer = observed.answer
    assert (answer.kind, answer.origin, answer.requests) == (
        AnswerKind.DATA,
        AnswerOrigin.OWN_PORT,
        1,
    )
    assert (answer.address, answer.port) == (SERVER, 3001)
    assert answer.seconds == pytest.approx(0.001)


def test_all_granted_options_are_observed(good):
    _, observed, _ = good
    assert [
        (entry.requested, entry.value, entry.first_block_bytes) for entry in observed.blksizes
    ] == [(size, size, size) for size in BLKSIZES]
    assert [(entry.requested, entry.value, entry.blocks) for entry in observed.windowsizes] == [
        (size, size, size) for size in WINDOWSIZES
    ]
    assert [(entry.option, entry.result) for entry in observed.other_options] == [
        ("timeout", OptionResult.GRANTED),
        ("rollover", OptionResult.GRANTED),
    ]
    assert (observed.tsize.value, observed.size) == (LARGE, LARGE)


def test_retransmissions_of_a_correct_server_are_observed(good):
    _, observed, _ = good
    repetition = observed.repetition
    assert repetition.interval == pytest.approx(1.0, abs=0.03)
    assert (repetition.copies, repetition.transfers) == ((1, 1, 1), 1)
    assert observed.rollover is RolloverResult.ZERO


def test_the_throughput_is_one_window_for_each_round_trip(good):
    _, observed, _ = good
    rates = {(entry.blksize, entry.windowsize): entry.rate for entry in observed.samples}
    assert rates[512, 1] == pytest.approx(512 / 0.002, rel=0.01)
    assert rates[1468, 16] == pytest.approx(16 * 1468 / 0.002, rel=0.05)
    assert not any(entry.failure for entry in observed.samples)


def test_a_correct_server_gets_a_final_error_and_has_no_problems(good):
    server, observed, duration = good
    unfinished = [
        entry for entry in server.transfers.values() if entry.acked * entry.blksize <= server.size
    ]
    assert unfinished == []
    assert [entry.kind for entry in derive_findings(observed)] == ["fastest", "healthy"]
    assert duration < 20


def test_the_request_is_repeated_until_the_idle_timeout():
    server = serving.Silent()
    observed, duration = probe_and_check_cleanup(server, idle_timeout=5.0)
    assert observed.answer.kind is AnswerKind.NOTHING
    assert (observed.answer.requests, len(server.requests)) == (3, 3)
    assert duration == pytest.approx(5.0, abs=0.1)
    assert kinds(observed) == {"silent"}


@pytest.mark.parametrize("server", [serving.Malformed, serving.Flood])
def test_a_flood_of_invalid_packets_does_not_extend_the_timeout(server):
    observed, duration = probe_and_check_cleanup(server())
    assert observed.answer.kind is AnswerKind.NOTHING
    assert duration == pytest.approx(5.0, abs=0.1)


def test_invalid_packets_during_transfers_are_ignored():
    observed, duration = probe_and_check_cleanup(serving.WrongBlocks())
    assert kinds(observed) == set()
    assert duration < 20


def test_a_missing_file_ends_the_probe_after_the_first_check():
    server = serving.Missing()
    observed, duration = probe_and_check_cleanup(server)
    assert (observed.answer.kind, observed.answer.code, observed.blksizes) == (
        AnswerKind.ERROR,
        1,
        (),
    )
    assert len(server.requests) == 1
    assert kinds(observed) == {"missing"}


def test_larger_values_than_requested_are_illegal():
    observed, _ = probe_and_check_cleanup(serving.GrantsTooMuch())
    assert observed.blksizes[0].result is OptionResult.ILLEGAL
    assert observed.blksizes[-1].result is OptionResult.GRANTED
    assert kinds(observed) == {"blksize-illegal", "firmware"}


def test_unrequested_options_are_found():
    observed, _ = probe_and_check_cleanup(serving.AddsOptions())
    assert {entry.unrequested for entry in observed.blksizes} == {(b"blksize2",)}
    assert kinds(observed) >= {"options-unasked", "firmware"}


def test_blocks_above_1468_bytes_that_never_arrive_are_a_risk():
    observed, duration = probe_and_check_cleanup(serving.BlackHole())
    assert (max(observed.arriving_blksizes), observed.lost_blksizes) == (1468, (2048, 4096))
    assert kinds(observed) == {"black-hole"}
    assert duration < 20


def test_blocks_of_firmware_that_never_arrive_prevent_boots():
    server = serving.BlackHole()
    server.largest = 1400
    observed, _ = probe_and_check_cleanup(server)
    assert (max(observed.arriving_blksizes), observed.lost_blksizes) == (1024, (1428, 1432))
    assert kinds(observed) == {"black-hole", "firmware"}
    [worst] = [entry for entry in derive_findings(observed) if entry.kind == "black-hole"]
    assert "Limit blksize to 1024" in worst.text


def test_a_file_of_one_block_shows_no_lost_blocks():
    observed, _ = probe_and_check_cleanup(serving.BlackHole(1000))
    assert observed.lost_blksizes == ()
    assert [entry.first_block_bytes for entry in observed.blksizes] == [512] + [1000] * 10
    assert [entry.file_ended for entry in observed.blksizes] == [False] + [True] * 10


def test_answers_from_another_address_end_the_probe_without_throughput():
    observed, _ = probe_and_check_cleanup(serving.OtherAddress())
    assert (observed.answer.origin, observed.answer.address) == (AnswerOrigin.OTHER_ADDRESS, OTHER)
    assert observed.samples == ()
    assert kinds(observed) == {"other-address"}


def test_the_block_after_65535_may_come_from_another_address():
    observed, _ = probe_and_check_cleanup(serving.OtherAddress(LARGE))
    assert observed.rollover is RolloverResult.ZERO


def test_answers_from_the_port_of_the_request_are_no_problem():
    observed, _ = probe_and_check_cleanup(serving.SinglePort())
    assert (observed.answer.origin, observed.answer.port) == (AnswerOrigin.SAME_PORT, 69)
    assert kinds(observed) == set()


def test_duplicated_blocks_after_a_duplicate_ack_are_found():
    observed, _ = probe_and_check_cleanup(serving.Apprentice())
    assert observed.repetition.copies == (2, 2, 2)
    assert kinds(observed) == {"apprentice"}


def test_a_repeated_request_that_starts_a_second_transfer_is_observed():
    observed, _ = probe_and_check_cleanup(serving.SecondTransfer())
    assert observed.repetition.transfers == 2
    assert kinds(observed) == set()


def test_a_missing_retransmission_is_found():
    observed, _ = probe_and_check_cleanup(serving.NeverRetransmits(), idle_timeout=3.0)
    assert (observed.repetition.interval, observed.repetition.waited) == (None, 4.5)
    assert kinds(observed) == {"no-repeat"}


@pytest.mark.parametrize(
    ("server", "rollover"),
    [(serving.StopsAt65535, RolloverResult.NOTHING), (serving.RollsTo1, RolloverResult.ONE)],
)
def test_the_block_number_after_65535_is_found(server, rollover):
    observed, _ = probe_and_check_cleanup(server(LARGE))
    assert observed.rollover is rollover
    assert kinds(observed) == {"rollover"}


def test_a_malformed_packet_after_block_65535_is_ignored():
    class SendsMalformedAfter65535(serving.StopsAt65535):
        def handle_ack(self, transfer, ack):
            super().handle_ack(transfer, ack)
            if ack.block == 65535:
                self.send_packet(b"\0\3\1", transfer)

    observed, _ = probe_and_check_cleanup(SendsMalformedAfter65535(LARGE))
    assert observed.rollover is RolloverResult.NOTHING


def test_an_error_after_block_65535_is_found():
    class FailsAfter65535(serving.StopsAt65535):
        def handle_ack(self, transfer, ack):
            super().handle_ack(transfer, ack)
            if ack.block == 65535:
                self.send_packet(ErrorPacket(0, "too long"), transfer)

    observed, _ = probe_and_check_cleanup(FailsAfter65535(LARGE))
    assert observed.rollover is RolloverResult.ERROR


def test_a_small_file_shows_several_blocks_but_no_rollover():
    observed, _ = probe_and_check_cleanup(serving.Good(30))
    assert observed.repetition.copies == (1, 1, 1)
    assert observed.rollover is RolloverResult.TOO_SMALL
    assert {entry.kind for entry in derive_findings(observed)} == {"short-file", "healthy"}


def test_block_65535_may_not_be_reached_without_windows():
    observed, duration = probe_and_check_cleanup(serving.NoWindows(LARGE))
    assert observed.rollover is RolloverResult.UNKNOWN
    assert duration < 20


def test_a_server_that_ignores_options_is_found():
    server = serving.IgnoresOptions()
    observed, _ = probe_and_check_cleanup(server)
    assert {
        entry.result for entry in (observed.tsize, *observed.blksizes, *observed.windowsizes)
    } == {OptionResult.IGNORED}
    assert kinds(observed) == {"tsize-missing", "firmware"}
    assert [(entry.blksize, entry.windowsize) for entry in observed.samples] == [(512, 1)]


def test_a_server_that_refuses_options_is_found():
    observed, _ = probe_and_check_cleanup(serving.RefusesOptions())
    assert {
        entry.result for entry in (observed.tsize, *observed.blksizes, *observed.windowsizes)
    } == {OptionResult.REFUSED}
    assert "blksize-refused" in kinds(observed)


def test_a_wrong_tsize_is_found():
    observed, _ = probe_and_check_cleanup(serving.WrongSize())
    assert (observed.tsize.value, observed.size) == (1234, SIZE)
    assert kinds(observed) == {"tsize-wrong"}


def test_a_lost_request_is_repeated():
    class IgnoresFirstRequest(serving.Good):
        def handle_request(self, rrq, client):
            if len(self.requests) > 1:
                super().handle_request(rrq, client)

    observed, _ = probe_and_check_cleanup(IgnoresFirstRequest())
    assert (observed.answer.kind, observed.answer.requests) == (AnswerKind.DATA, 2)
    assert "lost-request" in kinds(observed)


def test_a_malformed_retransmission_is_observed():
    class SendsMalformed(serving.NeverRetransmits):
        def tick(self):
            for transfer in self.transfers.values():
                if self.net.clock.seconds() - transfer.sent_at > 1:
                    self.send_packet(b"\0\3\0", transfer)

    observed, _ = probe_and_check_cleanup(SendsMalformed(), idle_timeout=2.0)
    assert observed.repetition.is_malformed


def start_probe(net):
    endpoint = ServerEndpoint(ADDRESS, ("192.0.2.7", 0), 1468, False)
    probe = Probe(
        ProbeTarget(net.runtime, endpoint, b"f", run_in_memory(net)), SERVER, 5.0, lambda _: None
    )
    ended = []
    done = Deferred.fromCoroutine(probe.run())
    done.addErrback(lambda failure: ended.append(failure.type))
    return done, ended


@pytest.mark.parametrize("seconds", [0.0005, 0.5, 3.0, 6.0, 8.0])
def test_cancellation_during_any_check_leaves_nothing_open(seconds):
    server = serving.Good(LARGE)
    done, ended = start_probe(server.net)
    while server.net.clock.seconds() < seconds:
        server.net.clock.advance(0.001)
        server.exchange_datagrams()
        server.tick()
    done.cancel()
    assert ended == [CancelledError]
    for _ in range(100):
        server.exchange_datagrams()
        server.net.clock.advance(0.05)
    assert (server.net.ports, server.net.clock.getDelayedCalls()) == ({}, [])
    if seconds > 0.01:
        assert isinstance(server.errors[-1], ErrorPacket)


def test_a_port_that_cannot_be_opened_causes_a_local_error(net):
    net.no_ports = True
    _, ended = start_probe(net)
    assert ended == [LocalError]
