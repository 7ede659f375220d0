"""Confinement of names that the server changes: fallbacks, rules, client directories."""

from itertools import combinations
from typing import get_args

import pytest

from tests.confinement.hostile_names import KINDS, hostile_names
from tests.confinement.requests import create_server, mount_root, read_all, received_file, write_all
from tests.confinement.served_tree import INSIDE, SECRET
from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.mounts import parse_root, parse_serials
from tftpd.access.policy import ReadPolicy
from tftpd.access.regex import pattern
from tftpd.access.rewrite import NameRules, RewriteRule, parse_template
from tftpd.config.names import Encoding

TOP = ((b"boot",), (b"tftpboot",), (b"inner",))


def _check_reads(tree, server, names, all_refused=False):
    before = tree.outside_fingerprints()
    for name, datagrams in zip(names, read_all(server, names), strict=True):
        assert SECRET not in b"".join(datagrams), name
        content = received_file(datagrams)
        assert content is None or (content in INSIDE.values() and not all_refused), name
    assert tree.outside_fingerprints() == before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("each byte")])
def test_no_fallback_reads_a_file_outside(tree, kind):
    """Links lead outside under the names that fallbacks derive."""
    for at in ("boot", "C", "LINK", "inner/boot"):
        tree.link(at, "{outside}")
    naming = NameRules((), FallbackChain(tuple(Fallback), TOP), get_args(Encoding))
    server = create_server(mount_root(tree), naming=naming)
    names = hostile_names(tree.expand)[kind]
    if kind != "long names":
        names = [*names[::3], b"C:" + names[0] + b"\xff", b"\\BOOT\\" + names[-1] + b" "]
    _check_reads(tree, server, names)


@pytest.mark.parametrize(
    "fallbacks",
    [fallbacks for size in range(1, 5) for fallbacks in combinations(Fallback, size)],
    ids="-".join,
)
def test_no_pair_of_fallbacks_reads_a_file_outside(tree, fallbacks):
    tree.link("Link", "../outside")
    tree.link("\u4e2d", "..")
    names = [
        *(b"LINK/secret", b"C:\\LINK\\SECRET\xff", b"boot/link/secret", b"C:../outside/secret"),
        *(b"..\xff/outside/secret", b"..\xff", b"boot/../../outside/secret ", b"c:boot/../secret"),
        *("\u4e2d/secret".encode("gbk"), b"C:\\..\\SECRET", b"BOOT/../FILE\xff/../../secret"),
        *(b"\x81\\..\\secret", b"..\x81\\outside", b"INNER/../../OUTSIDE/SECRET", b"C:C:/../x"),
    ]  # fmt: skip
    for order in (fallbacks, fallbacks[::-1]):
        naming = NameRules((), FallbackChain(order, TOP), ("gbk", "latin-1"))
        _check_reads(tree, create_server(mount_root(tree), naming=naming), names)


RULES = {
    "the rest of the name as a group": ("^img-(.*)$", "{1}", {}),
    "two groups in reverse order": ("^img-([^!]*)!(.*)$", "{2}/{1}", {}),
    "a rule that removes characters": ("x", "", {"repeat": True}),
    "a rule that inserts parents": ("^img-", "../outside/", {}),
    "a rule that inserts a backslash": ("!", "\\\\", {"repeat": True}),
    "a rule that restarts the rules": ("^img-", "", {"restart": True}),
    "a rule that makes the name absolute": ("^img-", "/", {}),
    "a rule that inserts a drive": ("^img-", "C:", {}),
    "a group in upper case": ("^img-(.*)$", "{1:upper}", {}),
}


@pytest.mark.parametrize("title", RULES)
def test_no_rewrite_rule_reads_a_file_outside(tree, title):
    match, to, flags = RULES[title]
    compiled = pattern(match)
    rule = RewriteRule("rewrite[0]", compiled, parse_template(to, compiled), **flags)
    server = create_server(
        mount_root(tree), naming=NameRules((rule,), FallbackChain(tuple(Fallback), TOP))
    )
    names = [
        *(b"img-../outside/secret", b"img-/../../outside/secret", b"img-img-../outside/secret"),
        *(b"img-secret!../outside", b"img-outside/secret!..", b"img-..!..!outside!secret"),
        *(b".x./outside/secret", b"x.x.x/xoutsidex/xsecretx", b"..!outside!secret", b"img-"),
        *(b"img-secret", b"img-..", b"img-..\\outside\\secret", b"img-{outside}/secret"),
        tree.expand("img-{outside}/secret").encode(),
    ]
    _check_reads(tree, server, names)
    before = tree.outside_fingerprints()
    write_all(server, names)
    assert tree.outside_fingerprints() == before


SERIALS = [".*", "[^/]*", "\\.\\.", "[0-9A-Fa-f]{8}"]


@pytest.mark.parametrize("pattern_of_serials", SERIALS)
@pytest.mark.parametrize("below", ["{serial}", "x{serial}", "{serial}/{serial}", "inner/{serial}"])
def test_no_serial_number_reads_a_file_outside(tree, below, pattern_of_serials):
    """Also with expressions that match any name."""
    tree.link("10000000", "{outside}")
    tree.link("20000000", "..")
    tree.link("x30000000", "../outside")
    tree.link("inner/40000000", "../../outside")
    tree.link("50000000", "60000000")
    tree.link("60000000", "/")
    mount = mount_root(
        tree,
        roots=(parse_root(f"{tree.root}/{below}"),),
        serials=parse_serials(pattern_of_serials),
    )
    first_steps = [
        *(
            b"10000000",
            b"20000000",
            b"30000000",
            b"40000000",
            b"50000000",
            b"60000000",
            b"70000000",
        ),
        *(
            b"..",
            b".",
            b"...",
            b"..\\..",
            b"../..",
            b"",
            b"/",
            b"{serial}",
            b"x" * 256,
            b"\xff\xfe",
        ),
    ]
    names = [
        first + rest
        for first in first_steps
        for rest in (b"/secret", b"/../secret", b"/outside/secret")
    ]
    names.append(b"60000000" + tree.expand("{outside}/secret").encode())
    _check_reads(tree, create_server(mount), names)
    before = tree.outside_fingerprints()
    write_all(create_server(mount), names)
    assert tree.outside_fingerprints() == before


@pytest.mark.parametrize("variable", ["{ip}", "{ip_hex}", "{mac}", "{mac:upper}", "g/{ip}"])
@pytest.mark.parametrize("to", ["{outside}", "../outside", "..", "/", "../rootx", "{ip}"])
def test_no_client_directory_is_outside(tree, variable, to):
    mac = bytes.fromhex("525400abcdef")
    for directory in ("192.0.2.7", "C0000207", mac.hex("-"), mac.hex("-").upper(), "g/192.0.2.7"):
        tree.link(
            directory,
            "../" + to if directory[1] == "/" and to[0] == "." else to.replace("{ip}", directory),
        )
    mount = mount_root(tree, roots=(parse_root(f"{tree.root}/{variable}"),))
    names = [b"secret", b"outside/secret", b"../secret", b"../../outside/secret", b"file"]
    server = create_server(mount, neighbour=lambda peer: mac)
    _check_reads(tree, server, names, all_refused=True)
    before = tree.outside_fingerprints()
    write_all(server, names)
    assert tree.outside_fingerprints() == before


def test_the_source_of_a_template_is_not_served(tree):
    """Also not by a name that only some file systems treat as the same."""
    for name in ("menu.j2", "inner/menu.j2", "menu.j2.j2", "MENU.J2", "menu.j2.", "menu.j2 "):
        (tree.root / name).write_bytes(SECRET)
    names = [
        place + name
        for place in (b"", b"/", b"inner/", b"inner/../", b"C:\\", b"boot/")
        for name in (b"menu.j2", b"MENU.J2", b"Menu.j2", b"menu.j2.", b"menu.j2 ", b"menu.j2. .")
    ] + [
        b"menu.j2.j2",
        b"menu.J2.j2",
        b"menu.j2::$DATA",
        b"menu.j2:$DATA",
        b"menu.j2\xff",
        b"menu.j2/",
    ]
    naming = NameRules((), FallbackChain(tuple(Fallback), TOP), ("latin-1",))
    mount = mount_root(tree, read=ReadPolicy(templates=True))
    for server in (create_server(mount), create_server(mount, naming=naming)):
        _check_reads(tree, server, names)
