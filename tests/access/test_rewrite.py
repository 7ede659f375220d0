"""Rules that rewrite names: their results and their limits."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.access import rewrite
from tftpd.access.client import ClientIdentity
from tftpd.access.paths import RequestName
from tftpd.access.placeholders import InvalidPlaceholder
from tftpd.access.regex import MAX_NAME_BYTES, pattern
from tftpd.access.rewrite import NameRules, RewriteRule, apply_rules, parse_template
from tftpd.protocol.errors import ErrorCode, RequestRefused

CLIENT = ClientIdentity(ip_address("10.0.0.7"))


def rule(match, to=None, label="r", **options):
    compiled = pattern(match)
    return RewriteRule(
        label, compiled, None if to is None else parse_template(to, compiled), **options
    )


@pytest.mark.parametrize(
    ("match", "to", "name", "rewritten"),
    [
        ("^pxelinux", "bios/pxelinux", b"pxelinux.0", b"bios/pxelinux.0"),
        (r"\.cfg$", "", b"a.cfg", b"a"),
        ("^(.*)/(.*)$", "{2}/{1}", b"a/b/c", b"c/a/b"),
        ("^(?P<dir>[^/]*)/", "{dir:upper}-", b"boot/x", b"BOOT-x"),
        ("B.*", "{0:lower}", b"aBCD\xc4", b"abcd\xc4"),
        ("x(y)?", "[{1}]", b"axb", b"a[]b"),
        ("^", "/{ip}/{ip_hex}/", b"x", b"/10.0.0.7/0A000007/x"),
        ("x", "{{{0}}}", b"x", b"{x}"),
        ("x", "ä", b"x", b"\xc3\xa4"),
        ("a", "b", b"aa", b"ba"),
        ("none", "b", b"aa", b"aa"),
    ],
)
def test_the_match_is_replaced(match, to, name, rewritten):
    assert apply_rules([rule(match, to)], name, False, CLIENT).name == rewritten


def test_placeholders_support_ipv6_addresses():
    rules = [rule("^.*$", "{ip} {ip_hex}")]
    rewritten = apply_rules(rules, b"x", False, ClientIdentity(ip_address("2001:db8::1"))).name
    assert rewritten == b"2001:db8::1 20010DB8000000000000000000000001"


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("{2}", "{2}: there are 1 groups"),
        ("{9999}", "{9999}: there are 1 groups"),
        ("{host}", "{host} is not a group and not one of name, ip, ip_hex, mac"),
        ("{1:title}", "{1:title}: expected :upper or :lower after the key"),
        ("{", 'a single "{": write it twice for a literal brace'),
        ("a}b", 'a single "}": write it twice for a literal brace'),
        ("{}", 'a single "{": write it twice for a literal brace'),
        ("a\0b", "a name cannot contain NUL"),
    ],
)
def test_an_invalid_template_is_an_error_with_its_reason(to, reason):
    with pytest.raises(InvalidPlaceholder) as bad:
        parse_template(to, pattern("(?P<name>x)"))
    assert str(bad.value) == reason


def test_rules_are_applied_in_order_and_listed():
    rules = [rule("a", "b", "first"), rule("b", "c", "second"), rule("x", "y", "third")]
    assert apply_rules(rules, b"a", False, CLIENT) == RequestName(b"c", ("first", "second"))
    assert apply_rules(rules, b"q", False, CLIENT) == RequestName(b"q")


def test_a_rule_with_last_ends_the_rules():
    rules = [rule("a", "b", last=True), rule("b", "c")]
    assert apply_rules(rules, b"a", False, CLIENT).name == b"b"
    assert apply_rules(rules, b"b", False, CLIENT).name == b"c"


def test_a_rule_with_restart_restarts_the_rules():
    rules = [rule("^c", "d"), rule("^a", "b"), rule("^b", "c", restart=True)]
    assert apply_rules(rules, b"a", False, CLIENT).name == b"d"


def test_a_rule_with_repeat_replaces_all_matches():
    assert apply_rules([rule(r"\\", "/", repeat=True)], b"a\\b\\c", False, CLIENT).name == b"a/b/c"


def test_last_and_restart_apply_after_all_repetitions():
    ends = [rule("a", "b", repeat=True, last=True), rule("b", "c")]
    assert apply_rules(ends, b"aa", False, CLIENT).name == b"bb"
    assert apply_rules(ends, b"bb", False, CLIENT).name == b"cb"
    anew = [rule("^bb", "c"), rule("a", "b", repeat=True, restart=True)]
    assert apply_rules(anew, b"aa", False, CLIENT).name == b"c"


def test_a_rule_with_unless_applies_to_names_without_a_match():
    rules = [rule("^boot/", unless=True, refuse=True, label="rewrite[0]")]
    assert apply_rules(rules, b"boot/x", False, CLIENT).name == b"boot/x"
    with pytest.raises(RequestRefused) as refused:
        apply_rules(rules, b"x", False, CLIENT)
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION
    assert str(refused.value) == "rewrite[0] refuses the name"


def test_the_reason_of_a_refusal_has_the_rewritten_name():
    rules = [rule("a", "\x1b", "rewrite[0]"), rule("^", refuse=True, label="rewrite[1]")]
    with pytest.raises(RequestRefused) as refused:
        apply_rules(rules, b"a", False, CLIENT)
    assert str(refused.value) == 'rewrite[1] refuses the name ("\\x1b" by rewrite[0])'


def test_a_rule_can_be_limited_to_reads_writes_or_clients():
    reads, writes = rule("a", "r", writes=False), rule("a", "w", reads=False)
    assert apply_rules([reads, writes], b"a", False, CLIENT).name == b"r"
    assert apply_rules([reads, writes], b"a", True, CLIENT).name == b"w"
    here = replace(rule("a", "b"), clients=(ip_network("10.0.0.0/8"),))
    assert apply_rules([here], b"a", False, CLIENT).name == b"b"
    assert apply_rules([here], b"a", False, ClientIdentity(ip_address("192.0.2.1"))).name == b"a"


@pytest.mark.parametrize(
    "rules",
    [
        [rule("a", "b", restart=True), rule("b", "a", restart=True)],
        [rule("a", "a", repeat=True)],
        [rule("", restart=True)],
        [rule("^", "a", repeat=True)],
    ],
    ids=["alternating", "repeated", "unchanged", "growing"],
)
def test_endless_rules_refuse_the_name(rules):
    applied = []
    with pytest.raises(RequestRefused) as refused:
        apply_rules(rules, b"a", False, CLIENT, lambda rule, name: applied.append(name))
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION
    assert len(applied) <= rewrite.MAX_APPLIED_RULES + 1


def test_a_name_that_is_too_long_for_the_rules_is_refused():
    refusing = [rule("secret", refuse=True)]
    with pytest.raises(RequestRefused):
        apply_rules(refusing, b"./" * 200 + b"secret", False, CLIENT)
    long = b"a" * 300
    assert apply_rules([], long, False, CLIENT).name == long
    assert apply_rules([replace(refusing[0], reads=False)], long, False, CLIENT).name == long


@given(st.binary(max_size=MAX_NAME_BYTES))
def test_rules_without_a_match_keep_any_bytes(name):
    rules = [rule("^none$", "x"), rule("^(.*)$", "{1}"), rule("none", refuse=True)]
    try:
        assert apply_rules(rules, name, False, CLIENT).name == name
    except RequestRefused:
        assert b"none" in name


def test_a_rule_with_mac_is_skipped_if_the_mac_address_is_unknown():
    client = ClientIdentity(ip_address("10.0.0.7"), lambda: bytes.fromhex("525400abcdef"))
    rules = [rule("^", "{mac:upper}/")]
    assert apply_rules(rules, b"a", False, client).name == b"52-54-00-AB-CD-EF/a"
    assert apply_rules(rules, b"a", False, CLIENT) == RequestName(b"a")
    assert apply_rules([rule("(?P<mac>a)", "{mac}b")], b"a", False, CLIENT).name == b"ab"


def test_named_groups_are_kept_for_templates():
    sees = rule("^(?P<kind>[a-z]+)/(?P<none>x)?", last=True)
    assert apply_rules([sees], b"efi/y", False, CLIENT) == RequestName(
        b"efi/y", (), {"kind": b"efi"}
    )
    both = [rule("^(?P<kind>[a-z]+)", "{kind}", "first"), rule("(?P<rest>y)", "z", "second")]
    rewritten = apply_rules(both, b"efi/y", False, CLIENT)
    assert rewritten == RequestName(b"efi/z", ("first", "second"), {"kind": b"efi", "rest": b"y"})


def test_the_reason_of_a_refusal_names_the_exceeded_limit():
    with pytest.raises(RequestRefused, match=r"^the name is too long for the rewrite rules$"):
        apply_rules([rule("x")], b"a" * (MAX_NAME_BYTES + 1), False, CLIENT)
    with pytest.raises(RequestRefused, match=r"^the rewrite rules do not come to an end$"):
        apply_rules([rule("", restart=True)], b"a", False, CLIENT)


def test_endless_rules_stop_one_rule_after_the_maximum():
    maximum = rewrite.MAX_APPLIED_RULES
    applied = []
    with pytest.raises(RequestRefused):
        apply_rules(
            [rule("", restart=True)], b"a", False, CLIENT, lambda *reports: applied.append(reports)
        )
    assert len(applied) == maximum + 1


def test_each_applied_rule_is_reported_with_its_result():
    first, second, never = rule("a", "b"), rule("b", "c"), rule("x", "y")
    reports = []
    apply_rules([first, never, second], b"a", False, CLIENT, lambda *report: reports.append(report))
    assert reports == [(first, b"b"), (second, b"c")]


def test_rules_for_other_requests_are_skipped_at_any_position():
    writes = rule("a", "w", reads=False)
    rules = [rule("a", "b"), writes, rule("x", "y"), writes, writes, rule("b", "c")]
    assert apply_rules(rules, b"a", False, CLIENT).name == b"c"


def test_a_named_group_without_a_match_is_empty():
    assert apply_rules([rule("x(?P<y>y)?", "[{y}]")], b"ax", False, CLIENT).name == b"a[]"


@pytest.mark.parametrize("number", ["2", "99", "999", "0001", "9999", "12345"])
def test_a_missing_group_is_an_error_for_any_length_of_its_number(number):
    with pytest.raises(InvalidPlaceholder, match="there are 1 groups"):
        parse_template(f"{{{number}}}", pattern("(x)"))
    assert parse_template("{001}", pattern("(x)"))


def test_rules_apply_to_a_name_that_was_decoded_before():
    naming = NameRules((rule("^x/", "", "rewrite[0]"),), encodings=("gb18030",))
    name = naming.decode("x/王".encode("gb2312"))
    assert (name.name, name.steps) == ("x/王".encode(), ("encoding",))
    applied = apply_rules(naming.rules, name.name, False, CLIENT, steps=name.steps)
    assert (applied.name, applied.steps) == ("王".encode(), ("encoding", "rewrite[0]"))
    assert naming.decode("王".encode()).steps == ()
