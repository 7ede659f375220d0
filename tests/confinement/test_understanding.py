"""Confinement of names that the server changes: fallbacks, rules, client directories."""

from itertools import combinations
from typing import get_args

import pytest

from tests.confinement.asking import contents, mount, reads, serving, writes
from tests.confinement.names import KINDS, out
from tests.confinement.world import INSIDE, SECRET
from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.mounts import parse_root, parse_serials
from tftpd.access.policy import ReadPolicy
from tftpd.access.regex import pattern
from tftpd.access.rewrite import NameRules, RewriteRule, parse_template
from tftpd.config.names import Encoding

TOP = ((b"boot",), (b"tftpboot",), (b"inner",))


def _served(world, server, names, refused=False):
    before = world.everything()
    for name, said in zip(names, reads(server, names), strict=True):
        assert SECRET not in b"".join(said), name
        content = contents(said)
        assert content is None or (content in INSIDE.values() and not refused), name
    assert world.everything() == before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("each octet")])
def test_no_fallback_reads_a_file_outside(confined, kind):
    """Links lead outside under the names that fallbacks derive."""
    for at in ("boot", "C", "LINK", "inner/boot"):
        confined.link(at, "{outside}")
    chain = FallbackChain(tuple(Fallback), get_args(Encoding), TOP)
    server = serving(mount(confined), naming=NameRules(fallbacks=chain))
    names = out(confined.filled)[kind]
    if kind != "lengths":
        names = [*names[::3], b"C:" + names[0] + b"\xff", b"\\BOOT\\" + names[-1] + b" "]
    _served(confined, server, names)


@pytest.mark.parametrize(
    "fallbacks",
    [fallbacks for size in range(1, 6) for fallbacks in combinations(Fallback, size)],
    ids="-".join,
)
def test_no_pair_of_fallbacks_reads_a_file_outside(confined, fallbacks):
    confined.link("Link", "../outside")
    confined.link("\u4e2d", "..")
    names = [
        *(b"LINK/secret", b"C:\\LINK\\SECRET\xff", b"boot/link/secret", b"C:../outside/secret"),
        *(b"..\xff/outside/secret", b"..\xff", b"boot/../../outside/secret ", b"c:boot/../secret"),
        *("\u4e2d/secret".encode("gbk"), b"C:\\..\\SECRET", b"BOOT/../FILE\xff/../../secret"),
        *(b"\x81\\..\\secret", b"..\x81\\outside", b"INNER/../../OUTSIDE/SECRET", b"C:C:/../x"),
    ]  # fmt: skip
    for order in (fallbacks, fallbacks[::-1]):
        chain = FallbackChain(order, ("utf-8", "gbk", "latin-1"), TOP)
        _served(confined, serving(mount(confined), naming=NameRules(fallbacks=chain)), names)


RULES = {
    "a group that is the rest": ("^img-(.*)$", "{1}", {}),
    "two groups about": ("^img-([^!]*)!(.*)$", "{2}/{1}", {}),
    "a rule that takes something away": ("x", "", {"repeat": True}),
    "a rule that makes parents": ("^img-", "../outside/", {}),
    "a rule that makes a backslash": ("!", "\\\\", {"repeat": True}),
    "a rule that begins anew": ("^img-", "", {"restart": True}),
    "a rule that makes an absolute name": ("^img-", "/", {}),
    "a rule that makes a drive": ("^img-", "C:", {}),
    "capitals": ("^img-(.*)$", "{1:upper}", {}),
}


@pytest.mark.parametrize("what", RULES)
def test_no_rewrite_rule_reads_a_file_outside(confined, what):
    match, to, how = RULES[what]
    found = pattern(match)
    rule = RewriteRule("rewrite[0]", found, parse_template(to, found), **how)
    server = serving(
        mount(confined), naming=NameRules((rule,), FallbackChain(tuple(Fallback), ("utf-8",), TOP))
    )
    names = [
        *(b"img-../outside/secret", b"img-/../../outside/secret", b"img-img-../outside/secret"),
        *(b"img-secret!../outside", b"img-outside/secret!..", b"img-..!..!outside!secret"),
        *(b".x./outside/secret", b"x.x.x/xoutsidex/xsecretx", b"..!outside!secret", b"img-"),
        *(b"img-secret", b"img-..", b"img-..\\outside\\secret", b"img-{outside}/secret"),
        confined.filled("img-{outside}/secret").encode(),
    ]
    _served(confined, server, names)
    before = confined.everything()
    writes(server, names)
    assert confined.everything() == before


SERIALS = [".*", "[^/]*", "\\.\\.", "[0-9A-Fa-f]{8}"]


@pytest.mark.parametrize("known", SERIALS)
@pytest.mark.parametrize("below", ["{serial}", "x{serial}", "{serial}/{serial}", "inner/{serial}"])
def test_no_serial_number_reads_a_file_outside(confined, below, known):
    """Whatever the expression is that tells which those are."""
    confined.link("10000000", "{outside}")
    confined.link("20000000", "..")
    confined.link("x30000000", "../outside")
    confined.link("inner/40000000", "../../outside")
    confined.link("50000000", "60000000")
    confined.link("60000000", "/")
    ours = mount(
        confined, roots=(parse_root(f"{confined.root}/{below}"),), serials=parse_serials(known)
    )
    firsts = [
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
        first + rest for first in firsts for rest in (b"/secret", b"/../secret", b"/outside/secret")
    ]
    names.append(b"60000000" + confined.filled("{outside}/secret").encode())
    _served(confined, serving(ours), names)
    before = confined.everything()
    writes(serving(ours), names)
    assert confined.everything() == before


@pytest.mark.parametrize("fact", ["{ip}", "{ip_hex}", "{mac}", "{mac:upper}", "g/{ip}"])
@pytest.mark.parametrize("to", ["{outside}", "../outside", "..", "/", "../rootx", "{ip}"])
def test_no_client_directory_is_outside(confined, fact, to):
    mac = bytes.fromhex("525400abcdef")
    for own in ("192.0.2.7", "C0000207", mac.hex("-"), mac.hex("-").upper(), "g/192.0.2.7"):
        confined.link(
            own, "../" + to if own[1] == "/" and to[0] == "." else to.replace("{ip}", own)
        )
    ours = mount(confined, roots=(parse_root(f"{confined.root}/{fact}"),))
    names = [b"secret", b"outside/secret", b"../secret", b"../../outside/secret", b"file"]
    server = serving(ours, neighbour=lambda peer: mac)
    _served(confined, server, names, refused=True)
    before = confined.everything()
    writes(server, names)
    assert confined.everything() == before


def test_the_source_of_a_template_is_not_served(confined):
    """Nor by a name that only some file systems take for its."""
    for name in ("menu.j2", "inner/menu.j2", "menu.j2.j2", "MENU.J2", "menu.j2.", "menu.j2 "):
        (confined.root / name).write_bytes(SECRET)
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
    naming = NameRules(fallbacks=FallbackChain(tuple(Fallback), ("utf-8", "latin-1"), TOP))
    ours = mount(confined, read=ReadPolicy(templates=True))
    for server in (serving(ours), serving(ours, naming=naming)):
        _served(confined, server, names)
