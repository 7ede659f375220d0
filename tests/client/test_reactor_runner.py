"""A coroutine under a reactor that runs but once, in a process of its own."""

import os
import subprocess
import sys

from tests.support.daemons import CHECKOUT

FAULT = """
import sys
from twisted.internet import reactor
from tftpd.client.reactor_runner import run

async def work():
    return 1 // 0

sys.exit(run(reactor, work()))
"""


def test_a_fault_of_ours_is_shown_and_fails():
    done = subprocess.run(
        [sys.executable, "-c", FAULT],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.rstrip().endswith(b"ZeroDivisionError: integer division or modulo by zero")
