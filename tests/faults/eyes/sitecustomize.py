"""Loaded by each daemon under watch: on SIGUSR2 it tells what its reactor waits for.

The kernel knows descriptors and threads of a process; of timers only it knows
itself. The answer goes to a file named by its process, in the directory EYES.
"""

import os
import signal
import sys


def _tell(*_: object) -> None:
    reactor = sys.modules.get("twisted.internet.reactor")
    calls = reactor.getDelayedCalls() if reactor is not None else []
    name = os.path.join(os.environ["EYES"], str(os.getpid()))
    with open(name + ".new", "w") as file:
        file.write(str(len(calls)))
    os.rename(name + ".new", name)


if "EYES" in os.environ:
    signal.signal(signal.SIGUSR2, _tell)
