"""Origins and their cache on the status page of a real daemon."""

import os
import signal
import tempfile
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.status.pages import web
from tests.support.daemons import until
from tests.support.plain import ServerError, get
from tests.support.programs import library
from tests.support.web_origin import web_origin

library("urllib3")


@contextmanager
def _served(tmp_path):
    """Serve an origin; yield the status page and the origin."""
    with tempfile.TemporaryDirectory(prefix="tftpd-cache-") as cache, web_origin() as origin:
        origin.answer = _answer
        section = {"url": origin.url, "max_age": 1, "negative": 0.5}
        with web(
            tmp_path,
            origins={"fleet": section},
            cache={"path": cache, "min_free": 0, "max_size": 10_000_000},
            directories=[{"path": "/", "root": "origin:fleet", "read": True}],
        ) as page:
            until(lambda: page.request("/health")[0] == 200)
            yield page, origin


def _answer(handler, request):
    if request.target != "/kernel":
        handler.reply(404)
    elif request.headers.get("if-none-match") == '"1"':
        handler.reply(304, ETag='"1"')
    else:
        handler.reply(200, b"x" * 5000, ETag='"1"')


def _metrics(page):
    families = text_string_to_metric_families(page.request("/metrics")[2].decode())
    return {
        (
            sample.name,
            *(text for name, text in sample.labels.items() if name != "node"),
        ): sample.value
        for family in families
        for sample in family.samples
    }


def test_origins_and_the_cache_are_shown(tmp_path):
    with _served(tmp_path) as (page, origin):
        assert get(page.running.port, b"kernel") == b"x" * 5000
        with pytest.raises(ServerError):
            get(page.running.port, b"absent")
        until(lambda: page.status()["cache"]["objects"] == 1)
        # The object is in the cache a moment before its download has ended.
        until(lambda: page.status()["origins"][0]["fetched_bytes"] == 5000)
        status = page.status()
        assert status["fetcher"] is True
        assert status["cache"] == {
            "bytes": 5000,
            "max_bytes": 10_000_000,
            "objects": 1,
            "evicted": 0,
        }
        (fleet,) = status["origins"]
        assert (fleet["name"], fleet["available"], fleet["questions"]) == ("fleet", True, 2)
        assert (fleet["fetched_bytes"], fleet["missing"], fleet["failures"]) == (5000, 1, 0)
        metrics = _metrics(page)
        assert metrics["tftpd_origin_requests_total", "fleet"] == 2
        assert metrics["tftpd_origin_up", "fleet"] == 1
        assert metrics["tftpd_cache_objects",] == 1
        assert metrics["tftpd_origin_fetcher_up",] == 1


@pytest.mark.check
def test_an_origin_that_does_not_answer_is_shown_with_the_reason(tmp_path):
    with _served(tmp_path) as (page, origin):
        get(page.running.port, b"kernel")
        origin.answer = lambda handler, request: handler.reply(503)

        def is_down():
            get(page.running.port, b"kernel")
            (fleet,) = page.status()["origins"]
            return not fleet["available"]

        until(is_down)
        (fleet,) = page.status()["origins"]
        assert "503" in fleet["last_failure"]
        assert fleet["unavailable_since"] <= fleet["last_failure_at"]
        assert fleet["unavailable_since"].endswith("+00:00")
        until(lambda: _metrics(page)["tftpd_origin_up", "fleet"] == 0)
        assert page.request("/health")[0] == 200
        origin.answer = _answer
        until(lambda: not is_down())


@pytest.mark.check
def test_a_process_that_hangs_is_a_problem(tmp_path):
    with _served(tmp_path) as (page, _):
        (started,) = [e for e in page.running.events() if e.get("event") == "fetcher_started"]
        os.kill(started["pid"], signal.SIGSTOP)
        until(lambda: page.status()["fetcher"] is False)
        assert page.status()["origins"] == []
        assert _metrics(page)["tftpd_origin_fetcher_up",] == 0
        until(lambda: page.request("/health")[0] == 503)
        body = page.request("/health")[2]
        assert body == b"the process that fetches from origins does not answer\n"
        os.kill(started["pid"], signal.SIGKILL)
        until(lambda: page.request("/health")[0] == 200)
        until(lambda: page.status()["fetcher"])


def test_a_server_without_origins_shows_none(tmp_path):
    with web(tmp_path) as page:
        status = page.status()
        assert (status["fetcher"], status["origins"], status["cache"]) == (None, [], None)
        assert page.request("/health")[0] == 200
