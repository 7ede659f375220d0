"""Which profile a request has: the first whose every word fits."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.access.client import ClientIdentity
from tftpd.access.profiles import (
    DEFAULT_PROFILE,
    Profile,
    ProfileMatch,
    Profiles,
    compile_globs,
    encode_options,
    fingerprint,
    matches_globs,
)
from tftpd.protocol.packets import Rrq, Wrq

CLIENT = IPv4Address("10.0.0.7")
MAC = bytes.fromhex("525400123456")


def _asked(*options, name=b"boot.img", mode=b"octet", kind=Rrq):
    return kind(name, mode, options)


def _nobody():
    return None


def _chosen(match, request, client=CLIENT, neighbour=_nobody):
    chosen = Profiles([Profile("this", match)]).choose(request, ClientIdentity(client, neighbour))
    return chosen.name == "this"


@pytest.mark.parametrize(
    ("pattern", "options", "fits"),
    [
        ([], [], True),
        ([], [(b"tsize", b"0")], False),
        (["tsize=0"], [(b"tsize", b"0")], True),
        (["tsize=0"], [(b"TSize", b"0")], True),
        (["tsize=0"], [(b"tsize", b"00")], False),
        (["tsize=0"], [], False),
        (["tsize=0"], [(b"tsize", b"0"), (b"blksize", b"512")], False),
        (["tsize=0", "blksize"], [(b"tsize", b"0"), (b"blksize", b"512")], True),
        (["tsize=0", "blksize"], [(b"blksize", b"512"), (b"tsize", b"0")], False),
        (["tsize", "blksize=4|8"], [(b"tsize", b""), (b"blksize", b"8")], True),
        (["tsize", "blksize=4|8"], [(b"tsize", b""), (b"blksize", b"48")], False),
        (["tsize=0?", "blksize"], [(b"blksize", b"512")], True),
        (["tsize=0?", "blksize"], [(b"tsize", b"1"), (b"blksize", b"512")], False),
        (["multicast="], [(b"multicast", b"")], True),
        (["multicast="], [(b"multicast", b"1")], False),
        (["blksize"], [(b"blksize", b"\xff\n ")], True),
    ],
)
def test_options_fit_in_their_order_and_with_their_values(pattern, options, fits):
    assert bool(fingerprint(pattern).fullmatch(encode_options(tuple(options)))) is fits


@pytest.mark.parametrize("text", ["", "=1", "tsize=0=1", "blk size", "a|b", "?", "tsize=0??"])
def test_what_is_no_option_is_refused(text):
    with pytest.raises(ValueError, match="expected an option such as"):
        fingerprint([text])


def test_a_peer_cannot_make_the_pattern_take_long():
    pattern = fingerprint(["a?"] * 60 + ["b"])
    options = ((b"a", b"1" * 1000),) * 59
    assert not pattern.fullmatch(encode_options(options))


@pytest.mark.parametrize(
    ("glob", "name", "fits"),
    [
        ("*.efi", b"/EFI/BOOT/BOOTX64.EFI", True),
        ("*.efi", b"boot.efi.sig", False),
        ("boot/*", b"Boot\\BCD", True),
        ("?.cfg", "ä.cfg".encode(), True),
        ("?.cfg", b"\xff.cfg", True),
        ("*", b"a" * 4097, False),
        ("*a*a*a*a*a*b", b"a" * 4096, False),
    ],
)
def test_names_fit_in_any_letter_case(glob, name, fits):
    assert matches_globs(name, compile_globs(["x", glob])) is fits


def test_every_word_of_a_match_must_fit():
    assert _chosen(ProfileMatch(), _asked())
    assert _chosen(ProfileMatch(request=Wrq), _asked(kind=Wrq))
    assert not _chosen(ProfileMatch(request=Wrq), _asked())
    assert _chosen(ProfileMatch(mode=b"netascii"), _asked(mode=b"NetASCII"))
    assert not _chosen(ProfileMatch(mode=b"netascii"), _asked())
    network = [IPv4Network("10.0.0.0/24")]
    assert _chosen(ProfileMatch(clients=network), _asked())
    assert not _chosen(ProfileMatch(clients=network), _asked(), IPv4Address("10.0.1.7"))
    assert not _chosen(ProfileMatch(clients=network), _asked(), IPv6Address("fe80::1"))
    assert not _chosen(ProfileMatch(clients=network, files=compile_globs(["*.efi"])), _asked())
    assert _chosen(ProfileMatch(clients=network, files=compile_globs(["*.efi", "*.img"])), _asked())


def test_the_first_that_matches_is_chosen():
    profiles = Profiles([Profile("uploads", ProfileMatch(request=Wrq)), Profile("a"), Profile("b")])
    assert profiles.choose(_asked(), ClientIdentity(CLIENT)).name == "a"
    assert profiles.choose(_asked(kind=Wrq), ClientIdentity(CLIENT)).name == "uploads"
    assert Profiles().choose(_asked(), ClientIdentity(CLIENT)) is DEFAULT_PROFILE


@pytest.mark.parametrize(
    ("macs", "fits"),
    [([MAC], True), ([b"\x01", MAC[:3]], True), ([MAC[1:]], False), ([], False)],
)
def test_a_mac_address_is_known_by_its_first_octets(macs, fits):
    assert _chosen(ProfileMatch(macs=macs), _asked(), neighbour=lambda: MAC) is fits
    assert not _chosen(ProfileMatch(macs=macs), _asked())


def test_the_neighbour_is_asked_once_and_only_where_it_decides():
    asked = []

    def neighbour():
        asked.append(CLIENT)

    Profiles([Profile("a", ProfileMatch(macs=[MAC], request=Wrq)), Profile("b")]).choose(
        _asked(), ClientIdentity(CLIENT, neighbour)
    )
    assert asked == []
    profiles = [Profile("a", ProfileMatch(macs=[MAC])), Profile("b", ProfileMatch(macs=[MAC[:3]]))]
    assert Profiles(profiles).choose(_asked(), ClientIdentity(CLIENT, neighbour)) is DEFAULT_PROFILE
    assert asked == [CLIENT]


def test_it_is_known_whether_mac_addresses_matter():
    assert not Profiles([Profile("a")]).needs_mac
    assert Profiles([Profile("a"), Profile("b", ProfileMatch(macs=[MAC]))]).needs_mac


def test_it_is_known_whether_anybody_is_answered_who_asks_everyone():
    assert not Profiles([Profile("a"), Profile("b", broadcast=False)]).answers_broadcasts
    assert Profiles([Profile("a"), Profile("b", broadcast=True)]).answers_broadcasts


def test_profiles_can_be_listed():
    first, second = Profile("a"), Profile("b")
    assert list(Profiles([first, second])) == [first, second]


def test_patterns_are_values():
    assert fingerprint(["a", "b"]) == fingerprint(("a", "b")) != fingerprint(["b", "a"])
    assert compile_globs(["a", "b"]) == compile_globs(("a", "b")) != compile_globs(["b", "a"])


def test_options_choose_the_profile_together_with_the_rest():
    pxe = Profile("pxe", ProfileMatch(options=fingerprint(["tsize=0", "blksize"])))
    net = Profile("net", ProfileMatch(options=fingerprint(["blksize"]), mode=b"netascii"))
    profiles = Profiles([pxe, net, Profile("any")])
    client = ClientIdentity(CLIENT)
    sized = ((b"TSIZE", b"0"), (b"blksize", b"1468"))
    assert profiles.choose(_asked(*sized), client).name == "pxe"
    assert profiles.choose(_asked(sized[1], mode=b"NETASCII"), client).name == "net"
    assert profiles.choose(_asked(sized[1]), client).name == "any"
    assert profiles.choose(_asked(*sized), client).name == "pxe"  # remembered by its options


def test_a_name_of_4096_octets_may_fit():
    assert matches_globs(b"a" * 4096, compile_globs(["*"]))


def test_what_is_no_option_is_told_in_these_words():
    with pytest.raises(ValueError, match=r"^expected an option such as blksize, tsize=0 or "):
        fingerprint(["?"])


WORDS = st.lists(
    st.sampled_from(
        ["blksize", "tsize=0", "tsize?", "blksize=512|1468?", "windowsize=*?", "a=|?", "x=y=z"]
    )
    | st.text(max_size=20),
    max_size=6,
)
WITHOUT_NUL = st.binary().map(lambda data: data.replace(b"\0", b""))
OPTIONS = st.lists(
    st.tuples(
        st.sampled_from([b"blksize", b"tsize", b"windowsize", b"a", b"BLKSIZE"]) | WITHOUT_NUL,
        st.sampled_from([b"", b"0", b"512", b"1468", b"*"]) | WITHOUT_NUL,
    ),
    max_size=8,
)


@given(WORDS, OPTIONS)
def test_a_fingerprint_takes_each_option_in_turn(words, options):
    try:
        pattern = fingerprint(words)
    except ValueError:
        return
    left = [(name.lower(), value) for name, value in options]
    expected = True
    for word in words:
        name, has_values, values = word.removesuffix("?").partition("=")
        allowed = [value.encode() for value in values.split("|")]
        if left and left[0][0] == name.encode() and (not has_values or left[0][1] in allowed):
            del left[0]
        elif not word.endswith("?"):
            expected = False
    assert bool(pattern.fullmatch(encode_options(tuple(options)))) == (expected and not left)


GLOBS = ["*", "?", "*a*", "*a*a*a*a*b", "[a-z]*", "[!a]", "[z-a]", "[", "a[", "[]]", "[[a]", "\\"]


@given(st.lists(st.sampled_from(GLOBS) | st.text(max_size=20), max_size=6), st.binary())
def test_any_globs_match_any_name_in_bounded_time(globs, filename):
    pattern = compile_globs(globs)
    for name in (filename, filename * 1000):
        matches = matches_globs(name, pattern)
        assert not (matches and len(name) > 4096)  # no file system has such a name
        assert matches_globs(name.replace(b"\\", b"/"), pattern) == matches
        assert matches or "*" not in globs or len(name) > 4096
