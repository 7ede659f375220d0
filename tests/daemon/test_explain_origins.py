"""`tftpd explain` for roots at an origin: the origin, the key, and the object in the cache."""

import json
import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from tftpd.access.origin_roots import OriginRoot
from tftpd.config import origin_checks
from tftpd.config.loader import load_settings
from tftpd.daemon.cli import main
from tftpd.daemon.explain.cached_objects import CachedObjects
from tftpd.origins.cache import DiskCache
from tftpd.origins.factory import origin_identity
from tftpd.origins.stores import ObjectInfo
from tftpd.storage.origin_files import AnswerNeeded

CONFIGURATION = """
origins:
  fleet: {url: s3://boot/tree, max_age: 100, stale: 1000}
  spare: {url: s3://spare}
cache: {path: cache}
directories:
  - {path: /, root: [srv, "origin:fleet/x86", "origin:spare"], read: {templates: true}}
  - {path: /in, root: "origin:fleet/in/{ip}", write: {max_size: 10}}
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(origin_checks, "find_spec", lambda name: object())
    for name in ("srv", "cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "t.yaml").write_text(CONFIGURATION)
    return tmp_path / "t.yaml"


@pytest.fixture
def store(config):
    """Return a function that puts an object into the cache, as the daemon does."""
    settings = load_settings(config)

    def store(origin, key, content, age=0.0):
        cache = DiskCache(Path(settings.cache.path), 1 << 20, 0)
        with closing(cache):
            identity = origin_identity(origin, settings.origins[origin])
            fill = cache.begin(identity, key, ObjectInfo(len(content), '"e1"'))
            fill.write(content)
            cached = fill.finish()
            path = cache.data / f"{cached.basename}.json"
        values = json.loads(path.read_text())
        path.write_text(json.dumps(values | {"checked_at": time.time() - age}))
        return cached.basename

    return store


def _explain(config, capsys, *words):
    status = main(["explain", "--client", "192.0.2.7", str(config), *words])
    return status, capsys.readouterr().out.splitlines()


def test_a_fresh_object_is_shown_with_its_age_and_answers(config, store, capsys):
    store("fleet", "x86/boot", b"kernel", age=7)
    status, lines = _explain(config, capsys, "boot")
    assert status == 0
    start = lines.index("  root     origin:fleet/x86")
    assert lines[start + 1 : start + 3] == [
        "  key      x86/boot",
        '  cache    fresh; 6 bytes, confirmed 7 s ago, ETag "e1"',
    ]
    assert "answer     DATA 1, 6 bytes" in lines
    assert "  root     origin:spare" not in lines


@pytest.mark.parametrize(
    ("age", "state", "is_served"),
    [
        (99, "fresh", True),
        (500, "older than max_age, the origin is asked first", True),
        (1200, "older than stale, not served without an answer of the origin", False),
    ],
)
def test_the_state_follows_from_the_age(config, store, capsys, age, state, is_served):
    store("fleet", "x86/boot", b"kernel", age=age)
    status, lines = _explain(config, capsys, "boot")
    assert f'  cache    {state}; 6 bytes, confirmed {age} s ago, ETag "e1"' in lines
    assert status == (0 if is_served else 1)


def test_an_object_that_is_not_in_the_cache_needs_the_origin(config, store, capsys):
    store("spare", "boot", b"not asked before")
    status, lines = _explain(config, capsys, "boot")
    assert status == 1
    assert "  cache    not in the cache" in lines
    assert "  root     origin:spare" not in lines
    assert "answer     none" in lines
    assert lines[-1] == 'refused    origin:fleet/x86 must be asked for "x86/boot" first'


def test_a_local_file_comes_first(config, store, capsys, tmp_path):
    (tmp_path / "srv/boot").write_bytes(b"local")
    store("fleet", "x86/boot", b"kernel")
    _, lines = _explain(config, capsys, "boot")
    assert "answer     DATA 1, 5 bytes" in lines
    assert not [line for line in lines if "origin:" in line and line.startswith("  root")]


def test_an_upload_shows_its_key(config, capsys):
    status, lines = _explain(config, capsys, "write", "in/run.cfg")
    assert status == 0
    assert "  key      in/192.0.2.7/run.cfg" in lines
    assert "answer     ACK 0" in lines


def test_a_name_that_no_object_can_have_is_shown_without_a_key(config, capsys):
    status, lines = _explain(config, capsys, "write", "in/a\x7fb")
    assert status == 1
    assert "  key      none, the request is refused" in lines
    assert "  cache    none" in lines


def test_json_has_origin_key_and_object(config, store, capsys):
    store("fleet", "x86/boot", b"kernel", age=7)
    main(["explain", "--json", "--client", "192.0.2.7", str(config), "boot"])
    local, root = json.loads(capsys.readouterr().out)["roots"]
    assert "origin" not in local
    assert root == {
        "root": "origin:fleet/x86",
        "steps": [],
        "file": None,
        "origin": "fleet",
        "key": "x86/boot",
        "cached": {"state": "fresh", "age": 7, "size": 6, "etag": '"e1"'},
    }


def test_the_newest_of_two_objects_counts_and_damaged_ones_do_not(config, store, tmp_path):
    old = store("fleet", "x86/boot", b"older", age=50)
    data = tmp_path / "cache/data"
    description = (data / f"{old}.json").read_text()
    new = store("fleet", "x86/boot", b"newest", age=5)
    # What a kill leaves: the description of an older version, and a file that is cut off.
    (data / old).write_bytes(b"older")
    (data / f"{old}.json").write_text(description)
    objects = CachedObjects(load_settings(tmp_path / "t.yaml"))
    root = OriginRoot("fleet", (b"x86",))
    assert objects.describe(root, "x86/boot")["size"] == 6
    os.truncate(data / new, 3)
    assert objects.describe(root, "x86/boot")["size"] == 5
    (data / f"{old}.json").write_text("{")
    assert objects.describe(root, "x86/boot") == {"state": "not in the cache"}
    with pytest.raises(AnswerNeeded):
        objects.open(root, "x86/boot")


def test_a_cache_that_cannot_be_read_is_told(config, tmp_path):
    objects = CachedObjects(load_settings(config))
    root = OriginRoot("fleet")
    expected = "the cache cannot be read: No such file or directory"
    assert objects.describe(root, "x") == {"state": expected}
    with pytest.raises(AnswerNeeded):
        objects.open(root, "x")
