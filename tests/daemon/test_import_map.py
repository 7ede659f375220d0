"""`tftpd import-map`: the rules of tftp-hpa's map files as ours."""

from ipaddress import ip_address

import pytest

from tftpd.access.client import Client
from tftpd.access.rewrite import apply_rules
from tftpd.config.loader import load_settings
from tftpd.config.names import MAX_RULES
from tftpd.daemon.cli import main
from tftpd.protocol.errors import RequestRefused

MAP = """\
# Names that Windows asks for.
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
  # does nothing
  # 8: a~6  ^boot/
  - {unless: '^boot/', refuse: true, clients: ["::/0"]}
"""


@pytest.fixture
def imports(tmp_path, capsys):
    """Imports a map; gives the exit status and what was printed."""

    def run(text):
        (tmp_path / "map").write_bytes(text if isinstance(text, bytes) else text.encode())
        status = main(["import-map", str(tmp_path / "map")])
        out, err = capsys.readouterr()
        return status, out, err.replace(f"{tmp_path}/", "")

    return run


@pytest.fixture
def rules(imports, tmp_path):
    """The rules that a map becomes, as the daemon has them from its configuration."""

    def made(text):
        status, out, err = imports(text)
        assert (status, err) == (0, "")
        root = f"directories: [{{root: {tmp_path}, read: true}}]\n"
        (tmp_path / "t.yaml").write_text(root + out)
        return load_settings(tmp_path / "t.yaml").build_name_rules().rules

    return made


def test_a_map_becomes_rules_that_load(imports, rules):
    assert imports(MAP) == (0, RULES, "")
    client = Client(ip_address("10.0.0.7"))
    for asked, writes, name in (
        (b"C:\\boot\\BCD", False, b"/boot/BCD"),
        (b"\\tftpboot\\x/y", False, b"x/y"),
        (b"menu", False, b"menus/0A000007-10.0.0.7x"),
        (b"menu", True, b"menu"),
        (b"router1-confg", True, b"ROUTER1.cfg"),
    ):
        assert apply_rules(rules(MAP), asked, writes, client).name == name
    with pytest.raises(RequestRefused):
        apply_rules(rules(MAP), b"x", False, Client(ip_address("2001:db8::7")))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("E ^x", '"E" is no operation'),
        ("rT ^x y", '"T" is no operation'),
        ("R ^x y", '"R" is no operation'),
        ("r~ ^x y", "r and ~ cannot go together"),
        ("rGP ^x y", "G and P together; without both it is for all requests"),
        ("r", "a rule without a regular expression"),
        ("r # x", "a rule without a regular expression"),
        ("s ^x", "s without r never ends"),
        ("g ^x", "g without r never ends"),
        (r"r (a)\1 x", r"\1: an expression cannot match again what a group matched"),
        (r"r \bx y", r"\b: word boundaries are not translated; write the rule by hand, with \b"),
        (r"r \<x y", r"\<: word boundaries are not translated; write the rule by hand, with \b"),
        (r"r \d y", r"\d: not in POSIX; write [0-9] or [^0-9]"),
        ("r a{1001} x", "invalid repetition size: {1001}; at most 1000, nested ones multiplied"),
        (r"r (a+)+ \1", "a repeated group that has alternatives or that the replacement uses: "
         "in.tftpd may find other groups"),
        ("r grün x", "not printable ASCII; other bytes are written as \\xe4"),
        ("r x a\u200bb", "a character that cannot be printed"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_imported_is_told(imports, line, why):
    assert imports(f"# first\n{line}\nr a b\n") == (1, "", f"map:2: {why}\n")


def test_all_of_them_are_told_and_no_rule_is_printed(imports):
    assert imports("E x\nr a b\nr ( x\n") == (
        1,
        "",
        'map:1: "E" is no operation\nmap:3: missing ): (\n',
    )


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
def test_a_line_as_a_rule(imports, rules, line, rule):
    status, out, _ = imports(f"{line}\n")
    assert (status, out.splitlines()[-1]) == (0, f"  - {rule}")
    assert len(rules(f"{line}\n")) == 1


def test_what_in_tftpd_does_unlike_its_manual_is_remarked(imports):
    assert "  # after its restart in.tftpd 5.2 " in imports("rs a b\n")[1]


def test_what_no_client_has_is_no_rule(imports):
    out = "rewrite: []\n  # 1: r46 a b\n  # is for no client\n"
    assert imports("r46 a b\n") == (0, out, "")


def test_an_empty_map_is_no_rules(imports, rules):
    assert imports("# nothing\n\n") == (0, "rewrite: []\n", "")
    assert rules("") == ()


def test_more_rules_than_there_may_be_are_told(imports):
    status, _, err = imports("r a b\n" * (MAX_RULES + 1))
    assert (status, err) == (1, f"map:{MAX_RULES + 1}: there may be {MAX_RULES} rules at most\n")


def test_what_cannot_be_read_is_told(imports, tmp_path, capsys):
    assert imports(b"r \xff x\n") == (1, "", "map: the file is not UTF-8 text\n")
    assert main(["import-map", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"{tmp_path}/none: No such file or directory\n"
