"""The cache after its process was killed at any moment."""

import os
import random
import subprocess
import sys
import time

from tests.origins.filling import MAX_SIZE, content_of
from tests.support.daemons import CHECKOUT
from tftpd.origins.cache import DiskCache

KILLS = 20


def test_a_killed_process_leaves_only_whole_objects(tmp_path):
    choose = random.Random(1)
    n_found = 0
    for seed in range(KILLS):
        command = [sys.executable, "-m", "tests.origins.filling", str(tmp_path), str(seed)]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        with subprocess.Popen(
            command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(choose.uniform(0.01, 0.2))
            process.kill()
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
    assert n_found > KILLS
