"""Each process gets a share of the bandwidth."""

from math import inf

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock

from tftpd.config.settings import Settings
from tftpd.server.server import ProcessServer


@pytest.fixture
def server():
    server = ProcessServer(reactor, lambda result: None)
    yield server
    server.stop()


def _settings(root, **keys):
    directory = {"root": str(root), "read": True}
    return Settings.model_validate({"directories": [directory], **keys})


@pytest.mark.parametrize(("workers", "share"), [(1, 1_000_000), (4, 250_000)])
def test_each_worker_gets_its_share(server, tmp_path, workers, share):
    limits = {"bandwidth": 1_000_000}
    config = server._make_config(_settings(tmp_path, workers=workers, limits=limits))
    assert [rate.bytes_per_second for rate in config.make_shaper(Clock())._limits] == [share]


def test_a_reload_changes_the_bandwidth_of_running_transfers(server, tmp_path):
    config = server._make_config(_settings(tmp_path, limits={"bandwidth": 1_000_000}))
    (rate,) = config.make_shaper(Clock())._limits
    server._make_config(_settings(tmp_path, limits={"bandwidth": 2_000_000}))
    assert rate.bytes_per_second == 2_000_000
    assert not server._make_config(_settings(tmp_path)).has_bandwidth_limit
    assert rate.bytes_per_second == inf
