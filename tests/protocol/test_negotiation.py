"""Negotiation of options."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.protocol import options as opt
from tftpd.protocol.negotiation import Direction, Mode, OptionLimits, TransferOptions, negotiate
from tftpd.protocol.packets import Oack, decode

READ, WRITE = Direction.READ, Direction.WRITE
NETASCII, OCTET = Mode.NETASCII, Mode.OCTET


def _negotiate(*options, limits=None, mode=OCTET, direction=READ, size=1000):
    return negotiate(options, limits or OptionLimits(), mode, direction, size)


def test_without_options_the_defaults_of_rfc_1350_apply():
    assert _negotiate() == TransferOptions(OCTET, 512, 1, None, None, 0, ())


@pytest.mark.parametrize(
    ("name", "value", "agreed_value"),
    [
        (b"blksize", b"8", b"8"),
        (b"blksize", b"65464", b"65464"),
        (b"blksize", b"7", None),
        (b"blksize", b"65465", b"65464"),
        (b"blksize", b"65536", b"65464"),
        (b"blksize", b"4294967296", b"65464"),
        (b"blksize", b"0", None),
        (b"blksize2", b"8", b"8"),
        (b"blksize2", b"1000", b"512"),
        (b"blksize2", b"65464", b"32768"),
        (b"blksize2", b"65536", b"32768"),
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
        (b"windowsize", b"65536", b"64"),
        (b"rollover", b"0", b"0"),
        (b"rollover", b"1", b"1"),
        (b"rollover", b"2", None),
        (b"multicast", b"", None),
        (b"", b"", None),
    ],
)
def test_each_option_is_accepted_or_left_out(name, value, agreed_value):
    oack = () if agreed_value is None else ((name, agreed_value),)
    assert _negotiate((name, value)).oack == oack


@pytest.mark.parametrize(
    "name", [b"blksize", b"blksize2", b"timeout", b"utimeout", b"tsize", b"windowsize", b"rollover"]
)
@pytest.mark.parametrize(
    "value", [b"", b"-1", b"+1", b" 8", b"8.5", b"0x10", b"abc", b"\xff", b"9" * 5000, b"1e3"]
)
@pytest.mark.parametrize("direction", [READ, WRITE])
def test_an_option_that_is_not_a_number_is_left_out(name, value, direction):
    agreed = _negotiate((name, value), direction=direction)
    assert agreed == TransferOptions(first_block=None if direction is WRITE else 1)


def test_the_oack_has_the_order_and_spelling_of_the_client():
    agreed = _negotiate(
        (b"TSIZE", b"0"), (b"x", b"y"), (b"WindowSize", b"4"), (b"BlkSize", b"1024")
    )
    assert agreed.oack == ((b"TSIZE", b"1000"), (b"WindowSize", b"4"), (b"BlkSize", b"1024"))
    assert (agreed.blksize, agreed.windowsize, agreed.tsize) == (1024, 4, 1000)


def test_a_repeated_option_counts_once():
    first = ((b"blksize", b"1024"), (b"timeout", b"3"))
    agreed = _negotiate(*first, (b"BLKSIZE", b"8"), (b"timeout", b"9"))
    assert agreed.oack == first


def test_an_invalid_option_does_not_prevent_a_later_valid_one():
    assert _negotiate((b"blksize", b"x"), (b"blksize", b"1024")).oack == ((b"blksize", b"1024"),)


def test_the_first_of_two_equivalent_options_counts():
    assert _negotiate((b"blksize2", b"1000"), (b"blksize", b"1000")).oack == (
        (b"blksize2", b"512"),
    )
    agreed = _negotiate((b"utimeout", b"50000"), (b"timeout", b"3"))
    assert (agreed.oack, agreed.timeout) == (((b"utimeout", b"50000"),), 0.05)


def test_limits_reduce_values_and_never_increase_them():
    limits = OptionLimits(blksize=1000, windowsize=8)
    requested = ((b"blksize", b"1468"), (b"windowsize", b"64"))
    assert _negotiate(*requested, limits=limits).oack == (
        (b"blksize", b"1000"),
        (b"windowsize", b"8"),
    )
    requested = ((b"blksize", b"8"), (b"windowsize", b"2"))
    assert _negotiate(*requested, limits=limits).oack == requested
    assert _negotiate((b"blksize2", b"1024"), limits=limits).oack == ((b"blksize2", b"512"),)


def test_values_above_their_ranges_are_lowered_to_the_limits():
    limits = OptionLimits(blksize=1428, windowsize=8)
    requested = ((b"blksize", b"65465"), (b"windowsize", b"70000"))
    assert _negotiate(*requested, limits=limits).oack == (
        (b"blksize", b"1428"),
        (b"windowsize", b"8"),
    )
    unlimited = OptionLimits(windowsize=65535, window_bytes=1 << 40)
    largest = ((b"windowsize", b"65536"), (b"blksize", b"8"))
    assert _negotiate(*largest, limits=unlimited).windowsize == 65535


def test_the_window_is_limited_in_bytes_for_any_order_of_the_options():
    limits = OptionLimits(windowsize=64, window_bytes=65536)
    for order in (1, -1):
        requested = [(b"blksize", b"8192"), (b"windowsize", b"64")][::order]
        assert dict(_negotiate(*requested, limits=limits).oack)[b"windowsize"] == b"8"
    large = _negotiate((b"windowsize", b"2"), (b"blksize", b"65464"), limits=limits)
    assert large.windowsize == 1


def test_a_window_of_small_blocks_has_at_most_one_block_for_256_bytes_of_the_limit():
    limits = OptionLimits(windowsize=65535, window_bytes=2 << 20)
    requested = ((b"windowsize", b"65535"), (b"blksize", b"8"))
    assert _negotiate(*requested, limits=limits).windowsize == 8192
    requested = ((b"windowsize", b"65535"), (b"blksize", b"512"))
    assert _negotiate(*requested, limits=limits).windowsize == 4096


def test_the_window_is_smaller_than_the_cycle_of_block_numbers():
    limits = OptionLimits(windowsize=65535, window_bytes=1 << 40)
    requested = ((b"windowsize", b"65535"), (b"blksize", b"8"))
    assert _negotiate(*requested, limits=limits).windowsize == 65535
    assert _negotiate(*requested, (b"rollover", b"1"), limits=limits).windowsize == 65534


def test_tsize_is_left_out_for_a_netascii_read():
    assert _negotiate((b"tsize", b"0"), mode=NETASCII) == TransferOptions(mode=NETASCII)


def test_only_a_write_without_options_may_start_with_block_0():
    assert _negotiate(direction=WRITE).first_block is None
    assert _negotiate((b"blksize", b"512"), direction=WRITE).first_block == 1
    assert _negotiate(direction=READ).first_block == 1


def test_tsize_of_a_write_is_returned_unchanged():
    agreed = _negotiate((b"tsize", b"0123"), direction=WRITE, size=None)
    assert (agreed.oack, agreed.tsize) == (((b"tsize", b"0123"),), 123)


@pytest.mark.parametrize("name", [b"octet", b"OCTET", b"OcTeT"])
def test_modes_are_parsed_in_any_letter_case(name):
    assert Mode.parse(name) is OCTET


@pytest.mark.parametrize("name", [b"mail", b"", b"octet ", b"binary", b"\xff"])
def test_other_modes_are_not_supported(name):
    assert Mode.parse(name) is None


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
    lowered = (opt.BLKSIZE, opt.BLKSIZE2, opt.WINDOWSIZE)
    if not requested.isdigit() or not low <= int(requested):
        return False
    if int(requested) > high and name.lower() not in lowered:
        return False
    if name.lower() in (opt.TIMEOUT, opt.UTIMEOUT, opt.ROLLOVER):
        return requested == value
    return value.isdigit()


@given(NEGOTIATIONS)
def test_an_oack_has_requested_options_in_their_order_and_spelling(negotiation):
    requested, limits, *_ = negotiation
    agreed = negotiate(*negotiation)
    left = iter(requested)
    for name, value in agreed.oack:
        assert any(name == n and _may_answer(name, v, value) for n, v in left)
        assert name.lower() not in limits.refused
    names = [name.lower() for name, _ in agreed.oack]
    assert len(set(names)) == len(names)
    assert not {opt.BLKSIZE, opt.BLKSIZE2} <= set(names)
    assert not {opt.TIMEOUT, opt.UTIMEOUT} <= set(names)
    assert decode(Oack(agreed.oack).encode()) == Oack(agreed.oack)


@given(NEGOTIATIONS)
def test_no_value_is_above_the_limits_or_what_was_requested(negotiation):
    requested, limits, mode, direction, size = negotiation
    agreed = negotiate(*negotiation)
    answers = {name.lower(): int(value) for name, value in agreed.oack}
    for name, limit in (
        (opt.BLKSIZE, limits.blksize),
        (opt.BLKSIZE2, limits.blksize),
        (opt.WINDOWSIZE, limits.windowsize),
    ):
        if name in answers:
            first = next(v for n, v in requested if n.lower() == name and _may_answer(n, v, b"0"))
            assert RANGES[name][0] <= answers[name] <= min(limit, int(first))
    assert answers.get(opt.BLKSIZE2, 8).bit_count() == 1
    assert agreed.windowsize == 1 or agreed.windowsize * agreed.blksize <= limits.window_bytes
    assert agreed.windowsize < 65536 - agreed.rollover
    if opt.TSIZE in answers and direction is READ:
        assert (answers[opt.TSIZE], mode) == (size, OCTET)
        assert size or limits.empty_tsize


@given(NEGOTIATIONS)
def test_the_options_in_force_are_those_of_the_oack_or_the_defaults(negotiation):
    limits = negotiation[1]
    agreed = negotiate(*negotiation)
    answers = {name.lower(): int(value) for name, value in agreed.oack}
    timeout = answers.get(opt.TIMEOUT)
    assert agreed.blksize == answers.get(opt.BLKSIZE, answers.get(opt.BLKSIZE2, 512))
    assert agreed.windowsize == answers.get(opt.WINDOWSIZE, 1)
    assert agreed.rollover == answers.get(opt.ROLLOVER, limits.rollover)
    assert agreed.tsize == answers.get(opt.TSIZE)
    assert agreed.timeout == (answers[opt.UTIMEOUT] / 1e6 if opt.UTIMEOUT in answers else timeout)


def test_a_refused_option_is_left_out_in_any_letter_case():
    limits = OptionLimits(refused=frozenset({b"blksize", b"tsize"}))
    agreed = _negotiate(
        (b"BlkSize", b"1024"), (b"tsize", b"0"), (b"windowsize", b"4"), limits=limits
    )
    assert agreed == TransferOptions(windowsize=4, oack=((b"windowsize", b"4"),))


def test_blksize2_may_be_accepted_if_blksize_is_refused():
    limits = OptionLimits(refused=frozenset({b"blksize"}))
    agreed = _negotiate((b"blksize", b"1400"), (b"blksize2", b"1400"), limits=limits)
    assert agreed == TransferOptions(blksize=1024, oack=((b"blksize2", b"1024"),))


@pytest.mark.parametrize(("size", "oack"), [(0, ()), (1, ((b"tsize", b"1"),))])
def test_tsize_of_an_empty_file_can_be_left_out(size, oack):
    assert (
        _negotiate((b"tsize", b"0"), limits=OptionLimits(empty_tsize=False), size=size).oack == oack
    )


def test_tsize_0_of_an_upload_is_always_accepted():
    agreed = _negotiate((b"tsize", b"0"), limits=OptionLimits(empty_tsize=False), direction=WRITE)
    assert agreed == TransferOptions(tsize=0, oack=((b"tsize", b"0"),))


def test_the_servers_rollover_applies_if_the_client_requests_none():
    limits = OptionLimits(rollover=1, windowsize=65535, window_bytes=1 << 40)
    assert _negotiate((b"windowsize", b"65535"), limits=limits).windowsize == 65534
    assert _negotiate(limits=limits) == TransferOptions(rollover=1)
    assert _negotiate((b"rollover", b"0"), limits=limits) == TransferOptions(
        oack=((b"rollover", b"0"),)
    )


def test_option_names_are_in_lower_case():
    agreed = _negotiate((b"TSIZE", b"0"), (b"x", b"y"), (b"BlkSize", b"1024"))
    assert agreed.option_names == ("tsize", "blksize")
    assert TransferOptions().option_names == ()


def test_has_tsize_is_true_if_the_oack_states_the_size():
    assert _negotiate((b"Tsize", b"0")).has_tsize
    assert not _negotiate((b"blksize", b"1024")).has_tsize


def test_default_limits():
    requested = ((b"blksize", b"65464"), (b"windowsize", b"65535"))
    agreed = negotiate(requested, OptionLimits(), OCTET, READ)
    assert (agreed.blksize, agreed.windowsize) == (65464, 32)  # 2 MiB
    assert negotiate((requested[1],), OptionLimits(), OCTET, READ).windowsize == 64


def test_tsize_is_left_out_if_the_size_is_unknown():
    assert negotiate(((b"tsize", b"0"),), OptionLimits(), OCTET, READ) == TransferOptions()


@pytest.mark.parametrize(
    ("option", "seconds"), [((b"timeout", b"3"), 3.0), ((b"utimeout", b"2500000"), 2.5)]
)
def test_timeouts_are_in_seconds_or_microseconds(option, seconds):
    assert _negotiate(option).timeout == seconds
