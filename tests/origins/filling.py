"""Fill a cache until the process is killed. `python -m tests.origins.filling PATH SEED`.

Each object has the content that `content_of` derives from its key and ETag.
"""

import random
import sys
from hashlib import shake_128
from itertools import count
from pathlib import Path

from tftpd.origins.cache import DiskCache
from tftpd.origins.stores import ObjectInfo

MAX_SIZE = 2 << 20
KEYS = [f"key{n}" for n in range(40)]


def content_of(key: str, etag: str, size: int) -> bytes:
    """Return the bytes of one version of an object."""
    return shake_128(f"{key} {etag}".encode()).digest(size)


def main(path: str, seed: str) -> None:
    """Fetch, replace, confirm and use objects for ever."""
    choose = random.Random(seed)
    cache = DiskCache(Path(path), MAX_SIZE, 0)
    print("ready", flush=True)
    for n in count():
        key = choose.choice(KEYS)
        cached = cache.find("fleet", key)
        if cached is not None and choose.random() < 0.4:
            cache.confirm(cached)
            cache.remember_use(cached)
            continue
        etag = f"{seed} {n}"
        content = content_of(key, etag, choose.randrange(200_000))
        info = ObjectInfo(choose.choice([len(content), None]), etag)
        fill = cache.begin("fleet", key, info)
        for start in range(0, len(content), 50_000):
            fill.write(content[start : start + 50_000])
        if choose.random() < 0.1:
            fill.abort()
        else:
            fill.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
