"""File systems that are mounted below the root, in a separate mount namespace."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.confinement.mount_namespace import NAMES
from tests.confinement.served_tree import INSIDE, PLANTED, SECRET

CHECKOUT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root can mount"
)


@pytest.fixture
def answers(tree):
    """Run the requests in a new mount namespace; return the result."""
    unshare = ["unshare", "--mount", "--propagation", "private"]
    done = subprocess.run(
        [*unshare, sys.executable, "-m", "tests.confinement.mount_namespace", str(tree.base)],
        cwd=CHECKOUT,
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        capture_output=True,
        timeout=60,
        check=False,
    )
    if b"mount" in done.stderr and done.returncode:
        pytest.skip(f"this process cannot mount: {done.stderr[-200:]!r}")
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_a_mount_point_is_served_and_its_parent_is_the_root(tree, answers):
    """A bind mount inside the root is followed; links inside it that leave the root are not."""
    allowed = dict.fromkeys(("bound/secret", "bound-file"), SECRET)
    inside = dict.fromkeys(("bound/up/file", "over/up/file"), INSIDE[b"file"])
    served = {
        name: content.encode() for name, content in answers["read"].items() if content is not None
    }
    assert served == allowed | inside
    assert set(answers["read"]) == set(NAMES)


def test_nothing_is_written_to_mounted_system_files(tree, answers):
    assert not answers["planted"]
    assert (tree.outside / "planted").read_bytes() == PLANTED  # a bind mount belongs to the root
    assert not (tree.base / "planted").exists()
