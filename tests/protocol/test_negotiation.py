"""Options that were asked for, and what is agreed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.protocol import options as opt
from tftpd.protocol.negotiation import Direction, Mode, OptionLimits, TransferOptions, negotiate
from tftpd.protocol.packets import Oack, decode

READ, WRITE = Direction.READ, Direction.WRITE
NETASCII, OCTET = Mode.NETASCII, Mode.OCTET


def _agreed(*options, limits=None, mode=OCTET, direction=READ, size=1000):
    return negotiate(options, limits or OptionLimits(), mode, direction, size)


def test_no_options_are_the_terms_of_rfc_1350():
    assert _agreed() == TransferOptions(OCTET, 512, 1, None, None, 0, ())


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [
        (b"blksize", b"8", b"8"),
        (b"blksize", b"65464", b"65464"),
        (b"blksize", b"7", None),
        (b"blksize", b"65465", None),
        (b"blksize2", b"8", b"8"),
        (b"blksize2", b"1000", b"512"),
        (b"blksize2", b"65464", b"32768"),
        (b"blksize2", b"7", None),
        (b"timeout", b"1", b"1"),
        (b"timeout", b"255", b"255"),
        (b"timeout", b"007", b"007"),
        (b"timeout", b"0", None),
        (b"timeout", b"256", None),
        (b"utimeout", b"10000", b"10000"),
        (b"utimeout", b"255000000", b"255000000"),
        (b"utimeout", b"9999", None),
        (b"utimeout", b"255000001", None),
        (b"tsize", b"0", b"1000"),
        (b"tsize", b"5", b"1000"),
        (b"windowsize", b"1", b"1"),
        (b"windowsize", b"64", b"64"),
        (b"windowsize", b"65535", b"64"),
        (b"windowsize", b"0", None),
        (b"windowsize", b"65536", None),
        (b"rollover", b"0", b"0"),
        (b"rollover", b"1", b"1"),
        (b"rollover", b"2", None),
        (b"multicast", b"", None),
        (b"", b"", None),
    ],
)
def test_each_option_is_answered_or_left_out(name, value, answer):
    oack = () if answer is None else ((name, answer),)
    assert _agreed((name, value)).oack == oack


@pytest.mark.parametrize(
    "name", [b"blksize", b"blksize2", b"timeout", b"utimeout", b"tsize", b"windowsize", b"rollover"]
)
@pytest.mark.parametrize(
    "value", [b"", b"-1", b"+1", b" 8", b"8.5", b"0x10", b"abc", b"\xff", b"9" * 5000, b"1e3"]
)
@pytest.mark.parametrize("direction", [READ, WRITE])
def test_what_is_no_number_is_left_out(name, value, direction):
    assert _agreed((name, value), direction=direction) == TransferOptions()


def test_order_and_spelling_are_the_clients():
    agreed = _agreed((b"TSIZE", b"0"), (b"x", b"y"), (b"WindowSize", b"4"), (b"BlkSize", b"1024"))
    assert agreed.oack == ((b"TSIZE", b"1000"), (b"WindowSize", b"4"), (b"BlkSize", b"1024"))
    assert (agreed.blksize, agreed.windowsize, agreed.tsize) == (1024, 4, 1000)


def test_an_option_given_twice_counts_once():
    first = ((b"blksize", b"1024"), (b"timeout", b"3"))
    agreed = _agreed(*first, (b"BLKSIZE", b"8"), (b"timeout", b"9"))
    assert agreed.oack == first


def test_an_option_that_is_no_number_does_not_stand_in_the_way_of_one_that_is():
    assert _agreed((b"blksize", b"x"), (b"blksize", b"1024")).oack == ((b"blksize", b"1024"),)


def test_of_two_options_of_one_meaning_the_first_counts():
    assert _agreed((b"blksize2", b"1000"), (b"blksize", b"1000")).oack == ((b"blksize2", b"512"),)
    agreed = _agreed((b"utimeout", b"50000"), (b"timeout", b"3"))
    assert (agreed.oack, agreed.timeout) == (((b"utimeout", b"50000"),), 0.05)


def test_limits_cap_and_never_raise():
    limits = OptionLimits(blksize=1000, windowsize=8)
    asked = ((b"blksize", b"1468"), (b"windowsize", b"64"))
    assert _agreed(*asked, limits=limits).oack == ((b"blksize", b"1000"), (b"windowsize", b"8"))
    asked = ((b"blksize", b"8"), (b"windowsize", b"2"))
    assert _agreed(*asked, limits=limits).oack == asked
    assert _agreed((b"blksize2", b"1024"), limits=limits).oack == ((b"blksize2", b"512"),)


def test_a_window_is_bounded_in_octets_wherever_its_options_stand():
    limits = OptionLimits(windowsize=64, window_bytes=65536)
    for order in (1, -1):
        asked = [(b"blksize", b"8192"), (b"windowsize", b"64")][::order]
        assert dict(_agreed(*asked, limits=limits).oack)[b"windowsize"] == b"8"
    large = _agreed((b"windowsize", b"2"), (b"blksize", b"65464"), limits=limits)
    assert large.windowsize == 1


def test_a_window_leaves_a_number_to_tell_it_from_none():
    limits = OptionLimits(windowsize=65535)
    asked = ((b"windowsize", b"65535"), (b"blksize", b"8"))
    assert _agreed(*asked, limits=limits).windowsize == 65535
    assert _agreed(*asked, (b"rollover", b"1"), limits=limits).windowsize == 65534


def test_the_size_of_a_netascii_read_is_left_out():
    assert _agreed((b"tsize", b"0"), mode=NETASCII) == TransferOptions(mode=NETASCII)


def test_the_size_of_a_write_is_echoed():
    agreed = _agreed((b"tsize", b"0123"), direction=WRITE, size=None)
    assert (agreed.oack, agreed.tsize) == (((b"tsize", b"0123"),), 123)


@pytest.mark.parametrize("spelled", [b"octet", b"OCTET", b"OcTeT"])
def test_modes_in_any_letter_case(spelled):
    assert Mode.spelled(spelled) is OCTET


@pytest.mark.parametrize("spelled", [b"mail", b"", b"octet ", b"binary", b"\xff"])
def test_other_modes_are_not_served(spelled):
    assert Mode.spelled(spelled) is None


RANGES = {  # RFC 2348, 2349 and 7440
    opt.BLKSIZE: (8, 65464),
    opt.BLKSIZE2: (8, 65464),
    opt.TIMEOUT: (1, 255),
    opt.UTIMEOUT: (10_000, 255_000_000),
    opt.TSIZE: (0, 2**63 - 1),
    opt.WINDOWSIZE: (1, 65535),
    opt.ROLLOVER: (0, 1),
}
BINARY = st.binary(max_size=24).map(lambda data: data.replace(b"\0", b""))
NAMES = st.sampled_from([*RANGES, b"BLKSIZE", b"BlkSize", b"multicast"]) | BINARY.map(
    lambda name: name or b"x"
)
VALUES = (
    st.sampled_from(
        [b"0", b"1", b"8", b"512", b"65464", b"65535", b"9" * 19, b"0008", b"+8", b"8 "]
    )
    | st.integers(-5, 70_000).map(lambda number: b"%d" % number)
    | BINARY
)
NEGOTIATIONS = st.tuples(
    st.lists(st.tuples(NAMES, VALUES), max_size=12).map(tuple),
    st.builds(
        OptionLimits,
        blksize=st.integers(8, 65464),
        windowsize=st.integers(1, 65535),
        window_bytes=st.integers(1, 4 << 20),
        refused=st.frozensets(st.sampled_from(sorted(RANGES))),
        empty_tsize=st.booleans(),
        rollover=st.sampled_from([0, 1]),
    ),
    st.sampled_from(Mode),
    st.sampled_from(Direction),
    st.none() | st.integers(0, 1 << 40),
)


def _may_answer(name, requested, value):
    """Return True if an OACK may answer a requested value with this one."""
    low, high = RANGES.get(name.lower(), (0, -1))
    if not requested.isdigit() or not low <= int(requested) <= high:
        return False
    if name.lower() in (opt.TIMEOUT, opt.UTIMEOUT, opt.ROLLOVER):
        return requested == value
    return value.isdigit()


@given(NEGOTIATIONS)
def test_an_oack_has_requested_options_in_their_order_and_spelling(negotiation):
    requested, limits, *_ = negotiation
    terms = negotiate(*negotiation)
    left = iter(requested)
    for name, value in terms.oack:
        assert any(name == n and _may_answer(name, v, value) for n, v in left)
        assert name.lower() not in limits.refused
    names = [name.lower() for name, _ in terms.oack]
    assert len(set(names)) == len(names)
    assert not {opt.BLKSIZE, opt.BLKSIZE2} <= set(names)
    assert not {opt.TIMEOUT, opt.UTIMEOUT} <= set(names)
    assert decode(Oack(terms.oack).encode()) == Oack(terms.oack)


@given(NEGOTIATIONS)
def test_no_value_is_above_the_limits_or_what_was_requested(negotiation):
    requested, limits, mode, direction, size = negotiation
    terms = negotiate(*negotiation)
    answers = {name.lower(): int(value) for name, value in terms.oack}
    for name, limit in (
        (opt.BLKSIZE, limits.blksize),
        (opt.BLKSIZE2, limits.blksize),
        (opt.WINDOWSIZE, limits.windowsize),
    ):
        if name in answers:
            first = next(v for n, v in requested if n.lower() == name and _may_answer(n, v, b"0"))
            assert RANGES[name][0] <= answers[name] <= min(limit, int(first))
    assert answers.get(opt.BLKSIZE2, 8).bit_count() == 1
    assert terms.windowsize == 1 or terms.windowsize * terms.blksize <= limits.window_bytes
    assert terms.windowsize < 65536 - terms.rollover
    if opt.TSIZE in answers and direction is READ:
        assert (answers[opt.TSIZE], mode) == (size, OCTET)
        assert size or limits.empty_tsize


@given(NEGOTIATIONS)
def test_the_terms_are_those_of_the_oack_or_the_defaults(negotiation):
    limits = negotiation[1]
    terms = negotiate(*negotiation)
    answers = {name.lower(): int(value) for name, value in terms.oack}
    timeout = answers.get(opt.TIMEOUT)
    assert terms.blksize == answers.get(opt.BLKSIZE, answers.get(opt.BLKSIZE2, 512))
    assert terms.windowsize == answers.get(opt.WINDOWSIZE, 1)
    assert terms.rollover == answers.get(opt.ROLLOVER, limits.rollover)
    assert terms.tsize == answers.get(opt.TSIZE)
    assert terms.timeout == (answers[opt.UTIMEOUT] / 1e6 if opt.UTIMEOUT in answers else timeout)


def test_a_refused_option_is_left_out_in_any_spelling():
    limits = OptionLimits(refused=frozenset({b"blksize", b"tsize"}))
    terms = _agreed((b"BlkSize", b"1024"), (b"tsize", b"0"), (b"windowsize", b"4"), limits=limits)
    assert terms == TransferOptions(windowsize=4, oack=((b"windowsize", b"4"),))


def test_where_blksize_is_refused_blksize2_may_still_be_agreed():
    limits = OptionLimits(refused=frozenset({b"blksize"}))
    terms = _agreed((b"blksize", b"1400"), (b"blksize2", b"1400"), limits=limits)
    assert terms == TransferOptions(blksize=1024, oack=((b"blksize2", b"1024"),))


@pytest.mark.parametrize(("size", "told"), [(0, ()), (1, ((b"tsize", b"1"),))])
def test_the_tsize_of_an_empty_file_can_be_left_out(size, told):
    assert _agreed((b"tsize", b"0"), limits=OptionLimits(empty_tsize=False), size=size).oack == told


def test_an_upload_may_announce_that_it_is_empty_all_the_same():
    terms = _agreed((b"tsize", b"0"), limits=OptionLimits(empty_tsize=False), direction=WRITE)
    assert terms == TransferOptions(tsize=0, oack=((b"tsize", b"0"),))


def test_the_number_after_65535_is_ours_where_the_client_does_not_ask():
    limits = OptionLimits(rollover=1, windowsize=65535, window_bytes=1 << 40)
    assert _agreed((b"windowsize", b"65535"), limits=limits).windowsize == 65534
    assert _agreed(limits=limits) == TransferOptions(rollover=1)
    assert _agreed((b"rollover", b"0"), limits=limits) == TransferOptions(
        oack=((b"rollover", b"0"),)
    )


def test_the_options_that_were_agreed_are_told_in_small_letters():
    agreed = _agreed((b"TSIZE", b"0"), (b"x", b"y"), (b"BlkSize", b"1024"))
    assert agreed.options == ("tsize", "blksize")
    assert TransferOptions().options == ()


def test_who_is_told_the_size_may_have_asked_for_nothing_else():
    assert _agreed((b"Tsize", b"0")).probes
    assert not _agreed((b"blksize", b"1024")).probes


def test_unless_told_otherwise_all_is_granted_that_a_peer_may_ask_and_a_session_can_hold():
    asked = ((b"blksize", b"65464"), (b"windowsize", b"65535"))
    agreed = negotiate(asked, OptionLimits(), OCTET, READ)
    assert (agreed.blksize, agreed.windowsize) == (65464, 32)  # 2 MiB
    assert negotiate((asked[1],), OptionLimits(), OCTET, READ).windowsize == 64


def test_where_nobody_knows_the_size_of_a_file_none_is_told():
    assert negotiate(((b"tsize", b"0"),), OptionLimits(), OCTET, READ) == TransferOptions()


@pytest.mark.parametrize(
    ("option", "seconds"), [((b"timeout", b"3"), 3.0), ((b"utimeout", b"2500000"), 2.5)]
)
def test_timeouts_are_seconds_or_millionths_of_them(option, seconds):
    assert _agreed(option).timeout == seconds
