"""A host for the commands of one page: own network, /etc, /srv, /opt and process table.

The commands run as a user would type them, as root. A daemon serves /srv/tftp on port 69 and
on port 6969. What cannot run in a test has a substitute, which checks its arguments.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.blocks import Block
from tests.support.daemons import CHECKOUT
from tests.support.programs import program

MAX_SECONDS = 480  # for all commands of a page
# Addresses in the documents that the server has.
ADDRESSES = ("192.0.2.1/24", "10.9.0.2/32", "2001:db8::1/128")

CONFIGURATION = """\
listen:
  - {address: 0.0.0.0, port: 69}
directories:
  - path: /
    root: /srv/tftp
    read:
      clients: [10.0.0.0/8]
"""

SERVED = """\
listen: [{address: 0.0.0.0, port: 69}, {address: "::", port: 69},
         {address: 0.0.0.0, port: 6969}, {address: "::", port: 6969}]
directories:
  - {path: /, root: /srv/tftp, read: {templates: true}, write: {overwrite: true}}
  - {path: /incoming, root: /srv/tftp/incoming, read: true, write: {overwrite: false}}
status: true
control: true
variables: [{set: {kernel: vmlinuz, initrd: initrd.gz}}]
drain_timeout: 0
"""

SOCKET = """\
listen: [{address: 127.0.0.1, port: 6970}]
directories: [{path: /, root: /srv/tftp, read: true}]
status: {socket: /run/tftpd/status.sock}
drain_timeout: 0
"""

# Debian packages of the documents, and their files that the documents copy.
PACKAGES = """\
build-essential
devscripts
dh-python
gcc
libc6-dev
python3-dev
python3-prometheus-client
pxelinux /usr/lib/PXELINUX/pxelinux.0
syslinux-common /usr/lib/syslinux/modules/bios/ldlinux.c32
shim-signed /usr/lib/shim/shimx64.efi.signed
grub-efi-amd64-signed /usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed
ipxe /usr/lib/ipxe/undionly.kpxe /usr/lib/ipxe/snponly.efi
python3-venv
dnsmasq-base
qemu-system-x86
ovmf
debian-installer-12-netboot-amd64
"""

# Programs that a test cannot run, why, and what is checked instead. A substitute is a shell
# script. It fails with a message if the arguments are not right.
SUBSTITUTES = {
    "apt": (
        "changes the host and needs the network",
        """
        [ "$1" = install ] || exit 1
        shift
        for name; do
            case $name in
            ./dist/*) continue ;;
            esac
            grep -qw -- "$name" SANDBOX/packages CHECKOUT/debian/control || exit 1
            files=$(sed -n "s/^$name //p" SANDBOX/packages)
            for file in $files; do mkdir -p "${file%/*}"; touch "$file"; done
        done""",
    ),
    "dnf": (
        "changes the host and needs the network",
        """
        case "$*" in
        "builddep packaging/tftpd.spec") [ -f CHECKOUT/packaging/tftpd.spec ] ;;
        "install rpm-build dnf-plugins-core") ;;
        "install ./dist/tftpd-twisted-[0-9]*."*.rpm) ;;
        *) exit 1 ;;
        esac""",
    ),
    "wget": (
        "needs the network",
        """
        [ "$1" = -P ] && [ "${3#https://}" != "$3" ] || exit 1
        head -c 200000 /dev/urandom > "$2/${3##*/}" """,
    ),
    "systemctl": (
        "needs systemd as process 1",
        """
        case $1 in
        status|reload|restart|enable|disable|daemon-reload|start|stop) ;;
        *) exit 1 ;;
        esac
        verb=$1
        shift
        for unit; do
            case $unit in
            --now) ;;
            *.*) ls CHECKOUT/conf/systemd/$unit >/dev/null || exit 1 ;;
            *) ls CHECKOUT/conf/systemd/$unit.service >/dev/null || exit 1 ;;
            esac
        done
        [ $verb = enable ] && [ -e SANDBOX/starts ] && exec bash SANDBOX/starts
        true""",
    ),
    "journalctl": (
        "needs the journal",
        """
        [ "$1 $2" = "-u tftpd" ] && ls CHECKOUT/conf/systemd/tftpd.service >/dev/null || exit 1
        [ ! -e SANDBOX/unit.log ] || cat SANDBOX/unit.log""",
    ),
    "qemu-system-x86_64": (
        "runs until its user ends it",
        """
        /usr/bin/qemu-system-x86_64 "$@" </dev/null >SANDBOX/console 2>&1 &
        for attempt in $(seq 600); do
            if grep -aq "Select a language" SANDBOX/console; then kill $!; exit 0; fi
            sleep 0.5
        done
        kill $!
        cat SANDBOX/console
        exit 1""",
    ),
    "podman": (
        "needs the network and a registry",
        """
        case $1 in
        run) case " $* " in *" --name tftpd "*" tftpd ") ;; *) exit 1 ;; esac ;;
        kill) [ "$*" = "kill --signal HUP tftpd" ] ;;
        *) exit 1 ;;
        esac""",
    ),
    "make": (
        "builds an environment from the network",
        """
        exec /usr/bin/make --silent --dry-run --directory CHECKOUT "$@" >/dev/null""",
    ),
    "pip": (
        "needs the network",
        """
        eval "last=\\${$#}"
        [ "$1" = install ] || exit 1
        case $last in
        .) ;;
        .\\[*\\]) extra=${last#.[}; grep -q "^${extra%]} *=" CHECKOUT/setup.cfg ;;
        *) exit 1 ;;
        esac""",
    ),
    "tshark": ("is not installed everywhere", '[ "$1" = -r ] && [ -f "$2" ]'),
    "tcpdump": ("is not installed everywhere", '[ "$1" = -vr ] && [ -f "$2" ]'),
    "compinit": ("is a function of zsh", ":"),
    "python": (
        "`-m tests.fuzz` takes minutes",
        """
        case $1 in -c|*.py) exec PYTHON "$@" ;; esac
        [ "$1 $2" = "-m tests.fuzz" ] || exit 1
        shift 2
        PYTHONPATH=READABLE:CHECKOUT PYTHON -m tests.fuzz --help >SANDBOX/help
        for word; do grep -qw -e "$word" SANDBOX/help || [ "$word" -ge 0 ] || exit 1; done""",
    ),
    "python3": (
        "`-m venv` takes seconds",
        """
        [ "$1 $2" = "-m venv" ] || exit 1
        rm -rf "$3/bin" && mkdir -p "$3" && ln -sfn SANDBOX/bin "$3/bin" """,
    ),
    # Commands of the examples that stand for the user's own.
    "show-config": ("stands for a command of the user", "echo hostname router1"),
    "pg_dump": ("stands for a command of the user", "echo dump"),
}

# The programs of this checkout. A server in the foreground is stopped when it serves.
PROGRAMS = {
    "tftpc": 'PYTHONPATH=READABLE:CHECKOUT exec PYTHON -m tftpd.client.cli "$@"',
    "tftpd": """
        if [ "$1" = run ]; then exec SANDBOX/bin/serve -m tftpd.daemon.cli "$@"; fi
        # The units refuse a Python below /home or /root, which a developer may use.
        if [ "$1" = install-units ]; then set -- "$@" --help; fi
        PYTHONPATH=READABLE:CHECKOUT exec PYTHON -m tftpd.daemon.cli "$@" """,
    "twistd": 'exec SANDBOX/bin/serve -m twisted "$@"',
}

# Runs a server in a network of its own until it serves, then stops it.
SERVE = """\
#!PYTHON
import os, signal, subprocess, sys, time
words = sys.argv[1:]
if words[:2] == ["-m", "twisted"]:
    words[:2] = ["-c", "from twisted.scripts.twistd import run; run()"]
command = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$0" "$@"', sys.executable]
logs = [word.partition("=")[2] for word in words if word.startswith("--logfile=")]
pids = [word.partition("=")[2] for word in words if word.startswith("--pidfile=/")]
log = logs[0] if logs else "SANDBOX/serve.log"
open(log, "w").close()
out = open("SANDBOX/serve.log", "w")
environment = dict(os.environ, PYTHONPATH="READABLE:CHECKOUT")
started = subprocess.Popen(command + words, stdout=out, stderr=out, env=environment)
deadline = time.monotonic() + 20
while "serving on" not in open(log).read():
    failed = started.poll() not in (None, 0)
    if failed or time.monotonic() > deadline:
        started.kill()
        sys.exit("it does not serve: " + open("SANDBOX/serve.log").read() + open(log).read())
    time.sleep(0.05)
for file in pids:
    os.kill(int(open(file).read()), signal.SIGTERM)
if not pids:
    started.terminate()
    started.wait(20)
"""

READABLE = "/mnt/installed"
"""A copy of tftpd that every user can read, also if the checkout is in a closed directory."""

ENTER = """\
set -e
mount -t proc proc /proc
mount -t tmpfs tmpfs /mnt
mkdir READABLE
cp -r CHECKOUT/tftpd READABLE/
chmod -R a+rX /mnt
for directory in etc opt var run usr/lib; do
    mkdir -p /mnt/$directory.new /mnt/$directory.tmp
    mount -t overlay overlay /$directory \\
        -o lowerdir=/$directory,upperdir=/mnt/$directory.new,workdir=/mnt/$directory.tmp
done
mount -t tmpfs tmpfs /srv
chmod 755 /srv
ip link set lo up
for address in ADDRESSES; do
    case $address in *:*) nodad=nodad ;; *) nodad= ;; esac
    ip address add $address dev lo $nodad
done
cp -r SANDBOX/srv/. /srv/
ln -s bios/pxelinux.0 /srv/tftp/pxelinux.0
chmod 777 /srv/tftp
mkdir -p /etc/tftpd /run/tftpd /var/lib/tftpd
sed -i '/^tftpd:/d' /etc/passwd /etc/group
cp SANDBOX/configuration.yaml /etc/tftpd/tftpd.yaml
touch /var/lib/tftpd/trace.pcap
printf 'rg \\\\\\\\ /\nri ^boot/ \n' > /etc/tftpd.map
mount -t tmpfs tmpfs /usr/share/doc
mkdir -p /usr/share/doc/tftpd-twisted/examples
cp -r CHECKOUT/conf/systemd/tftpd.service.d /usr/share/doc/tftpd-twisted/examples
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Exit status and output of a block."""

    status: int
    output: str
    errors: str


def run_blocks(
    directory: Path, blocks: Sequence[Block], daemon: str = "", logged: Sequence[str] = ()
) -> dict[Block, Outcome]:
    """Run the blocks of a page one after the other in a sandbox.

    A YAML block becomes /etc/tftpd/tftpd.yaml for the blocks that follow. Sections without
    directories are added to `CONFIGURATION`. A template with its name is written below /srv/tftp.
    A Python block whose first line is `# NAME.py` is also a file; with ` 续` after the name
    it is appended to that file, and the whole file runs.

    Args:
        directory: Empty directory for the files of the sandbox.
        blocks: Blocks of the languages sh, console, python, yaml, and jinja with a name.
        daemon: Configuration of a daemon that is started before the first block.
            `lesson.yaml` is the first YAML block.
        logged: Regular expressions of lines that the daemon logs before it is stopped.
    """
    for name in ("unshare", "ip", "curl", "jq"):
        program(name)
    if os.getuid() != 0:
        pytest.skip("only root can create network and mount namespaces")
    text = "".join(block.text for block in blocks if block.language != "yaml")
    if "qemu-system" in text:
        for name in ("dnsmasq", "/usr/bin/qemu-system-x86_64"):
            program(name)
        for name in ("ovmf/OVMF.fd", "debian-installer/images/12"):
            if not any(Path(parent, name).exists() for parent in ("/usr/share", "/usr/lib")):
                program(name)  # skips, or fails in CI
    _fill(directory)
    programs: dict[Block, str] = {}
    for block in blocks:
        name = re.match(r"# (\w+[.]py)( 续)?\n", block.text)
        if name and block.language == "python":
            file = directory / "home" / name[1]
            programs[block] = (f"{file.read_text()}\n\n" if name[2] else "") + block.text
            file.write_text(programs[block])
        if block.language == "yaml" and not (directory / "home/lesson.yaml").exists():
            (directory / "home/lesson.yaml").write_text(block.text)
    script = ENTER
    if "tftpd init" in text:
        script += "rm /etc/tftpd/tftpd.yaml\n"
    if "useradd" not in text:
        script += _USER
    if daemon:
        script += _start(daemon)
    elif "enable --now tftpd.service" in text and "tftpc" in text:
        starts = _start("/etc/tftpd/tftpd.yaml", "SANDBOX/unit.log")
        (directory / "starts").write_text(_fill_in(starts, directory))
    if "status.sock" in text:
        script += _start("SANDBOX/socket.yaml")
    for number, block in enumerate(blocks):
        (directory / f"block{number}").write_text(programs.get(block, _to_script(block)))
        if block.language == "jinja":
            name = template_name(block)
            script += f"mkdir -p $(dirname /srv/tftp/{name})\n"
            script += f"cp SANDBOX/block{number} /srv/tftp/{name}\n"
            continue
        if block.language == "yaml":
            whole = "\ndirectories:" in f"\n{block.text}"
            source = "" if whole else "SANDBOX/configuration.yaml "
            script += f"cat {source}SANDBOX/block{number} >/etc/tftpd/tftpd.yaml\n"
            continue
        runner = {"python": "PYTHON"}.get(block.language, "bash -e -o pipefail")
        # `tftpd.yaml` in a command is the configuration, from whatever directory.
        script += f"""
cd SANDBOX/home; [ ! -e /etc/tftpd/tftpd.yaml ] || cp /etc/tftpd/tftpd.yaml .
set +e
{runner} SANDBOX/block{number} >SANDBOX/out{number} 2>SANDBOX/err{number} </dev/null
echo $? >SANDBOX/status{number}
set -e
"""
    for line in logged:
        script += f"for i in $(seq 400); do grep -qP {shlex.quote(line)} {daemon}.log && break; "
        script += "sleep 0.05; done\n"
    script_file = directory / "script"
    script_file.write_text(_fill_in(script, directory))
    environment = {
        "PATH": f"{directory}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(directory / "home"),
        "VIRTUAL_ENV": str(CHECKOUT),
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": f"{READABLE}:{CHECKOUT}:{directory}/home",
        "PYTHONUNBUFFERED": "1",
    }
    enter = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    done = subprocess.run(
        [*enter, "bash", str(script_file)],
        capture_output=True,
        text=True,
        timeout=MAX_SECONDS,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        block: Outcome(
            int((directory / f"status{number}").read_text()),
            (directory / f"out{number}").read_text(),
            (directory / f"err{number}").read_text(),
        )
        for number, block in enumerate(blocks)
        if block.language not in ("yaml", "jinja")
    }


def template_name(block: Block) -> str | None:
    """Return the file name in the comment at the beginning of a template."""
    found = re.match(r"(?:#!ipxe\n)?\{# (\S+[.]j2) #\}\n", block.text)
    return found[1] if found and block.language == "jinja" else None


_USER = """
echo 'tftpd:x:998:998::/:/usr/sbin/nologin' >> /etc/passwd
echo 'tftpd:x:998:' >> /etc/group
"""


def _start(config: str, log: str = "") -> str:
    """Return the commands that start a daemon and wait until it serves."""
    log = log or f"{config}.log"
    return f"""
cd SANDBOX
PYTHON -m tftpd.daemon.cli run --config {config} >{log} 2>&1 &
for attempt in $(seq 400); do
    grep -q 'serving on' {log} && break
    kill -0 $! || {{ cat {log}; exit 1; }}
    sleep 0.05
done
"""


def _fill(directory: Path) -> None:
    """Write the files of the sandbox."""
    tftp = directory / "srv/tftp"
    (directory / "srv/backups").mkdir(parents=True)
    (directory / "srv/incoming").mkdir()
    shutil.copytree(CHECKOUT / "srv/tftp", tftp)
    (tftp / "bios").mkdir()
    for name in ("incoming", "backups", "boot"):
        (tftp / name).mkdir(exist_ok=True)
        (tftp / name).chmod(0o777)
    (tftp / "bios/pxelinux.0").write_bytes(bytes(42864))
    for name in ("ldlinux.c32", "alive", "x", "a", "b", "c"):
        (tftp / name).write_bytes(name.encode() * 300)
    for number in range(1, 21):
        (tftp / f"backups/r{number:02}.cfg").write_text(f"hostname r{number}\n")
    (tftp / "default").mkdir()
    (tftp / "default/start4.elf").write_bytes(bytes(2000))
    (tftp / "X").mkdir()
    (tftp / "X/grubx64.efi").write_bytes(b"grub" * 300)
    (tftp / "boot/BCD").write_bytes(bytes(28672))
    (tftp / "vmlinuz").write_bytes(os.urandom(200_000))
    (tftp / "empty").touch()
    (tftp / "r1.cfg").write_text("hostname r1\n")
    home = directory / "home"
    (home / ".venv").mkdir(parents=True)
    (home / ".venv/bin").symlink_to(directory / "bin")
    (home / "boot").mkdir()
    for name, text in {
        "router1.cfg": "hostname router1\n",
        "fw.bin": "firmware\n",
        "r1.cfg": "hostname r1\n",
        "r2.cfg": "r2\n",
        "d": "d\n",
        "commands": "get hello.txt\n",
    }.items():
        (home / name).write_text(text)
    for name in ("share", "tests", "setup.cfg"):
        (home / name).symlink_to(CHECKOUT / name)
    for name in ("conf", "srv"):
        shutil.copytree(CHECKOUT / name, home / name)
    (directory / "packages").write_text(PACKAGES)
    (directory / "configuration.yaml").write_text(CONFIGURATION)
    (directory / "served.yaml").write_text(_fill_in(SERVED, directory))
    (directory / "socket.yaml").write_text(SOCKET)
    scripts = directory / "bin"
    scripts.mkdir()
    for name, text in {**{n: t for n, (_, t) in SUBSTITUTES.items()}, **PROGRAMS}.items():
        (scripts / name).write_text("#!/bin/sh\n" + _fill_in(text, directory) + "\n")
    (scripts / "serve").write_text(_fill_in(SERVE, directory))
    for script in scripts.iterdir():
        script.chmod(0o755)


def _fill_in(text: str, directory: Path) -> str:
    return (
        text.replace("SANDBOX", str(directory))
        .replace("CHECKOUT", str(CHECKOUT))
        .replace("READABLE", READABLE)
        .replace("PYTHON ", f"{sys.executable} ")
        .replace("#!PYTHON", f"#!{sys.executable}")
        .replace("ADDRESSES", shlex.join(ADDRESSES))
    )


def read_console(text: str) -> list[tuple[str, str]]:
    """Return the commands of a console block, each with the output that the block shows."""
    found: list[tuple[str, str]] = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = re.sub(r"\\\n", "\0", part).partition("\n")
        found.append((command.replace("\0", "\\\n"), output))
    return found


def _to_script(block: Block) -> str:
    if block.language != "console":
        return block.text
    # Errors are shown, as on a terminal; the exit status of the last command stays in `$?`.
    script = "exec 2>&1\nset +e +u\n"
    for command, _ in read_console(block.text):
        script += f"{command}\nstatus=$?\necho '{SEPARATOR}'\n(exit $status)\n"
    return script + "true\n"


SEPARATOR = "--- next command ---"
