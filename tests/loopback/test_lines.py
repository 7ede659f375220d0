"""Transfers with windows over a lossy line and over a slow line."""

import os
from contextlib import contextmanager

import pytest

from bench.clients import Job
from bench.load import run_reads
from tests.support.daemons import daemon
from tests.support.relay import Link, Relay

MIB = 1 << 20


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon(tmp_path_factory.mktemp("lines")) as started:
        (started.root / "file").write_bytes(os.urandom(2 * MIB))
        yield started


@contextmanager
def _through(running, line):
    with Relay(("127.0.0.1", running.port), line) as relay:
        name = str(running.root / "file")
        yield relay, Job(*relay.address, "file", name, 1468, 64, limit=60)


def test_a_read_is_intact_if_one_packet_of_a_hundred_is_lost(running):
    with _through(running, Link(loss_down=0.01, loss_up=0.01, seed=7)) as (relay, job):
        result = run_reads(job)
        assert (result.ok, result.size, result.failures) == (1, 2 * MIB, [])
        assert relay.down.lost > 0


def test_a_read_is_intact_behind_a_queue_of_one_window(running):
    with _through(running, Link(rate=10e6, queue=64)) as (_, job):
        result = run_reads(job)
        assert (result.ok, result.size, result.failures) == (1, 2 * MIB, [])
