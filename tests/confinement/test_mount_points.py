"""File systems that are mounted below the root, in a separate mount namespace."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.confinement.mounting import NAMES
from tests.confinement.world import INSIDE, PLANTED, SECRET

CHECKOUT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root mounts"
)


@pytest.fixture
def told(confined):
    unshare = ["unshare", "--mount", "--propagation", "private"]
    asked = subprocess.run(
        [*unshare, sys.executable, "-m", "tests.confinement.mounting", str(confined.base)],
        cwd=CHECKOUT,
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        capture_output=True,
        timeout=60,
        check=False,
    )
    if b"mount" in asked.stderr and asked.returncode:
        pytest.skip(f"nothing can be mounted here: {asked.stderr[-200:]!r}")
    assert asked.returncode == 0, asked.stderr.decode()
    return json.loads(asked.stdout)


def test_a_mount_point_is_served_and_its_parent_is_the_root(confined, told):
    """A bind mount inside the root is followed; links inside it that leave the root are not."""
    allowed = dict.fromkeys(("bound/secret", "bound-file"), SECRET)
    inside = dict.fromkeys(("bound/up/file", "over/up/file"), INSIDE[b"file"])
    served = {name: said.encode() for name, said in told["read"].items() if said is not None}
    assert served == allowed | inside
    assert set(told["read"]) == set(NAMES)


def test_nothing_is_written_to_mounted_system_files(confined, told):
    assert not told["planted"]
    assert (confined.outside / "planted").read_bytes() == PLANTED  # bound: a directory of the root
    assert not (confined.base / "planted").exists()
