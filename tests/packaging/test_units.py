"""Units checked by systemd-analyze: valid keys, and the exposure of the daemon."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.daemons import CHECKOUT
from tests.support.programs import program
from tftpd.config.loader import load_settings

SHIPPED = CHECKOUT / "tftpd/daemon/units"
DROP_IN = "tftpd.service.d/socket.conf"
HOST = [Path("/usr/lib/systemd/system"), Path("/lib/systemd/system")]


@pytest.fixture
def analyze():
    """Run systemd-analyze."""
    path = program("systemd-analyze")
    return lambda *arguments: subprocess.run(
        [path, *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def tree(tmp_path):
    """Create a root directory with the units, their dependencies and their programs."""
    units = tmp_path / "etc/systemd/system"
    shutil.copytree(SHIPPED, units)
    system = tmp_path / "usr/lib/systemd/system"
    system.mkdir(parents=True)
    host = next(path for path in HOST if path.is_dir())
    for unit in [*host.glob("*.target"), *host.glob("*.slice")]:
        shutil.copy(unit, system)
    for name in ("usr/bin/tftpd", "bin/kill"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(mode=0o755)
    return tmp_path


@pytest.mark.check
@pytest.mark.parametrize("socket", [False, True], ids=["alone", "socket"])
@pytest.mark.parametrize(
    "unit", ["tftpd.service", "tftpd.socket", "tftpd@lab.service", "tftpd@192.0.2.1.socket"]
)
def test_systemd_accepts_the_units(analyze, tree, unit, socket):
    if not socket:
        shutil.rmtree(tree / "etc/systemd/system/tftpd.service.d")
    verified = analyze("verify", "--man=no", f"--root={tree}", unit)
    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.check
def test_systemd_reports_a_misspelt_key(analyze, tree):
    """Shows that the previous test can fail."""
    unit = tree / "etc/systemd/system/tftpd.service"
    unit.write_text(unit.read_text().replace("WatchdogSec", "WatchdogSecs"))
    verified = analyze("verify", f"--root={tree}", "tftpd.service")
    assert "'WatchdogSecs'" in verified.stderr


@pytest.mark.check
@pytest.mark.parametrize(
    ("unit", "socket", "max_exposure"),
    [("tftpd.service", False, 1.3), ("tftpd.service", True, 1.0), ("tftpd@.service", False, 1.3)],
)
def test_the_exposure_of_the_daemon_is_low(analyze, tmp_path, unit, socket, max_exposure):
    shutil.copy(SHIPPED / unit, tmp_path)
    if socket:
        shutil.copytree(SHIPPED / "tftpd.service.d", tmp_path / "tftpd.service.d")
    path = str(tmp_path / unit)
    done = analyze("security", "--offline=true", f"--threshold={round(max_exposure * 10)}", path)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= max_exposure
    assert done.returncode == 0


def test_the_units_in_conf_are_those_of_the_package():
    names = {path.relative_to(SHIPPED) for path in SHIPPED.rglob("*") if path.is_file()}
    assert len(names) == 6
    for name in names:
        link = CHECKOUT / "conf/systemd" / name
        assert link.read_text() == (SHIPPED / name).read_text()


def _settings(name):
    lines = (SHIPPED / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_template_unit_differs_from_the_unit_in_names_only():
    template = [line.replace(" for %i", "").replace("tftpd@%i", "tftpd") for line in
                _settings("tftpd@.service")]  # fmt: skip
    assert [line.replace("%i", "tftpd") for line in template] == _settings("tftpd.service")


def test_the_configuration_of_the_service_is_valid(tmp_path):
    text = (SHIPPED / "tftpd.yaml").read_text()
    # An administrator may enable the settings that are commented out.
    text = re.sub(r"^( *)#(\S| *\S+:( |$)|  - )", r"\1\2", text, flags=re.MULTILINE)
    for root in ("srv/tftp", "var/lib/tftpd/upload"):
        (tmp_path / root).mkdir(parents=True)
        text = text.replace(f"/{root}", str(tmp_path / root))
    for name, content in (("plain", (SHIPPED / "tftpd.yaml").read_text()), ("full", text)):
        config = tmp_path / f"{name}.yaml"
        config.write_text(content.replace(" /srv/tftp", f" {tmp_path}/srv/tftp"))
        assert load_settings(config).build_mounts()
    assert load_settings(tmp_path / "full.yaml").build_mounts()[1].write is not None
