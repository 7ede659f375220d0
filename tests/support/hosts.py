"""Simulated hosts: network namespaces, each kept alive by a process."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.support.daemons import CHECKOUT, until
from tests.support.programs import program

LIMIT = 30  # seconds for a program
ENVIRONMENT = dict(os.environ, PYTHONPATH=str(CHECKOUT))

_CLONE_NEWNET = 0x40000000  # <sched.h>
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace, identified by the process that keeps it alive."""

    pid: int

    def run(self, *command: str, **options: object) -> "subprocess.CompletedProcess[bytes]":
        """Run a program in the namespace; it must succeed."""
        done = self.attempt(*command, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def attempt(self, *command: str, **options: object) -> "subprocess.CompletedProcess[bytes]":
        """Run a program in the namespace, whatever its exit status."""
        return subprocess.run(
            self.enter(*command), capture_output=True, timeout=LIMIT, env=ENVIRONMENT, **options
        )

    def enter(self, *command: str) -> list[str]:
        """Return the command line that runs a program in the namespace."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Create this thread's sockets in the namespace, where they stay afterwards."""
        with open("/proc/thread-self/ns/net") as own, open(f"/proc/{self.pid}/ns/net") as other:
            _enter(other.fileno())
            try:
                yield
            finally:
                _enter(own.fileno())


@contextmanager
def host() -> Iterator[Host]:
    """Create a host without network links, or skip the test."""
    for name in ("ip", "unshare", "nsenter"):
        program(name)
    if os.getuid() != 0:
        pytest.skip("only root can create network namespaces")
    process = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
    try:
        own = os.readlink("/proc/self/ns/net")
        until(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != own)
        created = Host(process.pid)
        created.run("ip", "link", "set", "lo", "up")
        yield created
    finally:
        process.kill()
        process.communicate()


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
