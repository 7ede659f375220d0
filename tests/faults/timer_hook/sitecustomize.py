"""Loaded by each watched daemon: on SIGUSR2 it writes the number of its timers to a file.

The kernel knows the descriptors and threads of a process; only the process knows its timers. The
file is named by the process ID, in the directory TIMER_COUNTS.
"""

import os
import signal
import sys


def _write_timer_count(*_: object) -> None:
    reactor = sys.modules.get("twisted.internet.reactor")
    calls = reactor.getDelayedCalls() if reactor is not None else []
    name = os.path.join(os.environ["TIMER_COUNTS"], str(os.getpid()))
    with open(name + ".new", "w") as file:
        file.write(str(len(calls)))
    os.rename(name + ".new", name)


if "TIMER_COUNTS" in os.environ:
    signal.signal(signal.SIGUSR2, _write_timer_count)
