"""Transfers with windows over a lossy line and over a slow line."""

import os
from contextlib import contextmanager

import pytest

from bench import load
from bench.job import Job
from bench.relay import Line, Relay
from tests.support.daemons import daemon

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
        yield relay, Job(*relay.address, "file", name, 1468, 64, gather=True, limit=60)


def test_a_read_is_intact_if_one_packet_of_a_hundred_is_lost(running):
    with _through(running, Line(drop_down=0.01, drop_up=0.01, seed=7)) as (relay, job):
        result = load.run(job, 1)
        assert (result.ok, result.octets, result.failures) == (1, 2 * MIB, [])
        assert relay.down.lost > 0


def test_a_read_is_intact_behind_a_queue_of_one_window(running):
    with _through(running, Line(rate=10e6, queue=64)) as (_, job):
        result = load.run(job, 1)
        assert (result.ok, result.octets, result.failures) == (1, 2 * MIB, [])
