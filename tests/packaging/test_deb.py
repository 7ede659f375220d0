"""Debian packages: they build for this release, pass lintian, and their daemon serves."""

import os
import subprocess
import tempfile

import pytest

from tests.support.daemons import CHECKOUT, free_port
from tests.support.plain import get
from tests.support.programs import program
from tftpd import __version__

pytestmark = pytest.mark.xdist_group("debian packages")  # one process builds them

LIMIT = 300
# Build dependencies are not checked: those of the tests and a compiler may be missing.
ENVIRONMENT = {
    **os.environ, "PYTHONPATH": "", "DEB_BUILD_OPTIONS": "nocheck", "DPKG_BUILDPACKAGE": "-d",
}  # fmt: skip


def _run(*command, **how):
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, env=ENVIRONMENT, **how
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Build the packages; return their directory."""
    for name in ("dpkg-buildpackage", "dh_python3", "lintian", "curl", "gcc"):
        program(name)
    directory = tmp_path_factory.mktemp("deb")
    _run(str(CHECKOUT / "packaging/deb"), str(directory), cwd="/")
    return directory


@pytest.fixture(scope="module")
def root(packages):
    """Unpack the packages into one directory."""
    root = packages / "root"
    for package in packages.glob("*.deb"):
        _run("dpkg", "-x", str(package), str(root))
    return root


def test_the_package_has_the_version_of_tftpd():
    changelog = (CHECKOUT / "debian/changelog").read_text()
    assert changelog.startswith(f"tftpd-twisted ({__version__}) ")


@pytest.mark.parametrize(
    ("name", "package"), [("pydantic", "python3-pydantic"), ("google-re2", "python3-re2")]
)
def test_the_lower_bounds_of_the_package_are_those_of_setup_cfg(name, package):
    (line,) = [
        line.strip()
        for line in (CHECKOUT / "setup.cfg").read_text().splitlines()
        if line.strip().startswith(f"{name}>=")
    ]
    # Debian's package of google-re2 1.1.20240702 has the version 20240702.
    version = line.removeprefix(f"{name}>=").removeprefix("1.1.")
    assert f"has {package} {version}" in (CHECKOUT / "packaging/deb").read_text()
    assert f"{package} (>= {version}) " in (CHECKOUT / "debian/control").read_text()


@pytest.mark.check
def test_the_package_depends_on_its_library_package_or_on_those_of_debian(packages):
    (package,) = packages.glob("tftpd-twisted_*.deb")
    depends = _run("dpkg", "--field", str(package), "Depends").strip().split(", ")
    names = {dependency.split(" ")[0] for dependency in depends}
    library_packages = list(packages.glob("tftpd-twisted-libs_*.deb"))
    expected = {"tftpd-twisted-libs"} if library_packages else {"python3-pydantic", "python3-re2"}
    assert expected <= names
    assert "python3-google-re2" not in names


@pytest.mark.check
def test_lintian_finds_no_error_and_no_warning(packages):
    (changes,) = packages.glob("*.changes")
    _run("lintian", "--allow-root", "--fail-on", "error,warning", str(changes))


@pytest.mark.check
def test_files_are_installed_in_the_directories_of_debian(root):
    for place in (
        "etc/tftpd/tftpd.yaml", "usr/bin/tftpc", "usr/bin/tftpd",
        "usr/lib/python3/dist-packages/tftpd/daemon/service.py",
        "usr/lib/python3/dist-packages/tftpd/dataplane/_native.abi3.so",
        "usr/lib/python3/dist-packages/tftpd/daemon/units/tftpd.service",
        "usr/lib/python3/dist-packages/twisted/plugins/tftpd_plugin.py",
        "usr/share/bash-completion/completions/tftpc",
        "usr/share/doc/tftpd-twisted/examples/backups.yaml",
        "usr/share/fish/vendor_completions.d/tftpc.fish",
        "usr/share/man/man8/tftpd.8.gz", "usr/share/zsh/vendor-completions/_tftpc",
    ):  # fmt: skip
        assert (root / place).is_file()
    assert list(root.glob("**/systemd/system/tftpd.service"))
    assert not list(root.glob("srv/*"))


@pytest.fixture
def status():
    """Return a path for a socket; its maximum length is 107 bytes."""
    with tempfile.TemporaryDirectory() as directory:
        yield f"{directory}/status"


@pytest.mark.check
def test_the_daemon_serves_with_the_libraries_of_the_release(root, tmp_path, status):
    if os.getuid() != 0:
        pytest.skip("only root can mount an overlay")
    port = free_port()
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "t.yaml").write_text(
        f"listen: [{{address: 127.0.0.1, port: {port}}}]\n"
        f"directories: [{{root: ., read: true}}]\nstatus: {{socket: {status}}}\n"
    )
    mount = f'mount -t overlay none -o "lowerdir={root}/usr:/usr" /usr && exec "$0" "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "/usr/bin/tftpd", "run", "--config"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "t.yaml")],
        cwd="/", env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output = b""
        while b"serving on" not in output:
            line = process.stdout.readline()
            assert line, output.decode()
            output += line
        assert b"data plane: C\n" in output
        assert get(port, b"file") == b"content"
        metrics = _run("curl", "--silent", "--unix-socket", status, "http://localhost/metrics")
        assert "\ntftpd_" in metrics
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
