"""Selection of the data plane by TFTPD_DATAPLANE, and the places that name it."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.support.daemons import CHECKOUT, daemon
from tftpd import __version__, dataplane

TFTPD = "from tftpd.daemon.cli import main; raise SystemExit(main())"
TFTPC = "from tftpd.client.cli import main; raise SystemExit(main())"
TWISTD = "from twisted.scripts.twistd import run; run()"
WITHOUT_EXTENSION = "import sys; sys.modules['tftpd.dataplane._native'] = None; "


def _run(program, *arguments, selected):
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "TFTPD_DATAPLANE": selected}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.check
@pytest.mark.parametrize(
    ("name", "command"),
    [("tftpd", (TFTPD,)), ("tftpd", (TWISTD, "tftp")), ("tftpc", (TFTPC,))],
    ids=["tftpd", "twistd", "tftpc"],
)
def test_the_version_names_the_data_plane(name, command):
    ended = _run(*command, "--version", selected="python")
    assert ended.returncode == 0
    assert ended.stdout == f"{name} {__version__} (data plane: python)\n"


@pytest.mark.check
def test_without_a_selection_the_extension_is_used_if_it_is_installed():
    name = "C" if find_spec("tftpd.dataplane._native") else "python"
    for program, expected in ((TFTPD, name), (WITHOUT_EXTENSION + TFTPD, "python")):
        assert f"(data plane: {expected})" in _run(program, "--version", selected="").stdout


def test_an_unknown_data_plane_is_an_error_at_the_start():
    ended = _run(TFTPD, "run", str(CHECKOUT / "conf/tftpd.yaml"), selected="c")
    assert ended.returncode == 78
    assert ended.stderr == 'TFTPD_DATAPLANE: expected "C" or "python", got "c"\n'


@pytest.mark.parametrize("words", [("get", "tftp://127.0.0.1:9/x"), ("127.0.0.1", "9")])
def test_an_unknown_data_plane_is_an_error_of_the_client(words):
    ended = _run(TFTPC, *words, selected="c")
    assert ended.returncode == 2
    assert ended.stderr == 'tftpc: TFTPD_DATAPLANE: expected "C" or "python", got "c"\n'


def test_the_data_plane_in_c_is_an_error_without_the_extension():
    config = str(CHECKOUT / "conf/tftpd.yaml")
    ended = _run(WITHOUT_EXTENSION + TFTPD, "run", config, selected="C")
    assert ended.returncode == 78
    assert ended.stderr.startswith("TFTPD_DATAPLANE=C: the extension cannot be loaded: import of ")


@pytest.mark.check
@pytest.mark.parametrize("workers", [1, 2])
def test_the_log_names_the_data_plane_once(tmp_path, workers):
    with daemon(tmp_path, workers=workers) as running:
        events = [event for event in running.events() if event.get("event") == "data_plane"]
    assert [(event["name"], event["message"]) for event in events] == [
        (dataplane.NAME, f"data plane: {dataplane.NAME}")
    ]
