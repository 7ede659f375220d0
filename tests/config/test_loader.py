"""Configuration files: their settings, and the messages for problems."""

import os
import random
import re
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.support.daemons import CHECKOUT
from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.mounts import Mount, Root
from tftpd.access.policy import ReadPolicy, Symlinks, WritePolicy
from tftpd.access.rewrite import NameRules
from tftpd.config.errors import ConfigError
from tftpd.config.loader import load_settings
from tftpd.config.sections import StatusSection
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.retransmission import RetransmitPolicy


@pytest.fixture
def write_config(tmp_path, monkeypatch):
    """Return a function that writes a configuration beside two directories, `srv` and `in`."""
    (tmp_path / "srv").mkdir()
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        Path("t.yaml").write_text(text)
        return Path("t.yaml")

    return write


MINIMAL = "directories:\n  - {root: srv, read: true}\n"


def test_a_minimal_configuration_has_defaults(write_config, tmp_path):
    settings = load_settings(write_config(MINIMAL))
    assert settings.build_mounts() == [Mount((), (Root(tmp_path / "srv"),), read=ReadPolicy())]
    assert settings.limits.option_limits() == OptionLimits()
    assert settings.limits.sessions == 5000
    assert settings.retransmit.build_policy() == RetransmitPolicy()
    assert (settings.log.level, settings.log.format) == ("info", "text")
    assert settings.status is None
    listen = [(entry.address, entry.port, entry.broadcast) for entry in settings.listen]
    assert listen == [("0.0.0.0", 69, "ignore"), ("::", 69, "ignore")]


def test_every_setting_can_be_configured(write_config, tmp_path):
    settings = load_settings(
        write_config(
            """
listen:
  - {address: fe80::1%lo, port: 6969, broadcast: answer}
directories:
  - path: \\boot//x86
    root: srv
    symlinks: deny
    read: {world_readable: true, clients: [10.0.0.0/8, 192.0.2.1, "fe80::/10"]}
    write: {create: false, overwrite: true, max_size: 1.5MiB, mode: 0600, world_writable: true}
limits: {blksize: 1468, windowsize: 8, window_bytes: 64KiB, sessions: 7}
retransmit: {min_interval: 0.5, max_interval: 4, initial_interval: 2, idle_timeout: 60, dally: 5}
status: {address: 192.0.2.1, port: 80, names: [Boot.example.org.]}
log: {level: debug, format: json}
trace: {client: 10.0.0.7, file: in/t.pcap, max_size: 1MiB}
"""
        )
    )
    read = ReadPolicy(True, tuple(map(ip_network, ("10.0.0.0/8", "192.0.2.1", "fe80::/10"))))
    write = WritePolicy(False, True, 3 << 19, 0o600, True)
    root = tmp_path / "srv"
    assert settings.build_mounts() == [
        Mount((b"boot", b"x86"), (Root(root),), read, write, Symlinks.DENY)
    ]
    assert settings.limits.option_limits() == OptionLimits(1468, 8, 64 << 10)
    assert settings.retransmit.build_policy() == RetransmitPolicy(0.5, 4.0, 2.0, 60.0, 5.0)
    assert settings.listen[0].address == "fe80::1%lo"
    trace = settings.trace
    assert (trace.client, trace.file) == (ip_network("10.0.0.7"), str(tmp_path / "in/t.pcap"))
    assert trace.max_size == 1 << 20
    assert settings.status == StatusSection(
        address="192.0.2.1", port=80, names=["boot.example.org"]
    )


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("0", 0), ("1000", 1000), ("64k", 65536), ("64KiB", 65536), ("64kb", 64000),
     ("2 GiB", 2 << 30), ("1.5MB", 1_500_000), ("9b", 9)],
)  # fmt: skip
def test_sizes_are_parsed_with_their_units(write_config, text, n_bytes):
    settings = load_settings(
        write_config(f"directories: [{{root: in, write: {{max_size: {text}}}}}]")
    )
    assert settings.build_mounts()[0].write.max_size == n_bytes


@pytest.mark.parametrize(
    ("text", "blksize", "n_bytes"),
    [
        ("bandwidth: 1MB", 65464, 250_000),
        ("session_bandwidth: 100kB", 25_000, 25_000),
        ("bandwidth: 1MB, session_bandwidth: 100kB", 25_000, 25_000),
        ("bandwidth: 1KiB, session_bandwidth: 100kB", 512, 512),
    ],
)
def test_bandwidth_limits_reduce_blocks_and_windows(write_config, text, blksize, n_bytes):
    granted = load_settings(write_config(MINIMAL + f"limits: {{{text}}}\n")).limits.option_limits()
    assert (granted.blksize, granted.window_bytes) == (blksize, n_bytes)


@pytest.mark.parametrize("text", ["40000-40999", '"40000 - 40999"'])
def test_port_ranges_are_parsed(write_config, text):
    listen = f"listen: [{{address: 127.0.0.1, session_ports: {text}}}]"
    assert load_settings(write_config(MINIMAL + listen)).listen[0].ports == (40000, 40999)


@pytest.mark.parametrize("text", ["0644", "644", '"0644"', "0o644"])
def test_file_modes_are_octal(write_config, text):
    settings = load_settings(write_config(f"directories: [{{root: in, write: {{mode: {text}}}}}]"))
    assert settings.build_mounts()[0].write.mode == 0o644


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("true", StatusSection()),
        ("{}", StatusSection(address="127.0.0.1", port=9169)),
        ("false", None),
        ("{socket: /run/tftpd/status.sock}", StatusSection(socket="/run/tftpd/status.sock")),
    ],
)
def test_the_status_page_can_be_configured(write_config, text, status):
    assert load_settings(write_config(MINIMAL + f"status: {text}")).status == status


def test_idle_timeout_can_be_set_alone(write_config):
    timing = load_settings(
        write_config(MINIMAL + "retransmit: {idle_timeout: 3}")
    ).retransmit.build_policy()
    assert timing == RetransmitPolicy(idle_timeout=3)


def test_empty_sections_have_defaults(write_config):
    settings = load_settings(write_config(MINIMAL + "limits:\nretransmit:\nlog:\n"))
    assert settings.limits.option_limits() == OptionLimits()


def test_roots_are_relative_to_the_file(write_config, tmp_path):
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "t.yaml").write_text("directories: [{root: ../srv, read: true}]")
    assert load_settings(conf / "t.yaml").build_mounts()[0].roots == (Root(tmp_path / "srv"),)


def _problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load_settings(path)
    return str(refused.value).splitlines()


def test_all_problems_are_reported_in_the_order_of_their_lines(write_config, tmp_path):
    text = """\
listen:
  - {address: 127.0.0.1, port: 6969}
  - {address: 127.0.0.1, port: 6969}
  - {address: localhost, port: 0}
directories:
  - path: /
    root: nowhere
    read: maybe
  - path: \\
    root: in
    write: {create: false, max_size: lots, mod: 9}
  - roat: in
  - path: /x/../y
    root: in
    read: {clients: [10.0.0.1/8, zip]}
    read: true
  - 7
  - {path: /z, root: in, write: {create: false, overwrite: false, mode: 0999}}
  - {path: /q, root: in}
  - {path: /r, root: t.yaml, read: true}
limits: {blksiz: 1, blksize: 99999999, windowsize: yes, window_bytes: 1k}
log: {level: inf, format: [text]}
retransmit: {min_interval: 9, max_interval: 3}
lisen: 3
"""
    here = tmp_path
    assert _problems(write_config(text)) == [
        't.yaml:3: listen[1].address: "127.0.0.1" port 6969 is already the address of listen[0]'
        " on line 2",
        "t.yaml:4: listen[2].address: expected an IP address such as 192.0.2.1 or fe80::1%eth0,"
        ' got "localhost"',
        "t.yaml:4: listen[2].port: expected a number from 1 to 65535, got 0",
        f"t.yaml:7: directories[0].root: {here}/nowhere does not exist",
        't.yaml:8: directories[0].read: expected true, false or a mapping, got "maybe"',
        't.yaml:9: directories[1].path: "\\" is already the path of directories[0] on line 6'
        " for the same clients",
        't.yaml:11: directories[1].write.max_size: expected a size such as 64MiB, got "lots"',
        't.yaml:11: directories[1].write.mod: unknown key, did you mean "mode"?',
        't.yaml:12: directories[2]: missing key "root"',
        't.yaml:12: directories[2].path: "/" is already the path of directories[0] on line 6'
        " for the same clients",
        't.yaml:12: directories[2].roat: unknown key, did you mean "root"?',
        't.yaml:13: directories[3].path: expected a path without .., got "/x/../y"',
        "t.yaml:15: directories[3].read.clients[0]: expected a network such as 10.0.0.0/8,"
        ' got "10.0.0.1/8"',
        "t.yaml:15: directories[3].read.clients[1]: expected a network such as 10.0.0.0/8,"
        ' got "zip"',
        "t.yaml:16: directories[3].read: duplicate key, first on line 15",
        "t.yaml:17: directories[4]: expected a mapping, got 7",
        't.yaml:18: directories[5].write.mode: expected permission bits such as 0644, got "0999"',
        "t.yaml:19: directories[6]: expected read, write or both",
        f"t.yaml:20: directories[7].root: {here}/t.yaml is not a directory",
        't.yaml:21: limits.blksiz: unknown key, did you mean "blksize"?',
        "t.yaml:21: limits.blksize: expected a number from 8 to 65464, got 99999999",
        't.yaml:21: limits.window_bytes: expected at least 64KiB, got "1k"',
        't.yaml:21: limits.windowsize: expected a number from 1 to 65535, got "yes"',
        "t.yaml:22: log.format: expected one of text, json, got a list",
        't.yaml:22: log.level: expected one of debug, info, warn, error, critical, got "inf",'
        ' did you mean "info"?',
        "t.yaml:23: retransmit: expected min_interval below max_interval and idle_timeout, got "
        "9, 3 and 75",
        't.yaml:24: lisen: unknown key, did you mean "listen"?',
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "t.yaml:1: the file is empty"),
        ("# nothing", "t.yaml:1: the file is empty"),
        ("- a", "t.yaml:1: expected a mapping of keys, got a list"),
        ("word", 't.yaml:1: expected a mapping of keys, got "word"'),
        ("directories: []", "t.yaml:1: directories: expected at least one entry"),
        (MINIMAL + 'listen: [{address: "::"}, {address: "0::0"}]',
         't.yaml:3: listen[1].address: "0::0" port 69 is already the address of listen[0]'
         " on line 3"),
        (MINIMAL + 'listen: [{address: "fe80::1%\\0"}]',
         "t.yaml:3: listen[0].address: expected an IP address such as 192.0.2.1 or"
         ' fe80::1%eth0, got "fe80::1%\\x00"'),
        ('directories: [{root: in, read: true, path: "\\ud800"}]',
         't.yaml:1: directories[0].path: invalid Unicode, got "\\ud800"'),
        (MINIMAL + '"a.b\\nc": 1', 't.yaml:3: "a.b\\nc": unknown key'),
        (MINIMAL + "k" * 900 + ": 1", f't.yaml:3: "{"k" * 57}...": unknown key'),
        ("directories: [{root: in, read: {clients: []}}]",
         "t.yaml:1: directories[0].read.clients: expected at least one entry"),
        ("directories: [{root: in, read: true, path: 3}]",
         "t.yaml:1: directories[0].path: expected a path such as /boot, got 3"),
        ("directories: [{root: in, read: true, path: " + "x" * 5000 + "}]",
         "t.yaml:1: directories[0].path: expected a path of at most 4096 bytes,"
         f' got "{"x" * 57}..."'),
        ("directories: [{root: in, read: {clients: [10]}}]",
         "t.yaml:1: directories[0].read.clients[0]: expected a network such as 10.0.0.0/8,"
         " got 10"),
        (MINIMAL + "log: {level: true}", "t.yaml:3: log.level: expected one of debug, info,"
         " warn, error, critical, got true"),
        ("directories: 3", "t.yaml:1: directories: expected a list, got 3"),
        ("listen: []\n" + MINIMAL, "t.yaml:1: listen: expected at least one entry"),
        ("log: {level: info}", 't.yaml:1: missing key "directories"'),
        ("root = /srv",
         't.yaml:1: expected a mapping of keys, got "root = /srv", write "key: value"'),
        (MINIMAL + "log: json", 't.yaml:3: log: expected a mapping, got "json", did you mean '
         "{format: json}?"),
        (MINIMAL + "log: loud", 't.yaml:3: log: expected a mapping, got "loud"'),
        (MINIMAL + "listen: [192.0.2.1]",
         't.yaml:3: listen[0]: expected a mapping, got "192.0.2.1", did you mean '
         "{address: 192.0.2.1}?"),
        (MINIMAL + "listen: [address:192.0.2.1]", "t.yaml:3: listen[0]: expected a mapping, got "
         '"address:192.0.2.1"; a blank must follow the colon'),
        (MINIMAL + "rewrite: [{match: x, to: {ip}}]",
         't.yaml:3: rewrite[0].to: expected text, got a mapping; quote text that '
         'begins with {: "{ip}"'),
        ("directories: [{root: ~/x, read: true}]",
         't.yaml:1: directories[0].root: ~ is not expanded, '
         f'got "~/x"; write the whole path: "{Path.home()}/x"'),
        (MINIMAL + "limits: 7", "t.yaml:3: limits: expected a mapping, got 7"),
        (MINIMAL + "log: {level: {}}", "t.yaml:3: log.level: expected one of debug, info, warn,"
         " error, critical, got a mapping"),
        ("directories: [{root: {x: y}, read: true}]",
         "t.yaml:1: directories[0].root: expected the path of a directory, got a mapping"),
        ("directories: [{root: [], read: true}]",
         "t.yaml:1: directories[0].root: expected at least one entry"),
        ("directories: [{root: [in, [x]], read: true}]",
         "t.yaml:1: directories[0].root[1]: expected the path of a directory, got a list"),
        ('directories: [{root: "in/{nic}", read: true}]',
         "t.yaml:1: directories[0].root: {nic} is not one of ip, ip_hex, mac, serial"),
        ('directories: [{root: [in, "in/{mac:title}"], read: true}]',
         "t.yaml:1: directories[0].root[1]: {mac:title}: expected :upper or :lower after "
         "the key"),
        ('directories: [{root: "in/{mac}", read: true, serials: x}]',
         't.yaml:1: directories[0]: "serials" needs a root that contains {serial}'),
        ('directories: [{root: "in/{serial}", read: true, serials: "(?=a)"}]',
         "t.yaml:1: directories[0].serials: (?=: there is no lookahead and no lookbehind; a rule "
         'with "unless" may help, got "(?=a)"'),
        ("directories: [{root: in, write: {create: no}}]",
         't.yaml:1: directories[0].write.create: expected true or false, got "no"'),
        ("directories: [{root: in, write: {create: false}}]",
         "t.yaml:1: directories[0].write: create and overwrite are both false: no upload is "
         "possible"),
        (MINIMAL + 'log: {level: "\\e[31m\\n"}',
         't.yaml:3: log.level: expected one of debug, info, warn, error, critical,'
         ' got "\\x1b[31m\\n"'),
        (MINIMAL + "log: {level: " + "x" * 500 + "}",
         "t.yaml:3: log.level: expected one of debug, info, warn, error, critical,"
         f' got "{"x" * 57}..."'),
        (MINIMAL + "retransmit: {min_interval: 0}",
         "t.yaml:3: retransmit.min_interval: expected seconds, more than 0 and up to 3600, got 0"),
        (MINIMAL + "trace: 10.0.0.7", 't.yaml:3: trace: expected a mapping, got "10.0.0.7"'),
        (MINIMAL + "trace: {client: 10.0.0.7}", 't.yaml:3: trace: missing key "file"'),
        (MINIMAL + "trace: {client: 10.0.0.7, file: [a]}",
         "t.yaml:3: trace.file: expected the path of a file, got a list"),
        (MINIMAL + "trace: {client: 10.0.0.7, file: a, max_size: 1k}",
         't.yaml:3: trace.max_size: expected at least 64KiB, got "1k"'),
        (MINIMAL + "trace: {client: 10.0.0.7, file: /no/where}",
         "t.yaml:3: trace.file: /no/where is not in an existing directory"),
        (MINIMAL + "status: {state: /no/where}",
         "t.yaml:3: status.state: /no/where is not in an existing directory"),
        (MINIMAL + "status: {state: [a]}",
         "t.yaml:3: status.state: expected the path of a file, got a list"),
        (MINIMAL + "status: {socket: /s, port: 1}",
         "t.yaml:3: status: socket cannot be combined with address or port"),
        (MINIMAL + "status: {socket: status.sock}",
         "t.yaml:3: status.socket: expected an absolute path such as /run/tftpd/status.sock,"
         ' got "status.sock"'),
        (MINIMAL + "status: {socket: /" + "s" * 107 + "}",
         "t.yaml:3: status.socket: expected a path of at most 107 bytes,"
         f' got "/{"s" * 56}..."'),
        (MINIMAL + "status: {names: [a/b]}",
         't.yaml:3: status.names[0]: expected a host name such as boot.example.org, got "a/b"'),
        (MINIMAL + "status: on",
         't.yaml:3: status: expected true, false or a mapping, got "on"'),
        (MINIMAL + "listen: [{address: 127.0.0.1, mode: single-port, session_ports: 4000-4999}]",
         "t.yaml:3: listen[0]: session_ports cannot be used with single-port mode"),
        (MINIMAL + "listen: [{address: 127.0.0.1, mode: single}]",
         "t.yaml:3: listen[0].mode: expected one of per-session, single-port, got \"single\","
         ' did you mean "single-port"?'),
        *((MINIMAL + f"listen: [{{address: 127.0.0.1, session_ports: {text}}}]",
           "t.yaml:3: listen[0].session_ports: expected a range of ports from 1024 to 65535,"
           f" such as 40000-40999, got {shown}")
          for text, shown in [("40000", "40000"), ("5-9000", '"5-9000"'), ("9-8", '"9-8"'),
                              ("40000-99999", '"40000-99999"'), ("all", '"all"'),
                              ("[40000, 40001]", "a list"), ("-1-40000", '"-1-40000"')]),
    ],
)  # fmt: skip
def test_each_problem_has_one_message(write_config, text, problem):
    assert _problems(write_config(text)) == [problem]


def test_an_unreadable_file_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("binary").write_bytes(b"\xff\xfe\0")
    Path("huge").write_bytes(b"#" * (1 << 20) + b"\n")
    assert _problems(Path("huge")) == ["huge: the file is larger than 1 MiB"]
    assert _problems(Path("missing")) == [
        "missing: the file cannot be read: No such file or directory"
    ]
    assert _problems(Path(".")) == [".: the file cannot be read: Is a directory"]
    assert _problems(Path("binary")) == ["binary:1: the file is not UTF-8 text"]


def test_a_pipe_without_a_writer_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (problem,) = _problems(tmp_path / "pipe")
    assert problem.endswith("the file is empty")


@pytest.mark.parametrize("kind", ["read", "write"])
def test_roots_must_be_usable(write_config, monkeypatch, tmp_path, kind):
    path = write_config(f"directories: [{{root: in, {kind}: true}}]")
    monkeypatch.setattr(os, "access", lambda *_: False)
    verb = {"read": "readable", "write": "writable"}[kind]
    assert _problems(path) == [f"t.yaml:1: directories[0].root: {tmp_path}/in is not {verb}"]


@pytest.mark.parametrize("seed", range(300))
def test_any_file_is_loaded_or_has_problems(write_config, seed):
    generator = random.Random(seed)
    text = bytearray((CHECKOUT / "conf/tftpd.yaml").read_bytes())
    for _ in range(generator.randint(1, 12)):
        position = generator.randrange(len(text))
        match generator.randrange(3):
            case 0:
                text[position] = generator.choice(b"{}[]:,&*!|>'\"%@`-#?~ \n\t\0\xff0a")
            case 1:
                del text[position : position + generator.randint(1, 20)]
            case 2:
                text[position:position] = text[position : position + generator.randint(1, 40)]
    path = write_config("")
    path.write_bytes(text)
    with suppress(ConfigError):
        load_settings(path)


def test_rewrite_rules_are_loaded_in_order(write_config):
    settings = load_settings(
        write_config(
            MINIMAL + "rewrite:\n"
            "  - {match: '^(?P<a>x)', to: '{a:upper}', on: read, last: true, ignore_case: true}\n"
            "  - {unless: '^boot/', refuse: true, on: write, clients: [10.0.0.0/8]}\n"
        )
    )
    first, second = settings.build_name_rules().rules
    assert (first.label, first.reads, first.writes, first.last) == ("rewrite[0]", True, False, True)
    assert first.pattern.find(b"X")
    assert (second.unless, second.refuse, second.reads) == (True, True, False)
    assert second.clients == (ip_network("10.0.0.0/8"),)


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("{match: '(a+', to: x}", '.match: missing ): (a+, got "(a+"'),
        ("{match: '(a)\\1', to: x}", ".match: \\1: an expression cannot match again what a "
         'group matched, got "(a)\\1"'),
        ("{unless: 'a{,3}', last: true}", ".unless: {,3}: a repetition without a lower limit is "
         'written as {0,n}, got "a{,3}"'),
        ("{match: 'a', to: '{1}'}", ": {1}: there are 0 groups"),
        ("{to: x}", ': expected either "match" or "unless"'),
        ("{match: a, unless: b, refuse: true}", ': expected either "match" or "unless"'),
        ("{match: a}", ': no effect: expected "to", "refuse", "last" or "restart"'),
        ("{unless: a, to: x}", ': "to" needs "match" and cannot be combined with "refuse"'),
        ("{match: a, last: true, restart: true}",
         ': expected only one of "refuse", "last" and "restart"'),
        ("{match: a, repeat: true, last: true}", ': "repeat" needs "to"'),
        ("{match: a, to: x, on: reads}",
         '.on: expected one of read, write, both, got "reads", did you mean "read"?'),
    ],
)  # fmt: skip
def test_an_invalid_rewrite_rule_is_reported_with_its_line(write_config, rule, problem):
    with pytest.raises(ConfigError) as error:
        load_settings(write_config(f"{MINIMAL}rewrite:\n  - {rule}\n"))
    assert str(error.value) == f"t.yaml:4: rewrite[0]{problem}"


def test_the_number_of_rewrite_rules_is_limited(write_config):
    rules = "  - {match: a, to: b}\n" * 501
    with pytest.raises(ConfigError) as error:
        load_settings(write_config(f"{MINIMAL}rewrite:\n{rules}"))
    assert str(error.value) == "t.yaml:3: rewrite: expected at most 500 entries"


def test_fallbacks_encodings_and_prefixes_are_loaded(write_config):
    settings = load_settings(
        write_config(
            "directories:\n"
            "  - {root: srv, read: true}\n"
            "  - {path: /in, root: in, read: true, fallbacks: [case], default_loaders: [a/b]}\n"
            "names: {fallbacks: [case, drive], encodings: [utf-8, big5], prefixes: [\\a/b]}\n"
        )
    )
    loaders = ((b"grubx64.efi",), (b"grubaa64.efi",))
    chain = FallbackChain((Fallback.CASE, Fallback.DRIVE), ((b"a", b"b"),), loaders)
    assert settings.build_name_rules() == NameRules((), chain, ("big5",))
    mounts = settings.build_mounts()
    assert [mount.fallbacks for mount in mounts] == [None, (Fallback.CASE,)]
    assert [mount.default_loaders for mount in mounts] == [None, ((b"a", b"b"),)]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ("{fallbacks: [drives]}", ".fallbacks[0]: expected one of drive, trailing, prefix, "
         'case, sibling, default_loader, got "drives", did you mean "drive"?'),
        ("{fallbacks: [drive, encoding]}", '.fallbacks[1]: "encoding" is not a fallback: use '
         "names.encodings"),
        ("{encodings: [utf-16]}", '.encodings[0]: expected one of utf-8, latin-1, '),
        ("{prefixes: [/]}", ".prefixes: / is not the name of a file or directory"),
        ("{default_loaders: [/]}", ".default_loaders: / is not the name of a file or directory"),
        ("{prefixes: [../x]}", '.prefixes[0]: expected a path without .., got "../x"'),
        ("{fallbacks: case}", '.fallbacks: expected a list, got "case"'),
    ],
)  # fmt: skip
def test_an_invalid_section_names_is_reported_with_its_line(write_config, names, problem):
    with pytest.raises(ConfigError) as error:
        load_settings(write_config(f"{MINIMAL}names: {names}\n"))
    assert str(error.value).startswith(f"t.yaml:3: names{problem}")


@pytest.mark.parametrize(
    ("section", "old", "new"),
    [
        ("retransmit: {floor: 1}", "retransmit.floor", "min_interval"),
        ("retransmit: {ceiling: 1}", "retransmit.ceiling", "max_interval"),
        ("retransmit: {initial: 1}", "retransmit.initial", "initial_interval"),
        ("retransmit: {patience: 1}", "retransmit.patience", "idle_timeout"),
        ("retransmit: {copies: 1}", "retransmit.copies", "max_unanswered_sends"),
        ("limits: {window_octets: 1MiB}", "limits.window_octets", "window_bytes"),
        ("names: {ladder: [case]}", "names.ladder", "fallbacks"),
        ("facts: [{set: {a: 1}}]", "facts", "variables"),
        ("rewrite: [{match: a, to: b, every: true}]", "rewrite[0].every", "repeat"),
        (
            "profiles: [{name: a, match: {mode: octet}, gap: 0}]",
            "profiles[0].gap",
            "packet_interval",
        ),
    ],
)
def test_an_old_key_gets_an_error_that_names_the_new_key(write_config, section, old, new):
    problem = f't.yaml:3: {old}: unknown key: it is now called "{new}"'
    with pytest.raises(ConfigError, match=re.escape(problem)):
        load_settings(write_config(MINIMAL + section))


@pytest.mark.parametrize(
    ("first", "second", "is_allowed"),
    [
        ("[192.0.2.0/24]", "[198.51.100.0/24]", True),
        ("[192.0.2.0/24]", None, True),
        ("[192.0.2.0/24]", "[192.0.2.0/23]", True),
        ("[192.0.2.0/24]", "[192.0.2.7, 198.51.100.7]", True),
        (None, "[192.0.2.0/24]", False),
        ("[192.0.2.0/24]", "[192.0.2.0/24]", False),
        ("[192.0.2.0/24, 2001:db8::/32]", "[192.0.2.7, 2001:db8::7]", False),
        (None, None, False),
    ],
)
def test_entries_with_one_path_need_different_clients(write_config, first, second, is_allowed):
    entries = [
        f"  - {{root: in, read: true{'' if clients is None else f', clients: {clients}'}}}\n"
        for clients in (first, second)
    ]
    path = write_config("directories:\n" + "".join(entries))
    if is_allowed:
        assert [mount.prefix for mount in load_settings(path).build_mounts()] == [(), ()]
    else:
        assert _problems(path) == [
            't.yaml:3: directories[1].path: "/" is already the path of directories[0] on line 2'
            " for the same clients"
        ]


@pytest.mark.parametrize("write", ["true", "{overwrite: false}", "{overwrite: true}"])
def test_uploads_that_may_not_replace_files_need_a_file_system_that_can(
    write_config, monkeypatch, write
):
    path = write_config(f"{MINIMAL}  - {{path: /in, root: in, write: {write}}}\n")
    load_settings(path)
    monkeypatch.setattr("tftpd.config.loader.can_take_free_names", lambda root: False)
    if "true}" in write:
        load_settings(path)
    else:
        assert _problems(path) == [
            "t.yaml:3: directories[1].root: the file system has neither RENAME_NOREPLACE nor hard "
            "links: set overwrite: true"
        ]
    assert os.listdir("in") == []
