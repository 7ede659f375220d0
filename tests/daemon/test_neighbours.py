"""Profiles that match MAC addresses need netlink."""

import pytest
from twisted.internet import reactor
from twisted.logger import globalLogPublisher

from tftpd.config.loader import load_settings
from tftpd.server.neighbours import Neighbours
from tftpd.server.server import ProcessServer


@pytest.fixture
def warnings():
    """Return a function that returns the warnings so far."""
    events = []
    globalLogPublisher.addObserver(events.append)
    yield lambda: [event for event in events if event["log_level"].name == "warn"]
    globalLogPublisher.removeObserver(events.append)


@pytest.mark.parametrize(
    ("match", "warned"), [('{macs: ["52:54:00"]}', True), ("{mode: octet}", False)]
)
def test_a_profile_that_can_match_no_client_causes_a_warning(
    tmp_path, monkeypatch, warnings, match, warned
):
    def forbidden(self):
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(Neighbours, "open", forbidden)
    path = tmp_path / "t.yaml"
    path.write_text(
        "directories: [{root: ., read: true}]\n"
        f"limits: {{sessions: 10}}\nprofiles: [{{name: lab, match: {match}}}]\n"
    )
    server = ProcessServer(reactor, lambda result: None)
    server.serve(load_settings(path), [])
    server.stop()
    reasons = [event["reason"] for event in warnings() if "MAC" in event["log_format"]]
    assert reasons == ["Address family not supported by protocol"] * warned


def test_without_netlink_no_mac_address_is_known(monkeypatch):
    def forbidden(self):
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(Neighbours, "open", forbidden)
    assert Neighbours().mac(("192.0.2.7", 2070)) is None
