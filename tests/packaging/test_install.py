"""The sdist, the wheel built from it, and an installation in a new virtual environment."""

import os
import platform
import signal
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest

from tests.support.daemons import CHECKOUT, free_port, until
from tests.support.plain import get
from tests.support.programs import library, program

# One process builds the files.
pytestmark = [pytest.mark.check, pytest.mark.xdist_group("installation")]

LIMIT = 300


def _run(*command, **how):
    how.setdefault("env", {**os.environ, "PYTHONPATH": ""})
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, **how)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Build the sdist and a wheel as `make dist` does, and check them as the package index does."""
    library("twine")
    directory = tmp_path_factory.mktemp("dist")
    environment = {**os.environ, "PYTHONPATH": "", "PYTHON": sys.executable}
    _run(str(CHECKOUT / "packaging/dist"), str(directory), cwd="/", env=environment)
    return directory


@pytest.fixture(scope="module")
def sdist(dist):
    (path,) = dist.glob("tftpd-*.tar.gz")
    return path


def _build_wheel(sdist, directory, modified=1_000_000_000, **variables):
    """Build a wheel from the sdist, whose files get the time of modification `modified`."""
    with tarfile.open(sdist) as archive:
        # Python 3.11.2 does not support `filter=`; Python 3.13 warns if there is no filter.
        archive.extraction_filter = lambda member, path: member
        archive.extractall(directory)
    (source,) = directory.iterdir()
    for path in source.rglob("*"):
        os.utime(path, (modified, modified))
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": "", "SOURCE_DATE_EPOCH": "1700000000"}
    environment.update(variables)
    _run(sys.executable, "-c", build, str(directory), cwd=source, env=environment)
    (path,) = directory.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Build the wheel from the sdist."""
    return _build_wheel(sdist, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python_wheel(sdist, tmp_path_factory):
    """Build the wheel without a compiler."""
    return _build_wheel(sdist, tmp_path_factory.mktemp("python"), CC="/bin/false")


def _install(wheel):
    """Install a wheel into a new virtual environment, without its dependencies."""
    venv = wheel.parent / "venv"
    _run(sys.executable, "-m", "venv", str(venv))
    _run(str(venv / "bin/pip"), "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    return venv


@pytest.fixture(scope="module")
def installed(wheel):
    """Install the wheel."""
    return _install(wheel)


@pytest.fixture
def environment():
    """Return variables with which the new environment uses the libraries of this one."""
    return dict(os.environ, PYTHONPATH=sysconfig.get_path("purelib"))


def test_the_same_source_gives_an_identical_wheel(sdist, wheel, tmp_path):
    again = _build_wheel(sdist, tmp_path / "again", 1_600_000_000)
    assert again.read_bytes() == wheel.read_bytes()


def test_the_wheel_of_make_dist_is_that_of_the_commit(dist, sdist, tmp_path):
    """The time of the commit is the time of all files in the wheel."""
    if not (CHECKOUT / ".git").exists():
        pytest.skip("an sdist has no commit")
    (wheel,) = dist.glob("tftpd-*.whl")
    time = _run("git", "log", "-1", "--format=%ct", cwd=CHECKOUT).strip()
    again = _build_wheel(sdist, tmp_path / "again", SOURCE_DATE_EPOCH=time)
    assert again.read_bytes() == wheel.read_bytes()


def test_the_sdist_has_the_files_that_tests_and_users_need(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "setup.cfg", "setup.py", "README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "Makefile",
        "requirements/ci.txt", "requirements/bounds.py", "conf/tftpd.yaml",
        "conf/examples/pxe.yaml", "conf/systemd/tftpd.service",
        "tests/support/fakes.py", "tests/protocol/cases/edk2.txt",
        "tftpd/dataplane/_native.c", "tftpd/dataplane/_native.pyi",
        "twisted/plugins/tftpd_plugin.py", "docs/reference/rfc.md", "srv/tftp/hello.txt",
        ".ci/run", ".github/workflows/ci.yml", "packaging/dist", "packaging/tftpd.spec",
        "docs/conf.py", "docs/reference/tftpc.md", "share/man/man1/tftpc.1",
    ):  # fmt: skip
        assert needed in names


def test_the_wheel_has_the_package_and_the_plugin_and_no_file_of_twisted(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "tftpd/py.typed" in names
    assert "tftpd/daemon/service.py" in names
    assert "tftpd/daemon/units/tftpd.service" in names
    assert "tftpd/daemon/units/tftpd.service.d/socket.conf" in names
    for page in ("index.html", "style.css", "script.js", "icon.svg"):
        assert f"tftpd/status/page/{page}" in names
    assert [name for name in names if name.startswith("twisted")] == [
        "twisted/plugins/tftpd_plugin.py"
    ]
    assert [name for name in names if name.startswith(("tests", "conf", "docs"))] == []


def test_one_wheel_has_the_extension_for_all_pythons_of_an_architecture(wheel):
    program("gcc")
    assert wheel.name.endswith(f"-cp311-abi3-linux_{platform.machine()}.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("tftpd/dataplane/_")}
    files = ("__init__.py", "_native.abi3.so", "_native.pyi")
    assert names == {f"tftpd/dataplane/{name}" for name in files}


def test_a_wheel_is_built_without_a_compiler_and_has_no_extension(wheel, python_wheel):
    program("gcc")
    with zipfile.ZipFile(wheel) as full, zipfile.ZipFile(python_wheel) as without:
        missing = set(full.namelist()) - set(without.namelist())
    assert missing == {"tftpd/dataplane/_native.abi3.so"}


def test_without_a_compiler_a_selected_extension_is_an_error(sdist, tmp_path):
    with pytest.raises(AssertionError, match=r"error: [Cc]ommand .*/bin/false"):
        _build_wheel(sdist, tmp_path / "wheel", CC="/bin/false", TFTPD_DATAPLANE="C")


def test_every_module_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packaged = {name for name in archive.namelist() if name.startswith("tftpd/")}
    modules = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "tftpd").rglob("*.py")}
    assert modules <= packaged


def test_an_installation_has_the_manual_pages_and_the_completions(installed):
    # Kubernetes and Prometheus read the other folders, and not on the host of the daemon.
    folders = ("man", "bash-completion", "zsh", "fish")
    files = [
        path
        for folder in folders
        for path in (CHECKOUT / "share" / folder).rglob("*")
        if path.is_file()
    ]
    assert CHECKOUT / "share/man/man8/tftpd.8" in files
    for path in files:
        assert (installed / path.relative_to(CHECKOUT)).read_bytes() == path.read_bytes()


def test_an_installation_without_a_compiler_has_the_data_plane_in_python(python_wheel, environment):
    tftpd = _install(python_wheel) / "bin/tftpd"
    version = _run(str(tftpd), "--version", cwd="/", env=environment)
    assert version.endswith(" (data plane: python)\n")


def test_an_installed_twistd_knows_the_plugin(installed, environment, tmp_path):
    run = "from twisted.scripts.twistd import run; run()"
    output = _run(str(installed / "bin/python"), "-c", run, "--help", cwd=tmp_path, env=environment)
    assert "A TFTP server." in output


def test_an_installed_program_installs_its_units(installed, environment, tmp_path):
    command = [str(installed / "bin/tftpd"), "install-units", "--root", str(tmp_path / "root")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
    # A service cannot use a Python in a home directory.
    inaccessible = "which services cannot access" in done.stderr
    assert done.returncode == inaccessible, done.stderr
    if not inaccessible:
        unit = tmp_path / "root/usr/local/lib/systemd/system/tftpd.service"
        assert f"ExecStart={installed}/bin/tftpd run " in unit.read_text()


def test_an_installed_daemon_serves_from_any_directory(installed, environment, tmp_path):
    port = free_port()
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "t.yaml").write_text(
        f"listen: [{{address: 127.0.0.1, port: {port}}}]\ndirectories: [{{root: ., read: true}}]\n"
    )
    command = [str(installed / "bin/tftpd"), "run", "--config", str(tmp_path / "t.yaml")]
    process = subprocess.Popen(command, cwd="/", env=environment, stdout=subprocess.PIPE)
    try:
        until(lambda: b"serving on" in process.stdout.readline())
        assert get(port, b"file") == b"content"
    finally:
        process.terminate()
        assert process.wait(20) in (0, -signal.SIGTERM)
        process.stdout.close()
