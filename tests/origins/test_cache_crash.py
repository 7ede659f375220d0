"""The cache while another process reads it, and after its process was killed at any moment."""

import json
import os
import random
import subprocess
import sys
import time

import pytest

from tests.origins.filling import MAX_SIZE, content_of
from tests.support.daemons import CHECKOUT
from tftpd.origins.cache import DiskCache, open_cached


def read_objects(data):
    """Check the content of the objects that are not evicted meanwhile; return their number."""
    n_read = 0
    for description in data.glob("*.json"):
        try:
            cached = json.loads(description.read_bytes())
            fd = open_cached(data / cached["basename"])
        except FileNotFoundError:
            continue
        with open(fd, "rb") as file:
            info = cached["info"]
            assert file.read() == content_of(cached["key"], info["etag"], info["size"])
        n_read += 1
    return n_read


def size_on_disk(data):
    """Return the size of all objects and of what was written of others, in bytes."""
    return sum(file.stat().st_size for file in data.iterdir() if ".json" not in file.suffixes)


@pytest.mark.check
@pytest.mark.parametrize("n_kills", [8, pytest.param(100, marks=pytest.mark.nightly)])
def test_a_killed_process_leaves_only_whole_objects(tmp_path, n_kills):
    choose = random.Random(n_kills)
    n_read = n_found = 0
    for seed in range(n_kills):
        command = [sys.executable, "-m", "tests.origins.filling", str(tmp_path), str(seed)]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        with subprocess.Popen(
            command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout.readline() == b"ready\n"
            ends_at = time.monotonic() + choose.uniform(0.01, 0.2)
            while time.monotonic() < ends_at:
                n_read += read_objects(tmp_path / "data")
            assert process.poll() is None
            process.kill()
        assert size_on_disk(tmp_path / "data") <= MAX_SIZE
        cache = DiskCache(tmp_path, MAX_SIZE, 0)
        found = cache.objects()
        names = set()
        for cached in found:
            content = (cache.data / cached.basename).read_bytes()
            assert content == content_of(cached.key, cached.info.etag, cached.size)
            names |= {cached.basename, f"{cached.basename}.json"}
        assert set(os.listdir(cache.data)) == names
        assert sum(cached.size for cached in found) == cache.usage().n_bytes <= MAX_SIZE
        n_found += len(found)
        cache.close()
    assert n_found > n_kills
    assert n_read > n_kills
