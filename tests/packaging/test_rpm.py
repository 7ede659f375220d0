"""RPM package: it builds, it installs, and its daemon serves."""

import os
import re
import signal
import subprocess
import sys
import sysconfig

import pytest

from tests.support.daemons import CHECKOUT, free_port
from tests.support.plain import get
from tests.support.programs import program
from tftpd import __version__

pytestmark = pytest.mark.xdist_group("RPM package")  # one process builds it

SPEC = (CHECKOUT / "packaging/tftpd.spec").read_text()
LIMIT = 300


def _run(*command, **how):
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, env=environment, **how
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Build the package; return its path."""
    for name in ("rpmbuild", "rpm2cpio", "cpio", "gcc"):
        program(name)
    directory = tmp_path_factory.mktemp("rpm")
    _run(str(CHECKOUT / "packaging/rpm"), str(directory), cwd="/")
    (path,) = set(directory.glob("tftpd-twisted-[0-9]*.rpm")) - set(directory.glob("*.src.rpm"))
    return path


@pytest.fixture(scope="module")
def files(package):
    """Unpack the package; return the directory."""
    root = package.parent / "root"
    root.mkdir()
    _run("sh", "-c", f"rpm2cpio {package} | cpio --extract --make-directories --quiet", cwd=root)
    return root


def _query(package, *options):
    return _run("rpm", "--query", "--package", *options, str(package)).splitlines()


def test_the_package_has_the_version_of_tftpd():
    assert f"\nVersion:        {__version__}\n" in SPEC
    assert SPEC.partition("%changelog\n")[2].splitlines()[0].endswith(f" - {__version__}-1")


def test_the_package_recommends_the_libraries_of_the_extras():
    text = (CHECKOUT / "setup.cfg").read_text()
    for name in ("urllib3", "pyopenssl", "service-identity"):
        bound = re.search(rf"^\s+{name}>=(\S+)$", text, re.MULTILINE)[1].removesuffix(".0")
        assert f"\nRecommends:     python3dist({name}) >= {bound}\n" in SPEC


def test_the_tests_of_the_build_are_those_of_the_debian_package():
    rules = (CHECKOUT / "debian/rules").read_text()
    folders = re.findall(r"\{dir\}/(tests/\w+)", rules)
    assert folders == re.findall(r" (tests/\w+)(?= |\n)", SPEC.partition("%check\n")[2])


@pytest.mark.check
def test_files_are_installed_in_the_directories_of_fedora(package, files):
    (packages,) = files.glob("usr/lib*/python3.*/site-packages")
    listed = _query(package, "--list")
    for place in (
        "etc/tftpd/tftpd.yaml", "usr/bin/tftpc", "usr/bin/tftpd",
        f"{packages}/tftpd/daemon/service.py", f"{packages}/tftpd/dataplane/_native.abi3.so",
        f"{packages}/twisted/plugins/tftpd_plugin.py",
        "usr/lib/systemd/system/tftpd.service", "usr/lib/systemd/system/tftpd@.socket",
        "usr/share/bash-completion/completions/tftpc",
        "usr/share/doc/tftpd-twisted/examples/backups.yaml",
        "usr/share/doc/tftpd-twisted/examples/tftpd.service.d/socket.conf",
        "usr/share/fish/vendor_completions.d/tftpc.fish",
        "usr/share/man/man8/tftpd.8.gz", "usr/share/zsh/site-functions/_tftpc",
    ):  # fmt: skip
        assert (files / place).is_file()
        assert f"/{(files / place).relative_to(files)}" in listed
    assert not [name for name in listed if name.startswith("/srv") or "/tests/" in name]
    assert not [name for name in listed if re.search(r"twisted/(plugins/)?__init__", name)]


@pytest.mark.check
def test_the_package_requires_the_libraries_of_setup_cfg(package):
    requires = " ".join(_query(package, "--requires"))
    section = (CHECKOUT / "setup.cfg").read_text().partition("\ninstall_requires =\n")[2]
    lines = section.partition("\n\n")[0].split()
    assert len(lines) == 6
    for name, _, bound in (line.partition(">=") for line in lines):
        assert re.search(rf"dist\({name}\) >= {re.escape(bound.removesuffix('.0'))}\b", requires)
    assert _query(package, "--conflicts") == ["tftp-server"]


@pytest.mark.check
def test_rpm_knows_the_configuration_and_the_licence(package):
    lines = _query(package, "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]")
    flags = dict(line.rsplit(" ", 1) for line in lines)
    assert flags["/etc/tftpd/tftpd.yaml"] == "cn"  # a configuration, noreplace
    assert [name.rpartition("/")[2] for name, flag in flags.items() if flag == "l"] == ["LICENSE"]


@pytest.mark.check
def test_the_daemon_of_the_package_serves(files, tmp_path):
    port = free_port()
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "t.yaml").write_text(
        f"listen: [{{address: 127.0.0.1, port: {port}}}]\ndirectories: [{{root: ., read: true}}]\n"
    )
    (packages,) = files.glob("usr/lib*/python3.*/site-packages")
    environment = {
        **os.environ, "PYTHONPATH": f"{packages}:{sysconfig.get_path('purelib')}",
    }  # fmt: skip
    program_file = files / "usr/bin/tftpd"
    assert program_file.read_text().startswith("#!/usr/bin/python3 ")
    command = [sys.executable, "-sP", str(program_file)]
    process = subprocess.Popen(
        [*command, "run", "--config", str(tmp_path / "t.yaml")],
        cwd="/", env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output = b""
        while b"serving on" not in output:
            line = process.stdout.readline()
            assert line, output.decode()
            output += line
        assert b"data plane: C\n" in output
        assert get(port, b"file") == b"content"
    finally:
        process.terminate()
        assert process.wait(20) in (0, -signal.SIGTERM)
        process.stdout.close()


# The database of rpm is a new one: that of Debian has no packages, and rpm warns of its use.
INSTALL = """\
mount -t tmpfs tmpfs /mnt
for directory in usr etc var; do
    mkdir -p /mnt/$directory.new /mnt/$directory.tmp
    mount -t overlay overlay /$directory \\
        -o lowerdir=/$directory,upperdir=/mnt/$directory.new,workdir=/mnt/$directory.tmp
done
mount -t tmpfs tmpfs /srv
rm -rf /etc/tftpd
rpm() { command rpm $(command rpm --help | grep -o -m1 -e --force-debian) --dbpath /mnt/db "$@"; }
export PYTHONPATH=$2
rpm --install --nodeps $1
find /srv -mindepth 1
grep -a -o -m1 tftpd_plugin $2/twisted/plugins/dropin.cache
rpm --verify --nodeps tftpd-twisted
echo '# changed' >> /etc/tftpd/tftpd.yaml
ln -s ../tftpd@.service /etc/systemd/system/multi-user.target.wants/tftpd@lab.service
rmdir /srv/tftp
echo upgrade
rpm --upgrade --replacepkgs --replacefiles --nodeps $1
tail -n1 /etc/tftpd/tftpd.yaml
find /srv -mindepth 1
ls -d $2/twisted/plugins/*
echo erase
rpm --erase tftpd-twisted
tail -n1 /etc/tftpd/*
find /usr/bin/tftp[cd] /usr/lib/systemd/system/tftpd* /etc/systemd/system/*/tftpd* $2/*tftpd* \\
    $2/twisted 2>/dev/null || true
"""
INSTALLED = """\
/srv/tftp
tftpd_plugin
upgrade
# changed
{packages}/twisted/plugins/dropin.cache
{packages}/twisted/plugins/tftpd_plugin.py
erase
# changed
"""


@pytest.mark.check
def test_the_package_installs_and_leaves_only_the_changed_configuration(package, files):
    """A mount namespace has the changes of rpm and of the scripts of the package."""
    if os.getuid() != 0:
        pytest.skip("only root can mount an overlay")
    (packages,) = files.glob("usr/lib*/python3.*/site-packages")
    place = f"/{packages.relative_to(files)}"
    output = _run("unshare", "--mount", "bash", "-e", "-c", INSTALL, "-", str(package), place)
    assert output == INSTALLED.format(packages=place)
