"""`tftpd explain` predicts the daemon's answer and changes nothing."""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.daemons import CHECKOUT
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryServer
from tftpd.access.mounts import Mounts
from tftpd.access.profiles import Profiles
from tftpd.config.loader import load_settings_and_document
from tftpd.daemon.cli import main
from tftpd.daemon.explain.explanation import LoadedConfig, explain
from tftpd.daemon.explain.text import format_lines
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
def config():
    """Return a configuration for a tree that all users can access."""
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        base.chmod(0o755)
        _create_tree(base)
        (base / "tftpd.yaml").write_text(CONFIGURATION)
        settings, document = load_settings_and_document(base / "tftpd.yaml")
        yield LoadedConfig(settings, "tftpd.yaml", document)


def _create_tree(base):
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
    """Return all paths with their state, and access times that reading as `uid` must not change."""
    with _acting_as(os.getuid()):
        return {path: _stamp(path, uid) for path in sorted(base.rglob("*"))}


def _stamp(path, uid):
    status = path.lstat()
    # Only the owner and root can read a file without changing its access time (O_NOATIME).
    # Reading a link changes its access time.
    can_hide = path.is_file() and not path.is_symlink() and uid == status.st_uid
    accessed = status.st_atime_ns if can_hide else None
    return status.st_ino, status.st_mode, status.st_size, status.st_ctime_ns, accessed


@contextmanager
def _acting_as(uid):
    before = os.geteuid()
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def make_config(config):
    """Return a function that builds the server configuration for an observer of results."""
    settings = config.settings
    return partial(
        ServerConfig,
        Mounts(settings.build_mounts(), settings.build_name_rules()),
        settings.limits.option_limits(),
        settings.retransmit.build_policy(),
        AdmissionLimits(sessions=100),
        profiles=Profiles(known.build_profile() for known in settings.active_profiles()),
    )


def _answers_of_server(make_config, request, host):
    """Return the immediate answers of a server in memory, and the logged reasons."""
    server = MemoryServer(lambda observer: make_config(report=observer))
    server.net.deliver(request.encode(), (host, 2070), (SERVER, WELL_KNOWN))
    answers = [datagram for _, _, datagram in server.net.sent]
    reasons = [result.detail for result in server.reports]
    server.advance(120)
    assert server.idle
    return answers, reasons


# Each name with all options; the hosts alternate.
HOSTS = ("192.0.2.7", "198.51.100.7")
CASES = [
    (name, options, HOSTS[(at + turn) % 2])
    for turn, name in enumerate(NAMES)
    for at, options in enumerate(OPTIONS)
]


def _decision(explanation):
    """Return the answer as bytes, whether it grants the request, and the reason if not."""
    answer = bytes.fromhex(explanation["answer_hex"])
    return answer, explanation["granted"], explanation["reason"]


@pytest.mark.check
@pytest.mark.parametrize("uid", [os.geteuid(), NOBODY])
@pytest.mark.parametrize(
    ("mode", "cases"),
    # Every third case has each name at least once, with varying options.
    [(b"octet", CASES), (b"NetASCII", CASES[::3]), (b"mail", CASES[::16])],
    ids=["octet", "netascii", "mail"],
)
@pytest.mark.parametrize("kind", [Rrq, Wrq])
def test_the_explanation_equals_the_answer_of_the_server(
    config, make_config, kind, mode, cases, uid
):
    if os.geteuid() not in (0, uid):
        pytest.skip("only root can switch to nobody")
    base = Path(config.settings.directories[0].root[0]).parent
    for name, options, host in cases if uid == os.geteuid() else cases[::3]:
        request = kind(os.fsencode(name), mode, options)
        with _acting_as(uid):
            before = _tree(base, uid)
            explanation = explain(config, request, host)
            assert _tree(base, uid) == before, request
            answers, reasons = _answers_of_server(make_config, request, host)
        answer, granted, reason = _decision(explanation)
        assert [answer] == answers, (request, host)
        assert granted is not answer.startswith(b"\0\5")
        if not granted and not reason.startswith("the directory is not writable"):
            assert [reason] == reasons, (request, host)


def test_a_symbolic_link_is_shown_with_its_target(config):
    explanation = explain(config, Rrq(b"inside", b"octet"), "192.0.2.7")
    base = Path(config.settings.directories[0].root[0])
    shown = list(format_lines(explanation))
    limits = shown.pop(-4)
    assert limits.startswith("limits     blksize 1400, windowsize 8, ")
    assert limits.endswith(" (tftpd.yaml:18)")
    assert shown[2:] == [
        "listener   127.0.0.1 port 6969, broadcast ignore, mode per-session, "
        "session_ports none (tftpd.yaml:3)",
        "profile    no-options (shipped)",
        "  matches  options []",
        "  changes  nothing",
        f"directory  / is {base}, symlinks inside (tftpd.yaml:6)",
        "policy     read, admits the client by 0.0.0.0/0, world_readable false, "
        "templates false, sha256 false (tftpd.yaml:8)",
        f"  root     {base}",
        "  step     inside: symbolic link to sub/file",
        "  step     sub: directory",
        f"  step     file: regular file, 14 bytes, mode 0644, owner {os.getuid()}:{os.getgid()}",
        f"file       {base}/sub/file",
        "answer     DATA 1, 14 bytes",
        "bytes      00030001 696e2061 20646972 6563746f 7279",
        "granted",
    ]


@pytest.mark.parametrize(
    ("name", "step", "reason"),
    [
        ("abroad/secret", "abroad: symbolic link to ../elsewhere", None),
        ("missing/file", "missing: No such file or directory", "No such file or directory: "),
        ("deny/inside", "inside: the path contains a symbolic link", None),
        ("in/none", "none: No such file or directory", "No such file or directory: "),
    ],
)
def test_the_step_that_fails_is_shown(config, name, step, reason):
    explanation = explain(config, Rrq(name.encode(), b"octet"), "192.0.2.7")
    steps = [
        line.split(None, 1)[1] for line in format_lines(explanation) if line.startswith("  step")
    ]
    assert step in steps
    assert not explanation["granted"]
    if reason is not None:
        root = config.settings.directories[0].root[0]
        assert explanation["reason"] == f"{reason}{root}/{name}"


def test_each_applied_rewrite_rule_is_shown(config):
    explanation = explain(config, Rrq(b"renamed/seven", b"octet"), "192.0.2.7")
    shown = list(format_lines(explanation))
    assert "rewrite    seven, by rewrite[0] (tftpd.yaml:20)" in shown
    assert "  step     seven: " in "\n".join(shown)
    assert explanation["granted"]
    assert explanation["name"] == "seven"
    assert explanation["rules"] == [
        {"rule": "rewrite[0]", "location": "tftpd.yaml:20", "name": "seven", "effect": ""}
    ]
    explanation = explain(config, Rrq(b"forbidden", b"octet"), "192.0.2.7")
    assert "rewrite    forbidden, by rewrite[2], refuse (tftpd.yaml:22)" in list(
        format_lines(explanation)
    )
    assert (explanation["granted"], explanation["reason"]) == (False, "rewrite[2] refuses the name")


def test_each_name_that_was_tried_is_shown(config):
    explanation = explain(config, Rrq(b"C:/Loose/seven\xff", b"octet"), "192.0.2.7")
    shown = [line for line in format_lines(explanation) if line.startswith("name")]
    root = config.settings.directories[0].root[0]
    assert shown == [
        f"name       C:/Loose/seven\\xff: No such file or directory: {root}/C:/Loose/seven\\xff",
        "name       /Loose/seven\\xff, by drive, case: No such file or directory",
        "name       loose/seven, by drive, trailing, case: is served",
    ]
    assert explanation["granted"]
    assert explanation["file"].endswith("/root/seven")
    tried = explanation["tried"]
    steps = ("drive", "trailing", "case")
    assert tried[-1] == {"name": "loose/seven", "steps": steps, "reason": ""}


def test_the_file_that_was_read_before_is_an_option(tmp_path, capsys):
    (tmp_path / "t.yaml").write_text(
        "directories: [{root: root, read: true}]\nnames: {fallbacks: [sibling, default_loader]}\n"
    )
    (tmp_path / "root/X").mkdir(parents=True)
    (tmp_path / "root/X/grubx64.efi").write_bytes(b"x")
    command = ["explain", "-c", str(tmp_path / "t.yaml"), "--client", "192.0.2.7"]
    assert main([*command, "grubx64.efi"]) == 1
    capsys.readouterr()
    assert main([*command, "--after", "X/BOOTX64.EFI", "grubx64.efi"]) == 0
    assert "name       X/grubx64.efi, by sibling: is served\n" in capsys.readouterr().out
    assert main([*command, "X/\udcffOnboard"]) == 0
    assert "X/grubx64.efi, by default_loader: is served\n" in capsys.readouterr().out


@pytest.mark.parametrize("is_enabled", [True, False])
def test_a_mac_address_in_the_name_selects_variables(tmp_path, capsys, is_enabled):
    (tmp_path / "t.yaml").write_text(
        f"""
directories: [{{root: root, read: {{templates: true}}, mac_from_name: {is_enabled}}}]
variables: [{{macs: ["52:54:00:12:34:56"], set: {{hostname: web1}}}}]
"""
    )
    (tmp_path / "root").mkdir()
    (tmp_path / "root/MAC-525400123456.ipxe.j2").write_text("{{ mac }} {{ variables.hostname }}")
    command = ["explain", "-c", str(tmp_path / "t.yaml"), "--client", "192.0.2.7"]
    # An undefined variable is an error.
    assert main([*command, "--json", "MAC-525400123456.ipxe"]) == (0 if is_enabled else 1)
    assert json.loads(capsys.readouterr().out)["granted"] is is_enabled


def test_the_target_of_followed_links_is_shown(config):
    explanation = explain(config, Rrq(b"follow/abroad/secret", b"octet"), "192.0.2.7")
    root = Path(config.settings.directories[0].root[0])
    assert explanation["file"] == str(root.parent / "elsewhere" / "secret")


@pytest.mark.parametrize("asked", ["utf-8", "gb18030"])
def test_the_spelling_on_disk_is_shown(tmp_path, asked, capsys):
    (tmp_path / "t.yaml").write_text(
        "directories: [{root: root, read: true, write: {overwrite: true}}]\n"
        "names: {encodings: [utf-8, gb18030]}\n"
    )
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / os.fsdecode("王.cfg".encode("gb18030"))).write_bytes(b"x")
    for direction in ("read", "write"):
        command = ["explain", "-c", str(tmp_path / "t.yaml"), "--client", "192.0.2.7", direction]
        assert main([*command, os.fsdecode("王.cfg".encode(asked))]) == 0
        out = capsys.readouterr().out
        assert "  step     王.cfg: the name on disk is in another encoding\n" in out
        assert f"file       {tmp_path}/root/\\xcd\\xf5.cfg\n" in out
    (tmp_path / "root" / "王.cfg").write_bytes(b"y")
    assert main([*command, os.fsdecode("王.cfg".encode(asked))]) == 1
    assert (
        "refused    the directory has one name in several encodings: "
        '"王.cfg", "\\xcd\\xf5.cfg"' in capsys.readouterr().out
    )


def test_each_option_is_shown_with_its_granted_value(config):
    options = ((b"tsize", b"x"), (b"blksize", b"9000"), (b"blksize", b"8"), (b"windowsize", b"4"))
    explanation = explain(config, Rrq(b"seven", b"octet", options), "192.0.2.7")
    assert [(option["name"], option["granted"]) for option in explanation["options"]] == [
        ("tsize", None),
        ("blksize", "1400"),
        ("blksize", None),
        ("windowsize", "4"),
    ]


@pytest.mark.parametrize(
    ("client", "server", "location", "reason"),
    [
        ("192.0.2.7", None, "tftpd.yaml:3", ""),
        ("2001:db8::7", None, "tftpd.yaml:4", ""),
        ("192.0.2.7", "127.0.0.1", "tftpd.yaml:3", ""),
        ("2001:db8::7", "2001:db8::1", "tftpd.yaml:4", ""),
        ("192.0.2.7", "192.0.2.1", "tftpd.yaml:4", ""),  # `::` is all IPv4 addresses, too
        ("fe80::7%lo", "ff02::1", "tftpd.yaml:4", "broadcast requests are ignored here "
         "(broadcast: ignore)"),
    ],
)  # fmt: skip
def test_the_listener_of_the_destination_address_is_shown(config, client, server, location, reason):
    explanation = explain(config, Rrq(b"seven", b"octet"), client, server)
    found = explanation["listener"] and explanation["listener"]["location"]
    assert (found, explanation["reason"]) == (location, reason)
    assert explanation["granted"] is not bool(reason)
    assert (explanation["answer"] is None) is bool(reason)


@pytest.mark.parametrize(
    ("listen", "to", "client", "reason"),
    [
        ("127.0.0.1", [], "2001:db8::7", "no listener receives requests over IPv6"),
        ("::1", [], "192.0.2.7", "no listener receives requests over IPv4"),
        (
            "127.0.0.1",
            ["--to", "192.0.2.1"],
            "192.0.2.7",
            "no listener receives requests to 192.0.2.1",
        ),
        ("::", [], "fe80::7%nosuch", ""),
        ("::", [], "192.0.2.7", ""),
    ],
)
def test_a_client_without_listener_gets_no_answer(tmp_path, capsys, listen, to, client, reason):
    config = tmp_path / "tftpd.yaml"
    config.write_text(
        f'listen: [{{address: "{listen}"}}]\ndirectories: [{{root: {tmp_path}, read: true}}]\n'
    )
    (tmp_path / "file").write_bytes(b"x")
    command = ["explain", "-c", str(config), "--client", client, *to, "read", "file"]
    assert main(command) == int(bool(reason))
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == (f"refused    {reason}" if reason else "granted")
    assert ("listener   none" in shown) is bool(reason)
    assert ("answer     none" in shown) is bool(reason)


def test_a_name_outside_all_directories_has_no_directory(tmp_path, capsys):
    config = tmp_path / "tftpd.yaml"
    config.write_text(f"directories: [{{path: /boot, root: {tmp_path}, read: true}}]\n")
    assert main(["explain", "-c", str(config), "--client", "192.0.2.7", "read", "file"]) == 1
    assert "directory  none" in capsys.readouterr().out.splitlines()


def test_an_oversized_request_is_explained_like_the_server_answers(config, make_config):
    request = Rrq(b"x" * MAX_REQUEST_BYTES, b"octet")
    explanation = explain(config, request, "192.0.2.7")
    answers, _ = _answers_of_server(make_config, request, "192.0.2.7")
    assert [bytes.fromhex(explanation["answer_hex"])] == answers
    assert explanation["reason"] == (
        f"request of {MAX_REQUEST_BYTES + 9} bytes is longer than {MAX_REQUEST_BYTES} bytes"
    )


@pytest.mark.parametrize(("size", "granted"), [(3, True), (4, False)])
def test_the_current_usage_of_a_quota_is_applied(tmp_path, size, granted):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "there").write_bytes(b"x" * 7)
    (tmp_path / "tftpd.yaml").write_text(
        f"directories: [{{root: {tmp_path}/in, write: {{quota: 10}}}}]\n"
    )
    settings, document = load_settings_and_document(tmp_path / "tftpd.yaml")
    request = Wrq(b"new", b"octet", ((b"tsize", b"%d" % size),))
    explanation = explain(LoadedConfig(settings, "tftpd.yaml", document), request, "192.0.2.7")
    reason = "" if granted else f"more than the quota of 10 bytes: {tmp_path}/in/new"
    assert (explanation["granted"], explanation["reason"]) == (granted, reason)
    assert os.listdir(tmp_path / "in") == ["there"]


CARD = bytes.fromhex("525400123456")


def test_the_profile_and_its_changes_are_shown(config):
    request = Rrq(b"seven", b"octet", ((b"blksize", b"1400"),))
    explanation = explain(config, request, "192.0.2.7", mac=CARD)
    assert explanation["mac"] == "52:54:00:12:34:56"
    assert explanation["transfer_options"]["blksize"] == 1000
    assert explanation["profile"] == {
        "name": "card",
        "location": "tftpd.yaml:30",
        "match": {"macs": ["52:54:00"], "direction": "read", "files": ["*.img", "seven"]},
        "source": None,
        "changes": {"blksize": 1000, "idle_timeout": 60.0, "broadcast": "answer"},
    }
    shown = list(format_lines(explanation))
    assert shown[0].endswith("from 192.0.2.7, 52:54:00:12:34:56")
    assert shown[3:6] == [
        "profile    card (tftpd.yaml:30)",
        "  matches  macs [52:54:00], direction read, files [*.img, seven]",
        "  changes  blksize 1000, idle_timeout 60.0, broadcast answer",
    ]


def test_a_client_without_profile_is_shown_with_none(config):
    explanation = explain(config, Rrq(b"seven", b"octet", ((b"foo", b"1"),)), "192.0.2.7")
    assert (explanation["profile"], explanation["mac"]) == (None, None)
    assert list(format_lines(explanation))[3] == "profile    none"


def test_the_profile_of_curl_is_shipped(config):
    options = ((b"tsize", b"0"), (b"blksize", b"512"), (b"timeout", b"6"))
    explanation = explain(config, Rrq(b"empty", b"octet", options), "192.0.2.7")
    assert explanation["profile"]["name"] == "curl"
    assert explanation["profile"]["location"] == "shipped"
    assert explanation["profile"]["changes"] == {"empty_tsize": False}
    assert explanation["transfer_options"]["tsize"] is None


def test_a_profile_may_enable_answers_to_broadcasts(config):
    for name, granted in ((b"seven", True), (b"kilo", False)):
        explanation = explain(config, Rrq(name, b"octet"), "fe80::7%lo", "ff02::1", CARD)
        assert explanation["granted"] is granted


def test_the_command_prints_lines_and_returns_the_decision(config, capsys):
    base = Path(config.settings.directories[0].root[0]).parent
    command = ["explain", "-c", str(base / "tftpd.yaml"), "--client", "192.0.2.7"]
    assert main([*command, "read", "seven", "--option", "tsize=0"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "request    RRQ seven octet tsize=0, from 192.0.2.7"
    assert shown[-3:] == [
        "answer     OACK tsize=7",
        "bytes      00067473 697a6500 3700",
        "granted",
    ]
    assert main([*command, "write", "seven"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        "refused    the directory has no policy for this"
    )


@pytest.mark.parametrize("mac", ["52:54:00:12:34:56", "52-54-00-12-34-56"])
def test_the_command_accepts_a_mac_address(config, capsys, mac):
    config = str(Path(config.settings.directories[0].root[0]).parent / "tftpd.yaml")
    command = ["explain", "-c", config, "--client", "192.0.2.7", "--mac", mac, "read", "seven"]
    assert main(command) == 0
    assert "profile    card " in capsys.readouterr().out


def test_the_user_option_needs_root(config, capsys, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    config = str(Path(config.settings.directories[0].root[0]).parent / "tftpd.yaml")
    for call in ("setgroups", "initgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, call, refuse)
    command = ["explain", "-c", config, "--client", "192.0.2.7", "--user", str(NOBODY)]
    assert main([*command, "read", "seven"]) == 2
    assert capsys.readouterr() == ("", "tftpd explain: --user needs root\n")


def test_the_command_prints_json(config, capsys):
    base = Path(config.settings.directories[0].root[0]).parent
    config = str(base / "tftpd.yaml")
    command = ["explain", "-c", config, "--client", "198.51.100.7", "--json", "read", "lan/seven"]
    assert main(command) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["granted"] is False
    assert shown["answer_hex"] == ErrorPacket(2, "Access violation").encode().hex()
    assert shown["policy"]["admitted_by"] is None
    assert shown["steps"][0]["name"] == "seven"


@pytest.mark.parametrize(
    "wrong",
    [
        ["--client", "nowhere", "read", "x"],
        ["--client", "192.0.2.7", "read", "x", "--option", "blksize"],
        ["--client", "192.0.2.7", "read", "x", "--mac", "52:54:00"],
        ["--client", "192.0.2.7", "fetch", "x"],
        ["--client", "192.0.2.7", "read"],
    ],
)
def test_bad_usage_exits_with_2(wrong):
    with pytest.raises(SystemExit) as ended:
        main(["explain", "-c", "any.yaml", *wrong])
    assert ended.value.code == 2


def test_a_bad_configuration_exits_with_78(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("listen: 3\n")
    config = str(tmp_path / "bad.yaml")
    assert main(["explain", "-c", config, "--client", "192.0.2.7", "read", "x"]) == 78
    assert 'missing key "directories"' in capsys.readouterr().err


@pytest.mark.check
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch to another user")
def test_the_user_option_decides_with_the_rights_of_that_user(config):
    base = Path(config.settings.directories[0].root[0]).parent
    for user, status in (("root", 0), (str(NOBODY), 1)):
        command = [sys.executable, "-m", "tftpd.daemon.cli", "explain", "--user", user]
        command += ["-c", str(base / "tftpd.yaml"), "--client", "192.0.2.7", "read", "closed"]
        environment = dict(os.environ, PYTHONPATH=str(CHECKOUT))
        ran = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert (ran.returncode, ran.stderr) == (status, b"")


@pytest.mark.check
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch to another user")
def test_a_user_that_does_not_exist_owns_no_files(config):
    base = Path(config.settings.directories[0].root[0]).parent
    command = [sys.executable, "-m", "tftpd.daemon.cli", "explain", "--user", "no such user"]
    command += ["-c", str(base / "tftpd.yaml"), "--client", "192.0.2.7"]
    environment = dict(os.environ, PYTHONPATH=str(CHECKOUT))
    for name, status in (("seven", 0), ("closed", 1)):
        ran = subprocess.run([*command, name], env=environment, capture_output=True, check=False)
        assert ran.returncode == status
        assert b'there is no user "no such user" now; assumed' in ran.stderr
        assert f"uid {NOBODY}".encode() in ran.stdout


def test_a_removed_root_is_shown(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "tftpd.yaml").write_text(f"directories: [{{root: {root}, read: true}}]\n")
    settings, document = load_settings_and_document(tmp_path / "tftpd.yaml")
    root.rmdir()
    explanation = explain(
        LoadedConfig(settings, "tftpd.yaml", document), Rrq(b"x", b"octet"), "192.0.2.7"
    )
    assert f"  step     {root}: the root directory does not exist" in list(
        format_lines(explanation)
    )


def test_the_directory_of_the_network_of_the_client_is_shown(tmp_path):
    for name in ("lab", "rest"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    (tmp_path / "tftpd.yaml").write_text(
        "directories:\n"
        "  - {path: /, root: lab, read: true, clients: [192.0.2.0/24]}\n"
        "  - {path: /, root: rest, read: true}\n"
    )
    settings, document = load_settings_and_document(tmp_path / "tftpd.yaml")
    config = LoadedConfig(settings, "tftpd.yaml", document)
    shown = {
        client: list(format_lines(explain(config, Rrq(b"x", b"octet"), client)))
        for client in ("192.0.2.7", "198.51.100.7")
    }
    assert (
        f"directory  / is {tmp_path}/lab, symlinks inside, clients [192.0.2.0/24] (tftpd.yaml:2)"
        in shown["192.0.2.7"]
    )
    assert "answer     DATA 1, 3 bytes" in shown["192.0.2.7"]
    assert (
        f"directory  / is {tmp_path}/rest, symlinks inside (tftpd.yaml:3)" in shown["198.51.100.7"]
    )
    assert "answer     DATA 1, 4 bytes" in shown["198.51.100.7"]
