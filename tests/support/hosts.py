"""Hosts for tests: network namespaces, each held by a process."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.support.daemons import CHECKOUT, until
from tests.support.programs import program

LIMIT = 30  # seconds for any one program
ENVIRONMENT = dict(os.environ, PYTHONPATH=str(CHECKOUT))

_CLONE_NEWNET = 0x40000000  # <sched.h>
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Host:
    """Network namespace of the process `pid`."""

    pid: int

    def run(self, *command: str, **how: object) -> "subprocess.CompletedProcess[bytes]":
        """Run a program in the namespace. Its exit status must be 0."""
        done = self.attempt(*command, **how)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def attempt(self, *command: str, **how: object) -> "subprocess.CompletedProcess[bytes]":
        """Run a program in the namespace, with any exit status."""
        return subprocess.run(
            self.enter(*command), capture_output=True, timeout=LIMIT, env=ENVIRONMENT, **how
        )

    def enter(self, *command: str) -> list[str]:
        """Return the command line that runs a program in the namespace."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Create sockets of this thread in the namespace during the block."""
        with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{self.pid}/ns/net") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(ours.fileno())


@contextmanager
def host() -> Iterator[Host]:
    """Create a host that has only a loopback interface, or skip the test."""
    for name in ("ip", "unshare", "nsenter"):
        program(name)
    if os.getuid() != 0:
        pytest.skip("only root can create network namespaces")
    process = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
    try:
        ours = os.readlink("/proc/self/ns/net")
        until(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != ours)
        here = Host(process.pid)
        here.run("ip", "link", "set", "lo", "up")
        yield here
    finally:
        process.kill()
        process.communicate()


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
