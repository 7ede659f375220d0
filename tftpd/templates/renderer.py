"""Pool of render processes.

    thread > render() > slot > RenderProcess > jinja2

A template runs in a separate process with limited time and memory. The daemon does not block on
it and does not import jinja2.
"""

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import EAGAIN
from pathlib import Path
from typing import Any

from tftpd.access.mounts import Mount
from tftpd.access.origin_roots import OriginRoot
from tftpd.access.paths import is_template
from tftpd.access.policy import Grant, ReadPolicy, RenderLimits
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused, ResourceExhausted
from tftpd.storage.errors import EXHAUSTED
from tftpd.storage.walk import walk_tree
from tftpd.templates.process import RenderProcess, RenderProcessEnded, RenderTimeout
from tftpd.templates.protocol import RenderJob, template_failed

_DEFAULT_LIMITS = RenderLimits()
_MAX_PROCESSES = 2
_MAX_WAIT_SECONDS = 10.0  # of a job for a free slot
_SLOW_TEMPLATE_SECONDS = 5.0  # during which a template is not tried again after a timeout
_RESTART_SECONDS = 2.0  # from a failed start of a process to the next start
_CLOSE_SECONDS = 2.0  # for the threads whose jobs were ended
_LINE = re.compile("(?:line ([0-9]+): )?(.*)", re.DOTALL)  # in the reason of a refusal


class TemplateRenderer:
    """Renders templates for any number of threads; each thread blocks until its file is done.

    Attributes:
        limits: Size and time limits of jobs that start from now on; may be replaced.
    """

    def __init__(
        self,
        limits: RenderLimits = _DEFAULT_LIMITS,
        max_processes: int = _MAX_PROCESSES,
        max_wait: float = _MAX_WAIT_SECONDS,
    ) -> None:
        """Create the pool; processes start when they are needed, and remain.

        Args:
            limits: Limits of a job.
            max_processes: Number of jobs that run at the same time.
            max_wait: Time in seconds that a job waits for a free slot.
        """
        self.limits = limits
        self._max_wait = max_wait
        self._change = threading.Condition()
        self._free_slots = max_processes
        # By root: jobs that wait for a slot, and jobs that run.
        self._waiting: Counter[Path | OriginRoot | None] = Counter()
        self._running: Counter[Path | OriginRoot | None] = Counter()
        self._idle: list[RenderProcess] = []
        self._busy: set[RenderProcess] = set()
        self._closed = False
        self._slow_until: dict[Hashable, float] = {}  # by version of a template
        self._start_failure = 0.0, ""  # time of the next start, reason

    def render(
        self,
        template: Grant[ReadPolicy],
        variables: Mapping[str, Any],
        source: bytes | None = None,
    ) -> bytes:
        """Render a template; blocks.

        Args:
            template: The template, with its root and its policy.
            variables: Variables of the template, as JSON values.
            source: The template if it is at an origin; None: the process reads it.

        Raises:
            RequestRefused: The template has an error, exceeds a limit, got no free slot in
                time, or the renderer is closed.
        """
        try:
            return self._run(template, variables, source)
        except RequestRefused as refused:
            if refused.text != ErrorText.TEMPLATE_FAILED:
                raise
            reason = f"template {template.printable_path}: {refused.reason}"
            raise type(refused)(refused.code, reason, refused.text) from None

    def check(self, template: Grant[ReadPolicy]) -> None:
        """Compile a template; raise `RequestRefused` as `render()` does, without its path.

        The compiler evaluates constant expressions. They need the limits of a rendering.
        """
        self._run(template, None, None)

    def start(self) -> None:
        """Start a process and keep it for the first job; blocks.

        Raises:
            RequestRefused: No template can be rendered.
        """
        with self._slot(), self._process():
            pass

    def close(self) -> None:
        """End all processes; running and waiting jobs are refused. Idempotent."""
        with self._change:
            self._closed = True
            self._change.notify_all()
            idle, self._idle = self._idle, []
            for process in self._busy:
                process.kill()
        for process in idle:
            process.close()
        with self._change:  # the threads of the jobs close the busy processes
            self._change.wait_for(lambda: not self._busy, _CLOSE_SECONDS)

    def _run(
        self,
        template: Grant[ReadPolicy],
        variables: Mapping[str, Any] | None,
        source: bytes | None,
    ) -> bytes:
        limits = self.limits
        job = RenderJob(template, variables, limits.size, limits.seconds, source)
        try:
            self._check_not_slow(template)
            with self._slot(template.root):
                self._check_not_slow(template)  # another job may have timed out meanwhile
                with suppress(RenderProcessEnded), self._process() as process:
                    return process.render(job)
                # The kernel or an administrator may have killed the process. Try once again.
                if self._closed:
                    raise _stopping()
                with self._process() as process:
                    return process.render(job)
        except RequestRefused as refused:
            if self._closed:
                raise _stopping() from None
            if isinstance(refused, RenderTimeout):
                self._mark_slow(template)
            raise

    def _check_not_slow(self, template: Grant[ReadPolicy]) -> None:
        """Refuse a template that has just timed out, so that it does not occupy all slots."""
        until = self._slow_until.get(_version(template), 0.0) if self._slow_until else 0.0
        if time.monotonic() < until:
            seconds = f"{_SLOW_TEMPLATE_SECONDS:g} s"
            raise template_failed(f"exceeded its time limit less than {seconds} ago")

    def _mark_slow(self, template: Grant[ReadPolicy]) -> None:
        now = time.monotonic()
        with self._change:
            self._slow_until = {key: end for key, end in self._slow_until.items() if end > now}
            self._slow_until[_version(template)] = now + _SLOW_TEMPLATE_SECONDS

    @contextmanager
    def _slot(self, root: Path | OriginRoot | None = None) -> Iterator[None]:
        """Wait for a free slot and occupy it. Slow templates of one root do not delay others."""
        with self._change:
            self._waiting[root] += 1
            self._change.wait_for(lambda: self._may_start(root) or self._closed, self._max_wait)
            is_free = self._may_start(root)
            self._waiting[root] -= 1
            self._change.notify_all()
            if self._closed:
                raise _stopping()
            if not is_free:
                raise template_failed(f"no render process was free within {self._max_wait:g} s")
            self._free_slots -= 1
            self._running[root] += 1
        try:
            yield
        finally:
            with self._change:
                self._free_slots += 1
                self._running[root] -= 1
                self._waiting, self._running = +self._waiting, +self._running
                self._change.notify_all()

    def _may_start(self, root: Path | OriginRoot | None) -> bool:
        """Return True if a slot is free and no root with fewer running jobs waits for it."""
        fewest = min(self._running[other] for other, n in self._waiting.items() if n)
        return self._free_slots > 0 and self._running[root] <= fewest

    @contextmanager
    def _process(self) -> Iterator[RenderProcess]:
        """Take a process that is ready; put it back or close it at the end."""
        process = self._take_idle() or self._spawn()
        try:
            if not process.works:
                self._begin(process)
            yield process
        finally:
            with self._change:
                keep = process.works and not self._closed
                if keep:
                    self._busy.discard(process)
                    self._idle.append(process)
            if not keep:
                self._close_process(process)

    def _take_idle(self) -> RenderProcess | None:
        """Take the process that was used last, whose memory is most likely not swapped out."""
        while True:
            with self._change:
                if not self._idle:
                    return None
                process = self._idle.pop()
                self._busy.add(process)
            if process.is_idle():
                return process
            self._close_process(process)

    def _spawn(self) -> RenderProcess:
        until, reason = self._start_failure
        if time.monotonic() < until:  # a start costs more than a refusal
            raise template_failed(reason)
        try:
            process = RenderProcess()
        except OSError as error:
            reason = f"cannot start a render process: {error.strerror or error}"
            # EAGAIN: the limit of processes. The request is dropped, and the client retries.
            kind = ResourceExhausted if error.errno in (EAGAIN, *EXHAUSTED) else RequestRefused
            raise template_failed(reason, kind) from None
        with self._change:
            self._busy.add(process)
            if self._closed:
                process.kill()
        return process

    def _begin(self, process: RenderProcess) -> None:
        try:
            process.begin()
        except RequestRefused as refused:
            self._start_failure = time.monotonic() + _RESTART_SECONDS, refused.reason
            raise

    def _close_process(self, process: RenderProcess) -> None:
        process.close()
        with self._change:
            self._busy.discard(process)
            self._change.notify_all()


def find_problems(
    renderer: TemplateRenderer, root: Path, mount: Mount
) -> Iterator[tuple[str, int, str]]:
    """Yield path, line and problem of each template below a root that cannot be used.

    Links to directories are not followed. The line is 0 if the problem has none.
    """
    assert mount.read is not None
    for _, below, names in walk_tree(root):
        for name in filter(is_template, sorted(names)):
            grant = Grant(root, (*below, name), mount.read, mount.symlinks)
            try:
                renderer.check(grant)
            except RequestRefused as refused:
                line, text = _LINE.fullmatch(refused.reason).groups("0")  # type: ignore[union-attr]
                yield grant.printable_path, int(line), text


def _version(template: Grant[ReadPolicy]) -> Hashable:
    """Return a key for the template's current version; a corrected template is tried at once."""
    try:
        changed = os.stat(b"/".join((os.fsencode(template.directory), *template.name))).st_mtime_ns
    except (OSError, ValueError, TypeError):
        changed = None
    return template.root, template.name, changed


def _stopping() -> RequestRefused:
    return RequestRefused(ErrorCode.NOT_DEFINED, "the server is stopping", ErrorText.STOPPING)
