"""A real daemon that stores uploads at a web server whose answers the test decides."""

import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.slow_clients import Upload, put
from tests.support.daemons import daemon, until
from tests.support.plain import ServerError
from tests.support.web_origin import web_origin

pytest.importorskip("urllib3")

CONTENT = bytes(range(256)) * 20


class Files:
    """Files of a web server, with conditions.

    Attributes:
        contents: Content by target.
        status: Status of the answer to each PUT; None: that of a server without faults.
        ignores_conditions: Each PUT replaces the file.
        knows_names: False: HEADs are not answered.
        may_answer: Cleared: PUTs wait.
    """

    def __init__(self):
        self.contents = {}
        self.status = None
        self.ignores_conditions = False
        self.knows_names = True
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, handler, request):
        self.may_answer.wait(20)
        if request.method in ("GET", "HEAD"):
            if request.method == "HEAD" and not self.knows_names:
                handler.origin.stopped.wait(20)
            found = self.contents.get(request.target)
            handler.reply(404) if found is None else handler.reply(200, found)
        elif self.status is not None:
            handler.reply(self.status)
        elif (
            request.headers.get("if-none-match") == "*"
            and request.target in self.contents
            and not self.ignores_conditions
        ):
            handler.reply(412)
        else:
            self.contents[request.target] = request.body
            handler.reply(201)


@pytest.fixture
def files():
    return Files()


@pytest.fixture
def origin(files):
    with web_origin() as running:
        running.answer = files
        yield running
        files.may_answer.set()


@contextmanager
def _upload_daemon(tmp_path, origin, workers=1, **write):
    with tempfile.TemporaryDirectory(prefix="tftpd-cache-") as cache:
        write = {"create": True, "overwrite": False, **write}
        root = "origin:web/{ip}"
        with daemon(
            tmp_path,
            origins={"web": {"url": origin.url}},
            cache={"path": cache, "min_free": 0},
            directories=[{"path": "/", "root": root, "read": True, "write": write}],
            workers=workers,
        ) as running:
            yield running
            until(lambda: not list(Path(cache).glob("spool/*")))


@pytest.mark.check
@pytest.mark.parametrize("workers", [1, 2])
def test_an_upload_is_stored_once(tmp_path, origin, files, workers):
    with _upload_daemon(tmp_path, origin, workers) as running:
        put(running.port, b"new", CONTENT)
        assert files.contents["/127.0.0.1/new"] == CONTENT
        with Upload(running.port, b"new", b"other") as client, pytest.raises(ServerError) as failed:
            client.receive()  # the answer to the request
        assert failed.value.args[0] == 6
        assert files.contents["/127.0.0.1/new"] == CONTENT
        assert [request.method for request in origin.requests].count("PUT") == 3  # 2 of the probe
        transfers = running.awaited(2)
        assert transfers[1]["outcome"] == "refused"


@pytest.mark.check
def test_an_upload_does_not_wait_for_long_to_learn_if_its_name_exists(tmp_path, origin, files):
    with _upload_daemon(tmp_path, origin) as running:
        put(running.port, b"new", CONTENT)
        files.knows_names = False
        began = time.monotonic()
        put(running.port, b"other", CONTENT)
        assert 0.9 < time.monotonic() - began < 8  # 1 s, and the time limit is 10 s
        assert files.contents["/127.0.0.1/other"] == CONTENT
        time.sleep(1.1)  # for which the process that serves keeps the answer
        with Upload(running.port, b"new", CONTENT) as client, pytest.raises(ServerError) as failed:
            client.rest()
        assert failed.value.args[0] == 6  # by the condition


def test_an_upload_waits_until_the_origin_has_been_asked(tmp_path, origin, files):
    files.may_answer.clear()
    with _upload_daemon(tmp_path, origin) as running:
        with Upload(running.port, b"new", CONTENT, idle_timeout=1.0) as client:
            with pytest.raises(TimeoutError):
                client.receive()
            assert not running.transfers()
            files.may_answer.set()
            client.set_idle_timeout(20.0)
            client.rest()
        assert files.contents["/127.0.0.1/new"] == CONTENT


@pytest.mark.check
@pytest.mark.parametrize("workers", [1, 2])
def test_an_origin_that_ignores_conditions_gets_no_uploads(tmp_path, origin, files, workers):
    files.ignores_conditions = True
    with _upload_daemon(tmp_path, origin, workers) as running:
        with pytest.raises(ServerError) as failed:
            put(running.port, b"new", CONTENT)
        assert failed.value.args[0] == 2
        assert set(files.contents) == {"/tftpd-probe"}
        (event,) = [e for e in running.events() if e.get("event") == "create_refused"]
        assert "ignores conditional writes" in event["message"]
        running.change(
            directories=[{"path": "/", "root": "origin:web", "write": {"overwrite": True}}]
        )
        running.reload()
        put(running.port, b"new", CONTENT)
        assert files.contents["/new"] == CONTENT


@pytest.mark.check
def test_an_origin_that_fails_is_an_error_and_asked_again(tmp_path, origin, files):
    files.status = 403
    with _upload_daemon(tmp_path, origin) as running:
        with pytest.raises(ServerError) as failed:
            put(running.port, b"new", CONTENT)
        assert failed.value.args[0] == 0
        files.status = None

        def is_stored():
            try:
                put(running.port, b"new", CONTENT)
            except ServerError:
                return False
            return True

        until(is_stored)
        files.status = 507
        with pytest.raises(ServerError) as failed:
            put(running.port, b"other", CONTENT)
        assert failed.value.args[0] == 0
        until(lambda: "507" in running.transfers()[-1]["message"])
        assert [e for e in running.events() if e.get("event") == "origin_unavailable"]
        assert "/127.0.0.1/other" not in files.contents
