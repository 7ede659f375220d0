"""The tables of docs/how-to/move-from-*.md: each translated option has the same effect.

The configuration of a row is loaded, and requests are decided as `tftpd explain` does.
"""

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from twisted.scripts.twistd import ServerOptions

from tests.docs.blocks import CHECKOUT, DOCS
from tests.interop.servers import KINDS, running_server
from tests.support.daemons import daemon
from tests.support.programs import program
from tftpd.config.loader import load_settings_and_document
from tftpd.daemon import cli
from tftpd.daemon.explain.explanation import JsonObject, LoadedConfig, explain
from tftpd.protocol.packets import Rrq, Wrq

_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
CLIENT = "192.0.2.7"
MAC = bytes.fromhex("525400123456")

VALUES = {
    "A": "192.0.2.1", "P": "6969", "S": "5", "N": "512", "A-B": "40000-40999",
    "OPTION": "blksize",
}  # fmt: skip


@cache
def rows(server: str) -> dict[str, str]:
    """Return the rows of the table of a server: the text of both cells."""
    name = "move-from-tftpd-hpa" if server == "in.tftpd" else "move-from-other-servers"
    text = _FENCED.sub("", (DOCS / f"how-to/{name}.md").read_text())
    table = text.partition(f"| {server} | tftpd |\n| --- | --- |\n")[2].partition("\n\n")[0]
    # A slash with a bar is a bar inside a cell; no cell has one.
    return dict(line.strip("| ").split(" | ", 1) for line in table.splitlines())


@dataclass
class Server:
    """A server with the configuration of one row or of several rows.

    Attributes:
        directory: Directory of the configuration; the served files are in `dir` and `dir2`.
        keys: Top-level keys.
        entries: Entries of `directories`.
        entry: Keys of the first entry, if a row has keys of an entry only.
        client: Address of the client.
    """

    directory: Path
    keys: dict[str, str] = field(default_factory=dict)
    entries: list[str] = field(default_factory=list)
    entry: dict[str, str] = field(default_factory=dict)
    client: str = CLIENT

    @property
    def root(self) -> Path:
        return self.directory / "dir"

    def add(self, code: str) -> None:
        """Add the code of a row: top-level keys, or an entry of `directories`, or its keys."""
        values = VALUES | {"DIR2": f"{self.directory}/dir2", "DIR": str(self.root)}
        names = "|".join(sorted(values, key=len, reverse=True))
        code = re.sub(rf"(?<![A-Za-z])({names})(?![A-Za-z0-9])", lambda m: values[m[1]], code)
        code = code.replace("duplicates: 512", "duplicates: 3")
        key, _, value = code.partition(": ")
        if code.startswith("{path: "):
            self.entries.append(code)
        elif key in ("read", "write", "root"):
            self.entry[key] = value
        else:
            self.keys[key] = value

    def load(self) -> LoadedConfig:
        entry = {"path": "/", "root": str(self.root), "read": "true"} | self.entry
        text = ", ".join(f"{key}: {value}" for key, value in entry.items())
        directories = ", ".join(self.entries) or f"{{{text}}}"
        keys = {"directories": f"[{directories}]"} | self.keys
        file = self.directory / "tftpd.yaml"
        file.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
        settings, document = load_settings_and_document(file)
        return LoadedConfig(settings, str(file), document)

    @property
    def settings(self) -> Any:
        return self.load().settings

    def ask(self, kind: type, name: str, to: str | None = None, **options: str) -> JsonObject:
        """Return the decision for a request with options."""
        pairs = tuple((key.encode(), value.encode()) for key, value in options.items())
        request = kind(name.encode(), b"octet", pairs)
        return explain(self.load(), request, self.client, to, MAC)

    def read(self, name: str, **options: str) -> str | None:
        """Return the file that a read gets, or None if the request is refused."""
        answer = self.ask(Rrq, name, **options)
        return str(Path(answer["file"]).relative_to(self.root)) if answer["granted"] else None

    def writes(self, name: str) -> bool:
        """Return True if an upload is accepted."""
        return bool(self.ask(Wrq, name)["granted"])

    def granted(self, name: str = "open", **options: str) -> dict[str, str]:
        """Return the options of the OACK."""
        answer = self.ask(Rrq, name, **options)["answer"]
        return dict(re.findall(r"(\w+)=(\w+)", answer)) if answer.startswith("OACK") else {}


@pytest.fixture
def server(tmp_path: Path) -> Server:
    (tmp_path / "dir2").mkdir()
    made = Server(tmp_path)
    fill(made.root)
    return made


def fill(root: Path) -> None:
    """Make a directory with files of several modes."""
    shutil.rmtree(root, ignore_errors=True)
    for name, mode in {
        "open": 0o666, "public": 0o644, "private": 0o600, "lower.cfg": 0o644, "master.conf": 0o644,
        f"{CLIENT}/own": 0o644, "52-54-00-12-34-56/own": 0o644, "images/fw.bin": 0o644,
        "boot/BCD": 0o644,
    }.items():  # fmt: skip
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(5000))
        file.chmod(mode)


Check = Callable[[Server], None]
CHECKS: dict[tuple[str, str], Check] = {}


def row(server: str, option: str) -> Callable[[Check], Check]:
    """Register the check of a row. The configuration of the row is already added."""

    def register(check: Check) -> Check:
        CHECKS[server, option] = check
        return check

    return register


def no_configuration(*cells: tuple[str, str]) -> None:
    """Register rows that name a program or say that an option does not exist."""
    for cell in cells:
        CHECKS[cell] = lambda server: None


def test_every_row_has_a_check():
    listed = {(name, option) for name in SERVERS for option in rows(name)}
    assert listed == CHECKS.keys()


SERVERS = ("in.tftpd", "atftpd", "dnsmasq", "rs-tftpd", "tftpd64")


def codes(cell: str) -> list[str]:
    """Return the YAML of a cell."""
    return [code for code in _CODE.findall(cell) if re.match(r"\{?[a-z_]+: ", code)]


@pytest.mark.parametrize(("name", "option"), [(s, option) for s in SERVERS for option in rows(s)])
def test_a_row_has_the_same_effect(name, option, server):
    check = CHECKS[name, option]
    chosen = codes(rows(name)[option])
    if (name, option) in ALTERNATIVES:  # each configuration alone
        for number, code in enumerate(chosen):
            alone = Server(server.directory)
            alone.add(code)
            check(alone) if number == 0 else alone.load()
        return
    for code in chosen:
        server.add(code)
    check(server)
    server.load()


ALTERNATIVES = {
    ("in.tftpd", "`--ipv4`, `--ipv6`"),
    ("atftpd", "`--no-blksize`, `--no-windowsize`"),
    ("dnsmasq", "`tftp-root=DIR`"),
    ("dnsmasq", "`tftp-unique-root=ip`, `=mac`"),
    ("dnsmasq", "`tftp-lowercase`"),
    ("rs-tftpd", "`--verbose`, `--quiet`"),
}


def options(name: str) -> set[str]:
    """Return the options of an installed program about TFTP."""
    path = Path(program(name))
    page = path.parents[1] / "share/man/man8/in.tftpd.8.gz"
    if name == "in.tftpd":
        if not page.is_file():
            pytest.skip("the manual page is not installed")
        text = gzip.decompress(page.read_bytes()).decode().replace("\\-", "-")
        if "--map-file" not in text:
            pytest.skip("this in.tftpd is that of atftpd")
    else:
        done = subprocess.run([path, "--help"], capture_output=True, text=True, check=False)
        text = done.stdout + done.stderr
    found = set(re.findall(r"--([a-z][a-z-]+)", text)) - {"help"}
    return {option for option in found if name != "dnsmasq" or "tftp" in option}


@pytest.mark.parametrize("name", ["in.tftpd", "atftpd", "dnsmasq"])
def test_a_table_has_each_option_of_the_program(name):
    cells = " ".join(_CODE.findall(" ".join(rows(name)))).replace("--", "")
    listed = set(re.findall(r"[a-z][a-z-]+[*]?", cells))
    # `--mcast-*` stands for all that begin with it.
    groups = tuple(part[:-1] for part in listed if part.endswith("*")) or ("*",)
    missing = {option for option in options(name) - listed if not option.startswith(groups)}
    assert missing == set()


@pytest.mark.parametrize("name", SERVERS)
def test_the_programs_of_the_rows_exist(name):
    for cell in rows(name).values():
        for code in _CODE.findall(cell):
            if code.startswith("twistd "):
                known = set(ServerOptions().docs) | {"pidfile", "logfile", "uid", "gid"}
                assert set(re.findall(r"--(\w+)", code)) <= known
            if code.startswith("tftpd "):
                assert code.split()[1] in cli.parser().format_help()
            if code.endswith((".socket", ".service")):
                assert (CHECKOUT / "conf/systemd" / code).is_file()


# in.tftpd ----------------------------------------------------------------------------------


@row("in.tftpd", "`--secure DIR`")
def _(server: Server) -> None:
    os.symlink("/images/fw.bin", server.root / "fw.bin")
    assert server.read("open") == server.read("/open") == "open"
    assert server.ask(Rrq, "fw.bin")["granted"]
    assert not server.ask(Rrq, "../tftpd.yaml")["granted"]
    assert not server.writes("open")


@row("in.tftpd", "`DIR` without `--secure`, absolute names")
def _(server: Server) -> None:
    assert server.read(f"{server.root}/open") == "open"
    assert server.read("open") is None


@row("in.tftpd", "reads without `--permissive`")
def _(server: Server) -> None:
    assert server.read("public") == "public"
    assert server.read("private") is None


@row("in.tftpd", "`--create`")
def _(server: Server) -> None:
    assert server.writes("new")
    assert server.writes("open")
    assert not server.writes("public")
    write = server.settings.directories[0].write
    assert write.mode == 0o666  # so that the next upload is accepted


@row("in.tftpd", "`--create --permissive`")
def _(server: Server) -> None:
    assert server.writes("new")
    assert server.writes("open")
    assert server.writes("public")


@row("in.tftpd", "uploads without `--create`")
def _(server: Server) -> None:
    assert not server.writes("new")
    assert server.writes("open")
    assert not server.writes("public")


@row("in.tftpd", "`--permissive` without `--create`")
def _(server: Server) -> None:
    assert not server.writes("new")
    assert server.writes("public")
    assert server.read("private") == "private"


@row("in.tftpd", "`--umask 027` with `--permissive`")
def _(server: Server) -> None:
    assert server.settings.directories[0].write.mode == 0o666 & ~0o027


@row("in.tftpd", "`--address A:P`")
@row("atftpd", "`--bind-address A`, `--port P`")
@row("rs-tftpd", "`-i A -p P`")
def _(server: Server) -> None:
    (listen,) = server.settings.listen
    assert (str(listen.address), listen.port) == ("192.0.2.1", 6969)


@row("tftpd64", "*Tftp port* P")
def _(server: Server) -> None:
    assert server.settings.listen[0].port == 6969


@row("tftpd64", "*Bind TFTP to this address* A")
def _(server: Server) -> None:
    assert str(server.settings.listen[0].address) == "192.0.2.1"


@row("tftpd64", "*Enable IPv6*")
def _(server: Server) -> None:
    assert str(server.settings.listen[0].address) == "::"


@row("atftpd", "`--listen-local`")
def _(server: Server) -> None:
    assert str(server.settings.listen[0].address) == "127.0.0.1"


@row("in.tftpd", "`--ipv4`, `--ipv6`")
def _(server: Server) -> None:
    (listen,) = server.settings.listen
    assert str(listen.address) == "0.0.0.0"


@row("in.tftpd", "`--blocksize N`")
@row("atftpd", "`--no-blksize`, `--no-windowsize`")
@row("dnsmasq", "`tftp-no-blocksize`")
def _(server: Server) -> None:
    assert server.granted(blksize="1428") == {"blksize": "512"}


@row("in.tftpd", "`--retransmit US`")
@row("atftpd", "`--retry-timeout S`")
@row("tftpd64", "*Timeout* S")
def _(server: Server) -> None:
    assert server.settings.retransmit.initial_interval == 5


@row("in.tftpd", "a transfer ends after about 75 s without a packet")
def _(server: Server) -> None:
    assert server.settings.retransmit.idle_timeout == 5
    assert Server(server.directory).settings.retransmit.idle_timeout == 75


@row("in.tftpd", "`--refuse OPTION`")
def _(server: Server) -> None:
    assert server.granted(blksize="1428", tsize="0") == {"tsize": "5000"}


@row("in.tftpd", "`--port-range A:B`")
@row("dnsmasq", "`tftp-port-range=A,B`")
@row("tftpd64", "*local ports pool* A:B")
def _(server: Server) -> None:
    assert server.settings.listen[0].model_dump(mode="json")["session_ports"] == "40000-40999"


@row("in.tftpd", "`--verbose`, `--verbosity`")
@row("atftpd", "`--logfile`, `--verbose`, `--trace`")
def _(server: Server) -> None:
    assert server.settings.log.level == "debug"


no_configuration(
    ("in.tftpd", "`--user U`"),
    ("in.tftpd", "`--map-file FILE`"),
    ("in.tftpd", "`--map-steps N`"),
    ("in.tftpd", "`--listen`, `--foreground`, `--pidfile`"),
    ("in.tftpd", "`--timeout`, inetd"),
    ("in.tftpd", "`--version`"),
)


# atftpd ------------------------------------------------------------------------------------


@row("atftpd", "`DIR`")
def _(server: Server) -> None:
    assert server.read("/open") == "open"
    assert server.writes("new")
    assert server.writes("public")


@row("atftpd", "`--maxthread N`")
@row("dnsmasq", "`tftp-max=N`")
@row("tftpd64", "`Max Simultaneous Transfers` N")
def _(server: Server) -> None:
    assert server.settings.limits.sessions == 512


@row("atftpd", "`--no-timeout`, `--no-tsize`")
def _(server: Server) -> None:
    assert server.granted(timeout="3", tsize="0", blksize="1428") == {"blksize": "1428"}


@row("atftpd", "`--pcre FILE`, with a line `^\\w*\\.conf$ master.conf`")
def _(server: Server) -> None:
    assert server.read("4711.conf") == "master.conf"
    assert server.read("open") == "open"


no_configuration(
    ("atftpd", "`--tftpd-timeout S`"),
    ("atftpd", "`--daemon`, `--no-fork`, `--pidfile`"),
    ("atftpd", "`--user`, `--group`"),
    ("atftpd", "`--prevent-sas`"),
    ("atftpd", "`--no-source-port-checking`"),
    ("atftpd", "`--no-multicast`"),
    ("atftpd", "`--pcre-test FILE`"),
    ("atftpd", "`--mcast-*`, `--mtftp`, `--mtftp-port`"),
    ("atftpd", "`--version`"),
)


# dnsmasq -----------------------------------------------------------------------------------


@row("dnsmasq", "`tftp-root=DIR`")
def _(server: Server) -> None:
    assert server.read("open") == "open"
    assert not server.writes("open")
    # The second entry of the row is for clients that send the whole path.
    second = codes(rows("dnsmasq")["`tftp-root=DIR`"])[1]
    server.keys.clear()
    server.add(second)
    assert server.read(f"{server.root}/open") == "open"


@row("dnsmasq", "`tftp-root=DIR,IFACE`")
def _(server: Server) -> None:
    (server.directory / "dir2/here").touch()
    inside = server.ask(Rrq, "here")
    assert (inside["granted"], inside["file"]) == (True, f"{server.directory}/dir2/here")
    server.client = "198.51.100.1"
    assert server.read("open") == "open"
    assert server.read("here") is None


@row("dnsmasq", "`tftp-secure`")
def _(server: Server) -> None:
    assert server.read("public") == "public"
    assert server.read("private") is None


@row("dnsmasq", "`tftp-mtu=1500`")
def _(server: Server) -> None:
    # 1500 bytes without the headers of IPv4 and UDP and the header of DATA
    assert server.granted(blksize="65464") == {"blksize": str(1500 - 20 - 8 - 4)}


@row("dnsmasq", "`tftp-single-port`")
@row("rs-tftpd", "`--single-port`")
def _(server: Server) -> None:
    assert server.settings.listen[0].model_dump(mode="json")["mode"] == "single-port"


@row("dnsmasq", "`tftp-unique-root=ip`, `=mac`")
def _(server: Server) -> None:
    for code, directory in zip(
        codes(rows("dnsmasq")["`tftp-unique-root=ip`, `=mac`"]),
        (CLIENT, "52-54-00-12-34-56"),
        strict=True,
    ):
        server.add(code)
        assert server.read("own") == f"{directory}/own"
        assert server.read("open") == "open"


@row("dnsmasq", "`tftp-lowercase`")
def _(server: Server) -> None:
    assert server.read("LOWER.CFG") == "lower.cfg"


@row("dnsmasq", "backslashes, which dnsmasq replaces by slashes")
def _(server: Server) -> None:
    assert server.read("\\boot\\BCD") == "boot/BCD"


@row("dnsmasq", "`quiet-tftp`")
def _(server: Server) -> None:
    assert server.settings.log.level == "warn"


no_configuration(
    ("dnsmasq", "`enable-tftp=eth1`"),
    ("dnsmasq", "`tftp-no-fail`"),
)


# rs-tftpd ----------------------------------------------------------------------------------


@row("rs-tftpd", "`-d DIR`")
def _(server: Server) -> None:
    assert server.read("open") == "open"
    assert server.writes("new")
    assert not server.writes("open")


@row("rs-tftpd", "`-sd DIR -rd DIR2`")
def _(server: Server) -> None:
    assert server.read("open") == "open"
    assert server.writes("/upload/new")
    assert not server.writes("new")


@row("rs-tftpd", "`--verbose`, `--quiet`")
def _(server: Server) -> None:
    assert server.settings.log.level == "debug"


@row("rs-tftpd", "`--overwrite`")
def _(server: Server) -> None:
    assert server.writes("open")


@row("rs-tftpd", "`--duplicate-packets N`")
def _(server: Server) -> None:
    (profile,) = server.settings.profiles
    assert profile.duplicates == 3


@row("rs-tftpd", "`--rollover 0`, `1`")
def _(server: Server) -> None:
    (profile,) = server.settings.profiles
    assert profile.rollover == 1


@row("rs-tftpd", "`--maxretries N`")
@row("tftpd64", "*Max Retransmit* N")
def _(server: Server) -> None:
    assert server.settings.retransmit.idle_timeout == 5


no_configuration(
    ("rs-tftpd", "`-r`"),
    ("rs-tftpd", "`--keep-on-error`"),
    ("rs-tftpd", "`--rollover n`, `x`"),
)


# tftpd64 -----------------------------------------------------------------------------------


@row("tftpd64", "*Base Directory* DIR, *Security*: *Standard*")
def _(server: Server) -> None:
    assert server.read("/open") == "open"
    assert server.writes("new")
    assert server.writes("public")
    assert not server.ask(Rrq, "../tftpd.yaml")["granted"]


@row("tftpd64", "*Security*: *None*")
def _(server: Server) -> None:
    (server.directory / "dir2/here").touch()
    assert server.ask(Rrq, "/other/here")["file"] == f"{server.directory}/dir2/here"


@row("tftpd64", "*Security*: *High*")
def _(server: Server) -> None:
    assert not server.writes("new")
    assert server.writes("open")


@row("tftpd64", "*Security*: *Read Only*")
def _(server: Server) -> None:
    assert server.read("open") == "open"
    assert not server.writes("open")


@row("tftpd64", "*Option negotiation* off")
def _(server: Server) -> None:
    assert server.granted(tsize="0", blksize="1428", timeout="3", windowsize="4") == {}


@row("tftpd64", "*PXE Compatibility*")
def _(server: Server) -> None:
    found = server.granted(tsize="0", blksize="1428", timeout="3", windowsize="4")
    assert found == {"tsize": "5000"}


@row("tftpd64", "*Translate Unix file names*")
@row("tftpd64", "`Allow '\\' As virtual root`")
def _(server: Server) -> None:
    assert server.read("/boot/BCD") == "boot/BCD"
    assert server.read("C:\\boot\\BCD") == server.read("\\boot\\BCD") == "boot/BCD"


@row("tftpd64", "letter case, which Windows ignores")
def _(server: Server) -> None:
    assert server.read("\\Boot\\bcd") == "boot/BCD"


@row("tftpd64", "*Use anticipation window of N Bytes*")
def _(server: Server) -> None:
    assert server.granted(windowsize="100") == {"windowsize": "64"}


@row("tftpd64", "*Show Progress bar*, `Keep transfer Gui`")
def _(server: Server) -> None:
    assert server.settings.status


@row("tftpd64", "*Create md5 files*")
def _(server: Server) -> None:
    assert server.settings.directories[0].read.sha256


@row("tftpd64", "*DHCP*: *Boot File* with `$MAC$` or `$IP$`")
def _(server: Server) -> None:
    assert server.read("own") == "52-54-00-12-34-56/own"
    shutil.rmtree(server.root / "52-54-00-12-34-56")
    assert server.read("own") == f"{CLIENT}/own"
    assert server.read("open") == "open"


no_configuration(
    ("tftpd64", '*Create "dir.txt" files*'),
    ("tftpd64", "*Beep for long transfer*"),
    ("tftpd64", "*Hide Window at startup*"),
    ("tftpd64", "`TftpLogFile`, `UseEventLog`"),
    ("tftpd64", "`Ignore ack for last TFTP packet`"),
    ("tftpd64", "`MulticastAddress`, `MulticastPort`"),
    ("tftpd64", "`Support for port Option`"),
    ("tftpd64", "`Console Password`"),
    ("tftpd64", "*DHCP*: all else, *Syslog*, *DNS*, *SNTP*"),
    ("tftpd64", "*TFTP Client*"),
)


# Side by side -------------------------------------------------------------------------------

# Options of in.tftpd, and the options of the rows that translate them.
OPTIONS = {
    "": ["reads without `--permissive`", "uploads without `--create`"],
    "-c": ["reads without `--permissive`", "`--create`"],
    "-p": ["`--permissive` without `--create`"],
    "-c -p": ["`--create --permissive`"],
    "-c -p -U 027": ["`--create --permissive`", "`--umask 027` with `--permissive`"],
}


@pytest.mark.check
@pytest.mark.parametrize("options", OPTIONS)
def test_the_same_requests_succeed_as_with_in_tftpd(options, server, tmp_path):
    """Each file is read, written, and written again."""
    program("curl")
    for option in OPTIONS[options]:
        for code in codes(rows("in.tftpd")[option]):
            key, _, value = code.partition(": ")
            if key == "write" and "write" in server.entry:
                server.entry["write"] = f"{server.entry['write'][:-1]}, {value[1:]}"
            else:
                server.add(code)
    source = tmp_path / "source"
    source.write_bytes(b"new\n")
    hpa = replace(
        next(kind for kind in KINDS if kind.name == "in.tftpd"),
        command=lambda port, root: [
            *("-L", "--address", f"127.0.0.1:{port}", "-u", "root", "-s", *options.split()),
            str(root),
        ],
    )
    with running_server(hpa, server.root) as other:
        expected = requests(other.url, source, server.root)
    fill(server.root)
    entry = {key: yaml.safe_load(value) for key, value in server.entry.items()}
    if "mode" in entry["write"]:
        entry["write"]["mode"] = f"{entry['write']['mode']:04o}"
    ours = {"path": "/", "root": str(server.root), "read": True} | entry
    with daemon(tmp_path, directories=[ours]) as running:
        found = requests(f"tftp://127.0.0.1:{running.port}", source, server.root)
    assert found == expected


def requests(url: str, source: Path, root: Path) -> dict[str, bool | int]:
    """Return which requests succeed, and the mode of a new file."""
    found: dict[str, bool | int] = {}
    for name in ("open", "public", "private", "new"):
        for attempt in ("read", "write", "write again", "read again"):
            what = ["-o", os.devnull] if attempt.startswith("read") else ["-T", str(source)]
            done = subprocess.run(["curl", "-s", "-m", "20", *what, f"{url}/{name}"], check=False)
            found[f"{attempt} {name}"] = done.returncode == 0
    new = root / "new"
    return found | {"mode": new.stat().st_mode & 0o777 if new.exists() else 0}
