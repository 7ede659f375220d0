"""The profile of a request: the first one whose keys all match."""

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


def _request(*options, name=b"boot.img", mode=b"octet", kind=Rrq):
    return kind(name, mode, options)


def _no_neighbour():
    return None


def _chosen(match, request, client=CLIENT, neighbour=_no_neighbour):
    chosen = Profiles([Profile("this", match)]).choose(request, ClientIdentity(client, neighbour))
    return chosen.name == "this"


@pytest.mark.parametrize(
    ("pattern", "options", "matching"),
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
def test_options_match_by_order_and_value(pattern, options, matching):
    assert bool(fingerprint(pattern).fullmatch(encode_options(tuple(options)))) is matching


@pytest.mark.parametrize("text", ["", "=1", "tsize=0=1", "blk size", "a|b", "?", "tsize=0??"])
def test_an_invalid_option_pattern_is_refused(text):
    with pytest.raises(ValueError, match="expected an option such as"):
        fingerprint([text])


def test_matching_options_takes_no_exponential_time():
    pattern = fingerprint(["a?"] * 60 + ["b"])
    options = ((b"a", b"1" * 1000),) * 59
    assert not pattern.fullmatch(encode_options(options))


@pytest.mark.parametrize(
    ("glob", "name", "matching"),
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
def test_names_match_in_any_letter_case(glob, name, matching):
    assert matches_globs(name, compile_globs(["x", glob])) is matching


def test_every_key_of_a_match_must_match():
    assert _chosen(ProfileMatch(), _request())
    assert _chosen(ProfileMatch(request=Wrq), _request(kind=Wrq))
    assert not _chosen(ProfileMatch(request=Wrq), _request())
    assert _chosen(ProfileMatch(mode=b"netascii"), _request(mode=b"NetASCII"))
    assert not _chosen(ProfileMatch(mode=b"netascii"), _request())
    network = [IPv4Network("10.0.0.0/24")]
    assert _chosen(ProfileMatch(clients=network), _request())
    assert not _chosen(ProfileMatch(clients=network), _request(), IPv4Address("10.0.1.7"))
    assert not _chosen(ProfileMatch(clients=network), _request(), IPv6Address("fe80::1"))
    assert not _chosen(ProfileMatch(clients=network, files=compile_globs(["*.efi"])), _request())
    assert _chosen(
        ProfileMatch(clients=network, files=compile_globs(["*.efi", "*.img"])), _request()
    )


def test_the_first_matching_profile_is_chosen():
    profiles = Profiles([Profile("uploads", ProfileMatch(request=Wrq)), Profile("a"), Profile("b")])
    assert profiles.choose(_request(), ClientIdentity(CLIENT)).name == "a"
    assert profiles.choose(_request(kind=Wrq), ClientIdentity(CLIENT)).name == "uploads"
    assert Profiles().choose(_request(), ClientIdentity(CLIENT)) is DEFAULT_PROFILE


@pytest.mark.parametrize(
    ("macs", "matching"),
    [([MAC], True), ([b"\x01", MAC[:3]], True), ([MAC[1:]], False), ([], False)],
)
def test_a_mac_address_matches_by_its_first_bytes(macs, matching):
    assert _chosen(ProfileMatch(macs=macs), _request(), neighbour=lambda: MAC) is matching
    assert not _chosen(ProfileMatch(macs=macs), _request())


def test_the_mac_address_is_looked_up_once_and_only_if_it_matters():
    lookups = []

    def neighbour():
        lookups.append(CLIENT)

    Profiles([Profile("a", ProfileMatch(macs=[MAC], request=Wrq)), Profile("b")]).choose(
        _request(), ClientIdentity(CLIENT, neighbour)
    )
    assert lookups == []
    profiles = [Profile("a", ProfileMatch(macs=[MAC])), Profile("b", ProfileMatch(macs=[MAC[:3]]))]
    assert (
        Profiles(profiles).choose(_request(), ClientIdentity(CLIENT, neighbour)) is DEFAULT_PROFILE
    )
    assert lookups == [CLIENT]


def test_profiles_report_if_they_need_mac_addresses():
    assert not Profiles([Profile("a")]).needs_mac
    assert Profiles([Profile("a"), Profile("b", ProfileMatch(macs=[MAC]))]).needs_mac


def test_profiles_report_if_they_answer_broadcasts():
    assert not Profiles([Profile("a"), Profile("b", broadcast=False)]).answers_broadcasts
    assert Profiles([Profile("a"), Profile("b", broadcast=True)]).answers_broadcasts


def test_profiles_can_be_listed():
    first, second = Profile("a"), Profile("b")
    assert list(Profiles([first, second])) == [first, second]


def test_patterns_of_equal_words_are_equal():
    assert fingerprint(["a", "b"]) == fingerprint(("a", "b")) != fingerprint(["b", "a"])
    assert compile_globs(["a", "b"]) == compile_globs(("a", "b")) != compile_globs(["b", "a"])


def test_a_profile_is_chosen_by_options_and_mode():
    pxe = Profile("pxe", ProfileMatch(options=fingerprint(["tsize=0", "blksize"])))
    net = Profile("net", ProfileMatch(options=fingerprint(["blksize"]), mode=b"netascii"))
    profiles = Profiles([pxe, net, Profile("any")])
    client = ClientIdentity(CLIENT)
    options = ((b"TSIZE", b"0"), (b"blksize", b"1468"))
    assert profiles.choose(_request(*options), client).name == "pxe"
    assert profiles.choose(_request(options[1], mode=b"NETASCII"), client).name == "net"
    assert profiles.choose(_request(options[1]), client).name == "any"
    assert profiles.choose(_request(*options), client).name == "pxe"  # cached by its options


def test_a_name_of_4096_bytes_can_match():
    assert matches_globs(b"a" * 4096, compile_globs(["*"]))


def test_the_error_of_an_invalid_option_pattern_has_examples():
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
def test_a_fingerprint_matches_as_a_simple_matcher_does(words, options):
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
        assert not (matches and len(name) > 4096)  # longer than any path of a file system
        assert matches_globs(name.replace(b"\\", b"/"), pattern) == matches
        assert matches or "*" not in globs or len(name) > 4096
