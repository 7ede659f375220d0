"""HTTP beside nginx, in a short run."""

import re
from dataclasses import replace

import pytest

from bench import web
from bench.servers import Unavailable
from tests.support.programs import program


@pytest.mark.check
def test_both_servers_are_measured(monkeypatch):
    program("nginx")
    short = [replace(each, requests=40) for each in web.WEB_SCENARIOS if each.size < 1_000_000]
    monkeypatch.setattr(web, "WEB_SCENARIOS", short)
    _, _, *rows, empty, beside = web.measure_web(1, lambda line: None).splitlines()
    assert (len(rows), empty) == (2, "")
    assert re.search(r", p99: \d+\.\d\d ms, alone \d+\.\d\d ms$", beside)
    for row in rows:
        _, _, ours, theirs, _, _ = row.split("|")
        assert int(ours) > 0
        assert int(theirs) > 0


def test_without_nginx_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(web, "which", lambda *_, **__: None)
    with pytest.raises(Unavailable):
        web.measure_web(1, lambda line: None)
