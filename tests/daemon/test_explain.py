"""`tftpd explain`: it says what the daemon answers, and leaves no trace."""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemons import CHECKOUT
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryServer
from tftpd.access.mounts import Mounts
from tftpd.access.profiles import Profiles
from tftpd.config.loader import load_with_lines
from tftpd.daemon.cli import main
from tftpd.daemon.explain.explanation import Configured, explain
from tftpd.daemon.explain.text import lines
from tftpd.protocol.packets import MAX_REQUEST_BYTES, ErrorPacket, Rrq, Wrq
from tftpd.server.admission import AdmissionLimits
from tftpd.server.config import ServerConfig

NOBODY = 65534

CONFIGURATION = """
listen:
  - {address: 127.0.0.1, port: 6969}
  - {address: "::", port: 69}
directories:
  - path: /
    root: root
    read: true
  - {path: /deny, root: root, symlinks: deny, read: true}
  - {path: /follow, root: root, symlinks: follow, read: true, write: true}
  - path: /in
    root: root/in
    read: {world_readable: true}
    write: {max_size: 100}
  - {path: /over, root: root/in, write: {create: false, overwrite: true, world_writable: true}}
  - {path: /lan, root: root, read: {clients: [192.0.2.0/24]}, write: {clients: [192.0.2.0/24]}}
  - {path: /loose, root: root, read: true, fallbacks: [drive, trailing, prefix, case]}
limits: {blksize: 1400, windowsize: 8}
rewrite:
  - {match: '^renamed/(.*)$', to: '{1}'}
  - {match: '^mine$', to: '{ip}/{ip_hex}'}
  - {match: '^forbidden', refuse: true}
  - {match: '^round', to: 'around', restart: true}
  - {match: '^around', to: 'round', restart: true}
profiles:
  - name: odd
    match: {clients: [198.51.100.0/24], options: [tsize, foo, timeout, blksize]}
    refuse_options: [timeout]
    empty_tsize: false
  - name: card
    match: {macs: ["52:54:00"], direction: read, files: ["*.img", seven]}
    blksize: 1000
    idle_timeout: 60
    broadcast: answer
"""

NAMES = """
seven kilo lines empty /seven //seven \\seven ./seven sub/file sub//file missing missing/file
seven/file sub sub/ . / .. ../seven sub/../seven sub/../../seven inside outside loop abroad/secret
inner/file fifo closed shut/file in/new in/own in/seven in/secret over/own over/new over/open
in/sub/new renamed/seven renamed/in/new renamed/../../x renamed/none mine forbidden round
c:/loose/SEVEN loose/Sub\\FILE\udcff LOOSE/boot/kilo loose/in/SECRET loose/INSIDE loose/Outside/x
loose/none/File loose/IN/../../x renamed/lan/seven renamed/in/secret
lan/seven lan/new deny/seven deny/inside follow/outside follow/abroad/secret
follow/abroad/new follow/in/new .tftpd-upload-x in/.tftpd-upload-x follow follow/.. other
"""
NAMES = [*NAMES.split(), "", "x" * 300, "x/" * 2100, "caf\udce9"]

OPTIONS = [
    (),
    ((b"blksize", b"1468"), (b"tsize", b"0"), (b"windowsize", b"16")),
    ((b"TSIZE", b"101"), (b"foo", b"1"), (b"timeout", b"3"), (b"blksize", b"7")),
    ((b"tsize", b"9223372036854775807"), (b"tsize", b"1"), (b"rollover", b"1")),
]


@pytest.fixture
def configured():
    """A configuration over a tree that everyone may reach."""
    with tempfile.TemporaryDirectory() as made:
        base = Path(made)
        base.chmod(0o755)
        _plant(base)
        (base / "tftpd.yaml").write_text(CONFIGURATION)
        settings, document = load_with_lines(base / "tftpd.yaml")
        yield Configured(settings, "tftpd.yaml", document)


def _plant(base):
    root = base / "root"
    for directory in (root / "sub", root / "in", root / "shut", base / "elsewhere"):
        directory.mkdir(parents=True)
    for name, content in {
        "seven": b"1234567",
        "kilo": bytes(range(256)) * 4,
        "lines": b"one\ntwo\r\n",
        "empty": b"",
        "sub/file": b"in a directory",
        "shut/file": b"behind a door",
        "closed": b"for root only",
        "in/own": b"no o+w",
        "in/secret": b"no o+r",
        "in/open": b"o+w",
        "../elsewhere/secret": b"outside",
    }.items():
        (root / name).write_bytes(content)
        (root / name).chmod(0o644)
    (root / "in/open").chmod(0o666)
    for name in ("closed", "in/secret"):
        (root / name).chmod(0o600)
    os.mkfifo(root / "fifo")
    for name, target in {
        "inside": "sub/file",
        "outside": "../elsewhere/secret",
        "abroad": "../elsewhere",
        "inner": "sub",
        "loop": "loop",
    }.items():
        (root / name).symlink_to(target)
    (root / "shut").chmod(0o700)


def _tree(base, uid):
    """What is there, and when it was touched last, as `uid` may read without a trace."""
    with _acting_as(os.getuid()):
        return {path: _stamp(path, uid) for path in sorted(base.rglob("*"))}


def _stamp(path, uid):
    status = path.lstat()
    # Who neither owns a file nor is root leaves a time of access; so does who
    # reads a link.
    spared = path.is_file() and not path.is_symlink() and uid == status.st_uid
    accessed = status.st_atime_ns if spared else None
    return status.st_ino, status.st_mode, status.st_size, status.st_ctime_ns, accessed


@contextmanager
def _acting_as(uid):
    before = os.geteuid()
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)


def _really(configured, request, host):
    """What a listener in memory answers at once."""
    settings = configured.settings
    server = MemoryServer(
        lambda report: ServerConfig(
            Mounts(settings.mounts(), settings.naming()),
            settings.limits.granted(),
            settings.retransmit.timing(),
            AdmissionLimits(sessions=100),
            report,
            profiles=Profiles(known.profile() for known in settings.known_profiles()),
        )
    )
    server.net.deliver(request.encode(), (host, 2070), (SERVER, WELL_KNOWN))
    answers = [datagram for _, _, datagram in server.net.sent]
    why = [report.detail for report in server.reports]
    server.waits(120)
    assert server.idle
    return answers, why


# Each name with all options, and those with each host in turn.
HOSTS = ("192.0.2.7", "198.51.100.7")
ASKED = [
    (name, options, HOSTS[(at + turn) % 2])
    for turn, name in enumerate(NAMES)
    for at, options in enumerate(OPTIONS)
]


@pytest.mark.parametrize("uid", [os.geteuid(), NOBODY])
@pytest.mark.parametrize(
    ("mode", "asked"),
    [(b"octet", ASKED), (b"NetASCII", ASKED), (b"mail", ASKED[::16])],
    ids=["octet", "netascii", "mail"],
)
@pytest.mark.parametrize("kind", [Rrq, Wrq])
def test_the_listener_answers_what_was_explained(configured, kind, mode, asked, uid):
    if os.geteuid() not in (0, uid):
        pytest.skip("only root can be nobody")
    base = Path(configured.settings.directories[0].root[0]).parent
    for name, options, host in asked:
        request = kind(os.fsencode(name), mode, options)
        with _acting_as(uid):
            before = _tree(base, uid)
            told = explain(configured, request, host)
            assert _tree(base, uid) == before, request
            answers, why = _really(configured, request, host)
        assert [told.answer] == answers, (request, host)
        assert told.granted is not told.answer.startswith(b"\0\5")
        if not told.granted and not told.why.startswith("the directory is not writable"):
            assert [told.why] == why, (request, host)


def test_a_link_is_told_with_where_it_leads(configured):
    told = explain(configured, Rrq(b"inside", b"octet"), "192.0.2.7")
    base = Path(configured.settings.directories[0].root[0])
    said = list(lines(told))
    limits = said.pop(-4)
    assert limits.startswith("limits     blksize 1400, windowsize 8, ")
    assert limits.endswith(" (tftpd.yaml:18)")
    assert said[2:] == [
        "listener   127.0.0.1 port 6969, broadcast ignore, mode per-session, "
        "session_ports none (tftpd.yaml:3)",
        "profile    no-options (shipped)",
        "  known by options []",
        "  changes  nothing",
        f"directory  / is {base}, symlinks inside (tftpd.yaml:6)",
        "policy     read, admits the client by 0.0.0.0/0, world_readable false, "
        "templates false (tftpd.yaml:8)",
        f"  root     {base}",
        "  step     inside: symbolic link to sub/file",
        "  step     sub: directory",
        f"  step     file: regular file, 14 bytes, mode 0644, owner {os.getuid()}:{os.getgid()}",
        f"file       {base}/sub/file",
        "answer     DATA 1, 14 octets",
        "octets     00030001 696e2061 20646972 6563746f 7279",
        "granted",
    ]


@pytest.mark.parametrize(
    ("name", "last", "why"),
    [
        ("abroad/secret", "abroad: symbolic link to ../elsewhere", None),
        ("missing/file", "missing: No such file or directory", "No such file or directory"),
        ("deny/inside", "inside: the path contains a symbolic link", None),
        ("in/none", "none: No such file or directory", "No such file or directory"),
    ],
)
def test_the_step_that_leads_nowhere_is_told(configured, name, last, why):
    told = explain(configured, Rrq(name.encode(), b"octet"), "192.0.2.7")
    steps = [line.split(None, 1)[1] for line in lines(told) if line.startswith("  step")]
    assert last in steps
    assert not told.granted
    assert why is None or told.why == why


def test_each_rule_that_rewrites_the_name_is_told(configured):
    told = explain(configured, Rrq(b"renamed/seven", b"octet"), "192.0.2.7")
    said = list(lines(told))
    assert "rewrite    seven, by rewrite[0] (tftpd.yaml:20)" in said
    assert "  step     seven: " in "\n".join(said)
    assert told.granted
    assert told.facts()["name"] == "seven"
    assert told.facts()["rules"] == [
        {"rule": "rewrite[0]", "at": "tftpd.yaml:20", "name": "seven", "does": ""}
    ]
    told = explain(configured, Rrq(b"forbidden", b"octet"), "192.0.2.7")
    assert "rewrite    forbidden, by rewrite[2], refuse (tftpd.yaml:22)" in list(lines(told))
    assert (told.granted, told.why) == (False, "rewrite[2] refuses the name")


def test_each_name_that_was_tried_is_told(configured):
    told = explain(configured, Rrq(b"C:/Loose/seven\xff", b"octet"), "192.0.2.7")
    said = [line for line in lines(told) if line.startswith("name")]
    assert said == [
        "name       C:/Loose/seven\\xff: No such file or directory",
        "name       /Loose/seven\\xff, by drive, case: No such file or directory",
        "name       loose/seven, by drive, trailing, case: is served",
    ]
    assert told.granted
    assert told.ways[-1].trail.path.endswith(b"/root/seven")
    names = told.facts()["tried"]
    assert names[-1] == {"name": "loose/seven", "by": ("drive", "trailing", "case"), "why": ""}


def test_what_followed_links_lead_to_is_told(configured):
    told = explain(configured, Rrq(b"follow/abroad/secret", b"octet"), "192.0.2.7")
    root = Path(configured.settings.directories[0].root[0])
    assert told.ways[-1].trail.path == os.fsencode(root.parent / "elsewhere" / "secret")


def test_each_option_is_told_with_what_becomes_of_it(configured):
    options = ((b"tsize", b"x"), (b"blksize", b"9000"), (b"blksize", b"8"), (b"windowsize", b"4"))
    told = explain(configured, Rrq(b"seven", b"octet", options), "192.0.2.7")
    assert [(option["name"], option["granted"]) for option in told.options] == [
        ("tsize", None),
        ("blksize", "1400"),
        ("blksize", None),
        ("windowsize", "4"),
    ]


@pytest.mark.parametrize(
    ("client", "to", "at", "why"),
    [
        ("192.0.2.7", None, "tftpd.yaml:3", ""),
        ("2001:db8::7", None, "tftpd.yaml:4", ""),
        ("192.0.2.7", "127.0.0.1", "tftpd.yaml:3", ""),
        ("2001:db8::7", "2001:db8::1", "tftpd.yaml:4", ""),
        ("192.0.2.7", "192.0.2.1", None, "no listener takes requests to 192.0.2.1"),
        ("fe80::7%lo", "ff02::1", "tftpd.yaml:4", "requests to everyone are ignored here "
         "(broadcast: ignore)"),
    ],
)  # fmt: skip
def test_the_listener_is_the_one_of_the_address_that_is_asked(configured, client, to, at, why):
    told = explain(configured, Rrq(b"seven", b"octet"), client, to)
    assert (told.listener and told.listener["at"], told.why) == (at, why)
    assert told.granted is not bool(why)
    assert (told.answer is None) is bool(why)


@pytest.mark.parametrize(
    ("listen", "client", "why"),
    [
        ("127.0.0.1", "2001:db8::7", "no listener takes requests over IPv6"),
        ("::1", "192.0.2.7", "no listener takes requests over IPv4"),
        ("::", "fe80::7%nosuch", ""),
    ],
)
def test_who_can_reach_no_listener_is_told_so(tmp_path, capsys, listen, client, why):
    config = tmp_path / "tftpd.yaml"
    config.write_text(
        f'listen: [{{address: "{listen}"}}]\ndirectories: [{{root: {tmp_path}, read: true}}]\n'
    )
    (tmp_path / "file").write_bytes(b"x")
    asked = ["explain", "-c", str(config), "--client", client, "read", "file"]
    assert main(asked) == int(bool(why))
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == (f"refused    {why}" if why else "granted")
    assert ("listener   none" in said) is bool(why)
    assert ("answer     none" in said) is bool(why)


def test_a_name_below_no_directory_is_told_so(tmp_path, capsys):
    config = tmp_path / "tftpd.yaml"
    config.write_text(f"directories: [{{path: /boot, root: {tmp_path}, read: true}}]\n")
    assert main(["explain", "-c", str(config), "--client", "192.0.2.7", "read", "file"]) == 1
    assert "directory  none" in capsys.readouterr().out.splitlines()


def test_a_request_longer_than_any_is_answered_as_by_the_listener(configured):
    request = Rrq(b"x" * MAX_REQUEST_BYTES, b"octet")
    told = explain(configured, request, "192.0.2.7")
    answers, _ = _really(configured, request, "192.0.2.7")
    assert [told.answer] == answers
    assert told.why == f"{MAX_REQUEST_BYTES + 9} octets are more than a request has"


@pytest.mark.parametrize(("size", "granted"), [(3, True), (4, False)])
def test_a_quota_is_told_as_it_is_now(tmp_path, size, granted):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "there").write_bytes(b"x" * 7)
    (tmp_path / "tftpd.yaml").write_text(
        f"directories: [{{root: {tmp_path}/in, write: {{quota: 10}}}}]\n"
    )
    settings, document = load_with_lines(tmp_path / "tftpd.yaml")
    asked = Wrq(b"new", b"octet", ((b"tsize", b"%d" % size),))
    told = explain(Configured(settings, "tftpd.yaml", document), asked, "192.0.2.7")
    assert (told.granted, told.why) == (granted, "" if granted else _QUOTA)
    assert os.listdir(tmp_path / "in") == ["there"]


_QUOTA = "more than the quota of 10 bytes"

CARD = bytes.fromhex("525400123456")


def test_the_profile_is_told_and_what_it_changes(configured):
    asked = Rrq(b"seven", b"octet", ((b"blksize", b"1400"),))
    told = explain(configured, asked, "192.0.2.7", mac=CARD)
    assert (told.mac, told.terms.blksize) == ("52:54:00:12:34:56", 1000)
    assert told.profile == {
        "name": "card",
        "at": "tftpd.yaml:30",
        "match": {"macs": ["52:54:00"], "direction": "read", "files": ["*.img", "seven"]},
        "source": None,
        "changes": {"blksize": 1000, "patience": 60.0, "broadcast": "answer"},
    }
    said = list(lines(told))
    assert said[0].endswith("from 192.0.2.7, 52:54:00:12:34:56")
    assert said[3:6] == [
        "profile    card (tftpd.yaml:30)",
        "  known by macs [52:54:00], direction read, files [*.img, seven]",
        "  changes  blksize 1000, patience 60.0, broadcast answer",
    ]


def test_who_has_no_profile_is_told_so(configured):
    told = explain(configured, Rrq(b"seven", b"octet", ((b"foo", b"1"),)), "192.0.2.7")
    assert (told.profile, told.mac) == (None, None)
    assert list(lines(told))[3] == "profile    none"


def test_what_curl_needs_is_shipped(configured):
    options = ((b"tsize", b"0"), (b"blksize", b"512"), (b"timeout", b"6"))
    told = explain(configured, Rrq(b"empty", b"octet", options), "192.0.2.7")
    assert (told.profile["name"], told.profile["at"]) == ("curl", "shipped")
    assert told.profile["changes"] == {"empty_tsize": False}
    assert "tsize" not in told.terms.options


def test_a_profile_may_answer_requests_to_everyone(configured):
    for name, granted in ((b"seven", True), (b"kilo", False)):
        told = explain(configured, Rrq(name, b"octet"), "fe80::7%lo", "ff02::1", CARD)
        assert told.granted is granted


def test_the_command_tells_in_words_and_by_its_status(configured, capsys):
    base = Path(configured.settings.directories[0].root[0]).parent
    asked = ["explain", "-c", str(base / "tftpd.yaml"), "--client", "192.0.2.7"]
    assert main([*asked, "read", "seven", "--option", "tsize=0"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "request    RRQ seven octet tsize=0, from 192.0.2.7"
    assert said[-3:] == [
        "answer     OACK tsize=7",
        "octets     00067473 697a6500 3700",
        "granted",
    ]
    assert main([*asked, "write", "seven"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        "refused    the directory has no policy for this"
    )


@pytest.mark.parametrize("mac", ["52:54:00:12:34:56", "52-54-00-12-34-56"])
def test_the_command_is_told_a_mac_address(configured, capsys, mac):
    config = str(Path(configured.settings.directories[0].root[0]).parent / "tftpd.yaml")
    asked = ["explain", "-c", config, "--client", "192.0.2.7", "--mac", mac, "read", "seven"]
    assert main(asked) == 0
    assert "profile    card " in capsys.readouterr().out


def test_only_root_decides_with_the_rights_of_another(configured, capsys, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    config = str(Path(configured.settings.directories[0].root[0]).parent / "tftpd.yaml")
    for call in ("setgroups", "initgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, call, refuse)
    asked = ["explain", "-c", config, "--client", "192.0.2.7", "--user", str(NOBODY)]
    assert main([*asked, "read", "seven"]) == 2
    assert capsys.readouterr() == ("", "tftpd explain: --user needs root\n")


def test_the_command_tells_it_as_json(configured, capsys):
    base = Path(configured.settings.directories[0].root[0]).parent
    config = str(base / "tftpd.yaml")
    asked = ["explain", "-c", config, "--client", "198.51.100.7", "--json", "read", "lan/seven"]
    assert main(asked) == 1
    told = json.loads(capsys.readouterr().out)
    refused = ErrorPacket(2, "Access violation").encode().hex()
    assert (told["granted"], told["octets"], told["policy"]["admitted_by"]) == (
        False,
        refused,
        None,
    )
    assert told["steps"][0]["name"] == "seven"


@pytest.mark.parametrize(
    "wrong",
    [
        ["--client", "nowhere", "read", "x"],
        ["--client", "192.0.2.7", "read", "x", "--option", "blksize"],
        ["--client", "192.0.2.7", "read", "x", "--user", "no such user"],
        ["--client", "192.0.2.7", "read", "x", "--mac", "52:54:00"],
        ["--client", "192.0.2.7", "fetch", "x"],
        ["--client", "192.0.2.7", "read"],
    ],
)
def test_what_is_no_question_exits_with_2(wrong):
    with pytest.raises(SystemExit) as ended:
        main(["explain", "-c", "any.yaml", *wrong])
    assert ended.value.code == 2


def test_a_bad_configuration_exits_with_78(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("listen: 3\n")
    config = str(tmp_path / "bad.yaml")
    assert main(["explain", "-c", config, "--client", "192.0.2.7", "read", "x"]) == 78
    assert 'missing key "directories"' in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be nobody")
def test_rights_are_those_of_the_user_that_the_daemon_runs_as(configured):
    base = Path(configured.settings.directories[0].root[0]).parent
    for user, status in (("root", 0), (str(NOBODY), 1)):
        command = [sys.executable, "-m", "tftpd.daemon.cli", "explain", "--user", user]
        command += ["-c", str(base / "tftpd.yaml"), "--client", "192.0.2.7", "read", "closed"]
        environment = dict(os.environ, PYTHONPATH=str(CHECKOUT))
        ran = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert (ran.returncode, ran.stderr) == (status, b"")


def test_a_root_that_has_gone_is_told(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "tftpd.yaml").write_text(f"directories: [{{root: {root}, read: true}}]\n")
    settings, document = load_with_lines(tmp_path / "tftpd.yaml")
    root.rmdir()
    told = explain(Configured(settings, "tftpd.yaml", document), Rrq(b"x", b"octet"), "192.0.2.7")
    assert f"  step     {root}: No such file or directory" in list(lines(told))
