"""`tftpd import-map` translates map files of tftp-hpa."""

import io
import os
import tempfile
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tftpd.access.client import ClientIdentity
from tftpd.access.rewrite import apply_rules
from tftpd.config.loader import load_settings
from tftpd.config.names import MAX_RULES
from tftpd.daemon.cli import main
from tftpd.daemon.import_map import translate
from tftpd.protocol.errors import RequestRefused

MAP = """\
# Names that Windows requests.
rgi  \\\\        /
ri   ^[a-z]:     # the drive
r    ^/tftpboot/(.*)$  \\1
rG   ^menu$      menus/\\x\\L-\\iX
reP  ^([^/]*)-confg$ \\U\\1\\E.cfg
i    ^nothing
a~6  ^boot/
"""

RULES = """\
rewrite:
  # 2: rgi  \\\\        /
  - {match: '\\\\', to: '/', repeat: true, ignore_case: true}
  # 3: ri   ^[a-z]:     # the drive
  - {match: '^[a-z]:', to: '', ignore_case: true}
  # 4: r    ^/tftpboot/(.*)$  \\1
  - {match: '^/tftpboot/(.*)$', to: '{1}'}
  # 5: rG   ^menu$      menus/\\x\\L-\\iX
  - {match: '^menu$', to: 'menus/{ip_hex}-{ip:lower}x', on: read}
  # 6: reP  ^([^/]*)-confg$ \\U\\1\\E.cfg
  - {match: '^([^/]*)-confg$', to: '{1:upper}.cfg', last: true, on: write}
  # 7: i    ^nothing
  # has no effect
  # 8: a~6  ^boot/
  - {unless: '^boot/', refuse: true, clients: ["::/0"]}
"""


HINT = "map: not all lines were translated; write their rules by hand, at the marked places\n"


@pytest.fixture
def import_text(tmp_path, capsys):
    """Return a function that import_text a map and returns the exit status and the output."""

    def run(text):
        (tmp_path / "map").write_bytes(text if isinstance(text, bytes) else text.encode())
        status = main(["import-map", str(tmp_path / "map")])
        out, err = capsys.readouterr()
        return status, out, err.replace(f"{tmp_path}/", "")

    return run


@pytest.fixture
def rules(import_text, tmp_path):
    """Return a function that imports a map and loads the rules from a configuration."""

    def load_rules(text):
        status, out, err = import_text(text)
        assert (status, err) == (0, "")
        root = f"directories: [{{root: {tmp_path}, read: true}}]\n"
        (tmp_path / "t.yaml").write_text(root + out)
        return load_settings(tmp_path / "t.yaml").build_name_rules().rules

    return load_rules


def test_a_map_is_translated_into_valid_rules(import_text, rules):
    assert import_text(MAP) == (0, RULES, "")
    client = ClientIdentity(ip_address("10.0.0.7"))
    for filename, is_write, name in (
        (b"C:\\boot\\BCD", False, b"/boot/BCD"),
        (b"\\tftpboot\\x/y", False, b"x/y"),
        (b"menu", False, b"menus/0A000007-10.0.0.7x"),
        (b"menu", True, b"menu"),
        (b"router1-confg", True, b"ROUTER1.cfg"),
    ):
        assert apply_rules(rules(MAP), filename, is_write, client).name == name
    with pytest.raises(RequestRefused):
        apply_rules(rules(MAP), b"x", False, ClientIdentity(ip_address("2001:db8::7")))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("E ^x", '"E" is not an operation of in.tftpd 5.2'),
        ("rT ^x y", '"T" is not an operation of in.tftpd 5.2'),
        ("R ^x y", '"R" is not an operation of in.tftpd 5.2'),
        ("r~ ^x y", "r and ~ cannot go together"),
        ("rGP ^x y", "G and P cannot go together; a rule without both applies to all requests"),
        ("r", "the regular expression is missing"),
        ("r # x", "the regular expression is missing"),
        ("s ^x", "s without r never ends"),
        ("g ^x", "g without r never ends"),
        (r"r (a)\1 x", r"\1: an expression cannot match again what a group matched"),
        (r"r \bx y", r"\b: word boundaries are not translated; write the rule by hand, with \b"),
        (r"r \<x y", r"\<: word boundaries are not translated; write the rule by hand, with \b"),
        (r"r \d y", r"\d: not in POSIX; write [0-9] or [^0-9]"),
        ("r a{1001} x", "invalid repetition size: {1001}; at most 1000, nested ones multiplied"),
        (r"r (a+)+ \1", "a repeated group that has alternatives or that the replacement uses: "
         "in.tftpd may find other groups; write a line for each case"),
        ("r x a\u200bb", "a character is not printable"),
        (b"r x \xe4", "the replacement is not UTF-8; write the name of the file in UTF-8"),
        (b"r [[.\x01.]] x", "[[.\\x01.]]: no collating elements; write the characters themselves"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_translated_is_reported(import_text, line, reason):
    line = line if isinstance(line, bytes) else line.encode()
    status, _, err = import_text(b"# first\n%b\nr a b\n" % line)
    assert (status, err) == (1, f"map:2: {reason}\n{HINT}")


def test_all_problems_are_reported_and_the_other_rules_are_printed(import_text):
    out = (
        "rewrite:\n"
        "  # 1: E x\n"
        '  # not translated: "E" is not an operation of in.tftpd 5.2\n'
        "  # 2: r a b\n"
        "  - {match: 'a', to: 'b'}\n"
        "  # 3: r ( x\n"
        "  # not translated: missing ): (\n"
    )
    err = f'map:1: "E" is not an operation of in.tftpd 5.2\nmap:3: missing ): (\n{HINT}'
    assert import_text("E x\nr a b\nr ( x\n") == (1, out, err)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("r a {x}", "{match: 'a', to: '{{x}}'}"),
        ("r it's x's", "{match: 'it''s', to: 'x''s'}"),
        ("r a\\ b\\#c x\\ \\#y", "{match: 'a b#c', to: 'x #y'}"),
        ("r a \\9\\0", "{match: 'a', to: '{0}'}"),
        ("r a \\q\\\\", "{match: 'a', to: 'q\\'}"),
        ("r a b\\", "{match: 'a', to: 'b\\'}"),
        ("r a ü", "{match: 'a', to: 'ü'}"),
        ("rg (.*)ÿ$ \\1", r"{match: '(.*)\xc3\xbf$', to: '{1}', repeat: true}"),
        (b"rg (.*)\xff$ \\1", r"{match: '(.*)\xff$', to: '{1}', repeat: true}"),
        (
            r"ri ^(.+)/(.+-tones.xml)$ locales/\1/\2",
            "{match: '^(.+)/(.+-tones.xml)$', to: 'locales/{1}/{2}', ignore_case: true}",
        ),
        (
            r"ri ^(.+)(\.raw|\.rwb)(\.sgn)?$ ringtones/\1\2\3",
            r"{match: '^(.+)(\.raw|\.rwb)(\.sgn)?$', to: 'ringtones/{1}{2}{3}', longest: true, "
            "ignore_case: true}",
        ),
        ("r a", "{match: 'a', to: ''}"),
        ("r a b c", "{match: 'a', to: 'b'}"),
        ("r a b\r", "{match: 'a', to: 'b'}"),
        ("rgs a b", "{match: 'a', to: 'b', repeat: true, restart: true}"),
        ("rse a b", "{match: 'a', to: 'b', last: true}"),
        ("ras a b", "{match: 'a', refuse: true}"),
        ("e4 [[:upper:]]", "{match: '[[:upper:]]', last: true, clients: [0.0.0.0/0]}"),
        (r"r [\s]\s x", r"{match: '[\\s][[:space:]]', to: 'x'}"),
        ("r a{,3}b x", "{match: 'a{0,3}b', to: 'x'}"),
        ("r (a+)+ x", "{match: '(a+)+', to: 'x', longest: true}"),
        (r"ri (A|ab)b* \1", "{match: '(A|ab)b*', to: '{1}', longest: true, ignore_case: true}"),
        (r"r x(.*)y(.*)z \2", "{match: 'x(.*)y(.*)z', to: '{2}'}"),
    ],
)
def test_a_line_is_translated(import_text, rules, line, rule):
    status, out, _ = import_text(line)
    assert (status, out.splitlines()[-1]) == (0, f"  - {rule}")
    assert len(rules(line)) == 1


def test_a_difference_between_in_tftpd_and_its_manual_is_remarked(import_text):
    assert "  # after a restart in.tftpd 5.2 " in import_text("rs a b\n")[1]
    assert r"  # in.tftpd 5.2 reads \x as the letter x;" in import_text(r"r \\\xff b")[1]
    assert "  # in.tftpd 5.2 " not in import_text(r"r \\xff b")[1]


def test_a_rule_that_matches_no_client_is_left_out(import_text):
    out = "rewrite: []\n  # 1: r46 a b\n  # matches no client\n"
    assert import_text("r46 a b\n") == (0, out, "")


def test_an_empty_map_has_no_rules(import_text, rules):
    assert import_text("# nothing\n\n") == (0, "rewrite: []\n", "")
    assert rules("") == ()


def test_too_many_rules_are_reported(import_text):
    status, _, err = import_text("r a b\n" * (MAX_RULES + 1))
    reason = f"map:{MAX_RULES + 1}: too many rules; the maximum is {MAX_RULES}\n"
    assert (status, err) == (1, reason + HINT)


def test_the_map_of_foreman_removes_a_trailing_byte_0xff(rules):
    client = ClientIdentity(ip_address("10.0.0.7"))
    text = b"re ^bootmgr\\.exe boot/bootmgr.exe\nrg \\\\ /\nrg (.*)\xc3\xbf$ \\1\nr (.*)\xff$ \\1"
    for name in (b"boot\\pxelinux.0\xc3\xbf", b"boot/pxelinux.0\xff"):
        assert apply_rules(rules(text), name, False, client).name == b"boot/pxelinux.0"


def test_a_file_that_cannot_be_read_is_reported(tmp_path, capsys):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"#" * (1 << 20) + b"\n")
    for file, reason in (
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "fifo", "not a regular file; use - for standard input"),
        ("/dev/zero", "not a regular file; use - for standard input"),
        (tmp_path / "large", "a map file has at most 1048576 bytes"),
    ):
        assert main(["import-map", str(file)]) == 1
        assert capsys.readouterr() == ("", f"{file}: {reason}\n")


def test_standard_input_is_read_for_a_hyphen(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"r \xff x\n")))
    assert main(["import-map", "-"]) == 0
    assert capsys.readouterr().out.endswith("  - {match: '\\xff', to: 'x'}\n")


PIECES = (
    *("r ", "rg ", "ri ", "re ", "rs ", "~ ", "a ", "G", "P", "4", "6", "e ", "s ", "\n", "#"),
    *("^/", "[^/]*$", "([a-z]+)", "\\(", "\\)", "\\.", "\\1", "\\U\\0\\E", "\\x", "\\i", "{2}"),
    *("[[:alpha:]]", "[]-a]", "(a|b)*", "a\\{2\\}", "''", '"', ": ", " ", "\t", "{", "}", "\\"),
)


@settings(deadline=2000)  # each rule may take its part
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join).map(str.encode) | st.binary())
@example(b"r a'b c'd")
@example(b'r a"b #d\n')
def test_any_map_gives_problems_with_lines_or_rules_that_a_configuration_takes(text):
    section, problems = translate(text)
    lines = range(1, text.count(b"\n") + 2)
    assert all(line in lines and reason.isprintable() for line, reason in problems)
    if problems:
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tftpd.yaml"
        directories = ["directories:", f"  - root: {directory}", "    read: {}", ""]
        path.write_text("\n".join([*section, *directories]))
        loaded = load_settings(path)
    assert len(loaded.build_name_rules().rules) == sum(line.startswith("  - ") for line in section)
