"""Removal of old versions after uploads."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from tftpd.net.interfaces import SessionRuntime
from tftpd.net.rate_limit import Debouncer, LogLimiter
from tftpd.protocol.errors import RequestRefused

if TYPE_CHECKING:  # imported if a policy keeps versions
    from tftpd.storage.versions import FileVersions


class VersionPruner:
    """Removes old versions in a thread, after the client has its last ACK.

    Each run lists whole directories. Therefore the uploads that end during a run share the next
    one, and the runs for one root use at most 20 % of the time.
    """

    log = Logger()

    def __init__(self, runtime: SessionRuntime) -> None:
        self._runtime = runtime
        self._log_limiter = LogLimiter(runtime.clock.seconds)
        self._runs: dict[Path, Debouncer] = {}
        self._pending: dict[Path, dict[tuple[Path | None, tuple[bytes, ...]], FileVersions]] = {}

    def add(self, versions: "FileVersions") -> None:
        """Schedule the removal of old versions in the directory of a stored file."""
        root = versions.root
        if root not in self._runs:
            self._runs[root] = Debouncer(self._runtime.clock, partial(self._prune_all, root))
        self._pending.setdefault(root, {})[versions.top, versions.below] = versions
        self._runs[root]()

    def _prune_all(self, root: Path) -> "Deferred[None]":
        pending = self._pending.pop(root)

        def work() -> None:
            failed: Exception | None = None
            for versions in pending.values():
                try:
                    versions.prune()
                except (OSError, RequestRefused) as error:
                    failed = error  # the other directories are pruned nevertheless
            if failed is not None:
                raise failed

        key = next(iter(pending.values())).key
        return self._runtime.run_file_call(work, key).addErrback(self._log_failure, root)

    def _log_failure(self, failure: Failure, root: Path) -> None:
        suffix = self._log_limiter.suffix()
        if suffix is not None:
            self.log.error(
                "old versions of files below {root} cannot be removed: {reason}{suffix}",
                event="versions_not_removed",
                root=str(root),
                reason=getattr(failure.value, "strerror", None) or str(failure.value),
                suffix=suffix,
            )
