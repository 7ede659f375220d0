"""A coroutine under a reactor, in a process of its own."""

import os
import subprocess
import sys

from tests.support.daemons import CHECKOUT

PROGRAM = """
import sys
from twisted.internet import reactor
from tftpd.client.reactor_runner import run_reactor

async def work():
    raise ValueError("the reason")

sys.exit(run_reactor(reactor, work()))
"""


def test_an_unexpected_exception_is_printed_and_exits_with_1():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.rstrip().endswith(b"ValueError: the reason")
