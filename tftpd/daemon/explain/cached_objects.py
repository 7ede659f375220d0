"""Objects of origins in the cache of a daemon, for `tftpd explain`. No origin is asked."""

import time
from pathlib import Path
from typing import Any, NoReturn

from tftpd.access.origin_roots import OriginRoot
from tftpd.access.policy import Grant, ReadPolicy, WritePolicy
from tftpd.config.origins import OriginSection
from tftpd.config.settings import Settings
from tftpd.origins.cache import CachedObject, find_on_disk
from tftpd.origins.factory import origin_identity
from tftpd.origins.freshness import Freshness, FreshnessRules, KeyHistory, judge
from tftpd.storage.origin_files import AnswerNeeded
from tftpd.storage.source import FileLike
from tftpd.storage.walk import open_file

_STATES = {
    Freshness.FRESH: "fresh",
    Freshness.REVALIDATE: "older than max_age, the origin is asked first",
    Freshness.ASK: "older than stale, not served without an answer of the origin",
}


class CachedObjects:
    """Objects in the cache of the configuration. Those that are being fetched do not count."""

    def __init__(self, settings: Settings) -> None:
        self._sections = settings.origins
        self._path = None if settings.cache is None else Path(settings.cache.path)

    def describe(self, root: OriginRoot, key: str) -> dict[str, Any]:
        """Return state, age in seconds, size in bytes and ETag of an object, as JSON values.

        The state is `not in the cache` or a reason for an object without these values.
        """
        try:
            cached = self._find(root, key)
        except OSError as error:
            return {"state": f"the cache cannot be read: {error.strerror}"}
        if cached is None:
            return {"state": "not in the cache"}
        now = time.time()
        return {
            "state": _STATES[self._judge(self._sections[root.origin], cached, now)],
            "age": round(max(0.0, now - cached.checked_at)),
            "size": cached.info.size,
            "etag": cached.info.etag,
        }

    def open(self, root: OriginRoot, key: str, whole: bool = False) -> FileLike:
        """Open an object that is served from the cache.

        Raises:
            AnswerNeeded: The answer of the origin decides.
            RequestRefused: The file in the cache cannot be read.
        """
        try:
            cached = self._find(root, key)
        except OSError:
            cached = None
        section = self._sections[root.origin]
        if (
            self._path is None
            or cached is None
            or self._judge(section, cached, time.time()) is Freshness.ASK
        ):
            raise AnswerNeeded(root, key)
        name = (cached.basename.encode(),)
        return open_file(Grant(self._path / "data", name, ReadPolicy()))

    def open_upload(
        self,
        root: OriginRoot,
        key: str,
        grant: Grant[WritePolicy],
        size: int | None,
        netascii: bool,
    ) -> NoReturn:
        """Raise `AnswerNeeded`: nothing is stored."""
        raise AnswerNeeded(root, key)

    def _find(self, root: OriginRoot, key: str) -> CachedObject | None:
        if self._path is None:
            return None
        identity = origin_identity(root.origin, self._sections[root.origin])
        return find_on_disk(self._path, identity, key)

    @staticmethod
    def _judge(section: OriginSection, cached: CachedObject, now: float) -> Freshness:
        rules = FreshnessRules(section.max_age, section.stale, section.negative)
        return judge(KeyHistory(checked_at=cached.checked_at), rules, now)
