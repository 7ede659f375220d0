"""What a process has of the bandwidth of all transfers."""

from math import inf

import pytest
from twisted.internet import reactor

from tftpd.config.settings import Settings
from tftpd.server.server import Server


@pytest.fixture
def server():
    built = Server(reactor, lambda report: None)
    yield built
    built.stop()


def _settings(root, **said):
    directory = {"root": str(root), "read": True}
    return Settings.model_validate({"directories": [directory], **said})


@pytest.mark.parametrize(("workers", "octets"), [(1, 1_000_000), (4, 250_000)])
def test_each_worker_has_its_share(server, tmp_path, workers, octets):
    limits = {"bandwidth": 1_000_000}
    config = server._make_config(_settings(tmp_path, workers=workers, limits=limits))
    assert [rate.bytes_per_second for rate in config.bandwidth_limits()] == [octets]


def test_a_reload_changes_it_for_transfers_that_run(server, tmp_path):
    config = server._make_config(_settings(tmp_path, limits={"bandwidth": 1_000_000}))
    (rate,) = config.bandwidth_limits()
    server._make_config(_settings(tmp_path, limits={"bandwidth": 2_000_000}))
    assert rate.bytes_per_second == 2_000_000
    assert server._make_config(_settings(tmp_path)).bandwidth_limits() == []
    assert rate.bytes_per_second == inf
