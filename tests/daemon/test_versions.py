"""Versions of replaced files in a daemon with workers."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.daemons import daemon, until
from tests.support.plain import get, put


@pytest.mark.check
def test_workers_keep_each_upload_of_one_name_and_prune(tmp_path):
    write = {"overwrite": True, "keep": 30, "quota": "1MiB"}
    directories = [
        {"path": "/", "root": str(tmp_path / "root"), "read": True, "write": write},
    ]
    with daemon(tmp_path, workers=2, directories=directories) as running:
        contents = [b"%d" % number for number in range(30)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda content: put(running.port, b"cfg", content), contents))
        kept = list((running.root / ".versions").glob("cfg.*"))
        newest = get(running.port, b"cfg")
        assert sorted([newest, *(path.read_bytes() for path in kept)]) == sorted(contents)
        assert len({event.get("worker") for event in running.awaited(31)}) == 2
        for number in range(5):
            put(running.port, b"cfg", b"later %d" % number)
        until(lambda: len(list((running.root / ".versions").glob("cfg.*"))) == 30)
        assert get(running.port, b"cfg") == b"later 4"
