"""Files made of templates, a few at a time, each in a process that may fail.

    a thread > render() > a turn > Process > jinja2

What a template does, its process does: it has its time, its memory and no more,
and the daemon neither waits for it nor imports what it needs.
"""

import os
import threading
import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tftpd.access.paths import printable_name
from tftpd.access.policy import Grant, ReadPolicy, RenderLimits
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.templates.process import RenderProcess, RenderTimeout
from tftpd.templates.protocol import RenderJob

_BOUNDS = RenderLimits()
_PROCESSES = 2
_PATIENCE = 10.0  # seconds that a job waits for its turn
_RESTS = 5.0  # seconds that a template is not tried again which took too long
_ANEW = 2.0  # seconds from a start that failed to the next
_CLOSES_WITHIN = 2.0  # seconds for the threads of jobs that were ended


class TemplateRenderer:
    """Renders templates; from any number of threads, each of which waits.

    `bounds` may be set anew: they hold for the jobs that begin then. Processes
    start when they are needed, at most `processes`, and stay.
    """

    def __init__(
        self,
        bounds: RenderLimits = _BOUNDS,
        processes: int = _PROCESSES,
        patience: float = _PATIENCE,
    ) -> None:
        self.bounds = bounds
        self._patience = patience
        self._change = threading.Condition()
        self._free = processes  # turns that nobody has
        self._idle: list[RenderProcess] = []
        self._busy: set[RenderProcess] = set()
        self._closed = False
        self._tired: dict[Hashable, float] = {}  # versions of templates, until when
        self._broken: tuple[float, str] | None = None

    def render(self, template: Grant[ReadPolicy], facts: Mapping[str, Any]) -> bytes:
        """The file that `template` gives where it knows `facts`; raises `Refused`.

        `facts` are what JSON has. It waits some seconds for its turn, and for
        a process to start, and then as long as the bounds say.
        """
        bounds = self.bounds
        job = RenderJob(template, facts, bounds.size, bounds.seconds)
        try:
            self._check_rested(template)
            with self._turn(), self._process() as process:
                self._check_rested(template)  # perhaps it is why there was no turn before
                return process.ask(job)
        except RequestRefused as refused:
            if self._closed:
                raise _stopping() from None
            if refused.text != ErrorText.TEMPLATE_FAILED:
                raise
            if isinstance(refused, RenderTimeout):
                self._tire(template)
            name = printable_name(b"/".join(template.name))
            why = f"template {name}: {refused.reason}"
            raise RequestRefused(refused.code, why, refused.text) from None

    def _check_rested(self, template: Grant[ReadPolicy]) -> None:
        """Whoever asks for one that takes too long shall not keep others from their turn."""
        until = self._tired.get(_version(template), 0.0) if self._tired else 0.0
        if time.monotonic() < until:
            raise _failed(f"took too long less than {_RESTS:g} s ago")

    def _tire(self, template: Grant[ReadPolicy]) -> None:
        now = time.monotonic()
        with self._change:
            self._tired = {key: until for key, until in self._tired.items() if until > now}
            self._tired[_version(template)] = now + _RESTS

    def close(self) -> None:
        """End all processes; jobs that run or wait are refused. Idempotent."""
        with self._change:
            self._closed = True
            self._change.notify_all()
            idle, self._idle = self._idle, []
            for process in self._busy:
                process.kill()
        for process in idle:
            process.close()
        with self._change:  # who had them frees them
            self._change.wait_for(lambda: not self._busy, _CLOSES_WITHIN)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One of so many at a time."""
        with self._change:
            self._change.wait_for(lambda: self._free or self._closed, self._patience)
            if self._closed:
                raise _stopping()
            if not self._free:
                raise _failed(f"waited {self._patience:g} s for its turn")
            self._free -= 1
        try:
            yield
        finally:
            with self._change:
                self._free += 1
                self._change.notify()

    @contextmanager
    def _process(self) -> Iterator[RenderProcess]:
        """One that is ready, and nobody else's meanwhile."""
        process = self._idling() or self._started()
        try:
            yield process
        finally:
            with self._change:
                keep = process.works and not self._closed
                if keep:
                    self._busy.discard(process)
                    self._idle.append(process)
            if not keep:
                self._free_up(process)

    def _idling(self) -> RenderProcess | None:
        """The one that was used last: it is the most likely to be in memory."""
        while True:
            with self._change:
                if self._closed:
                    raise _stopping()
                if not self._idle:
                    return None
                process = self._idle.pop()
                self._busy.add(process)
            if process.idles:
                return process
            self._free_up(process)

    def _started(self) -> RenderProcess:
        if self._broken is not None:
            until, why = self._broken
            if time.monotonic() < until:  # each attempt costs more than a refusal
                raise _failed(why)
        try:
            process = RenderProcess()
        except OSError as error:
            raise _failed(f"no process could be started: {error.strerror or error}") from None
        with self._change:
            self._busy.add(process)
            if self._closed:
                process.kill()
        try:
            process.begin()
        except BaseException as error:
            if isinstance(error, RequestRefused):
                self._broken = time.monotonic() + _ANEW, error.reason
            self._free_up(process)
            raise
        self._broken = None
        return process

    def _free_up(self, process: RenderProcess) -> None:
        process.close()
        with self._change:
            self._busy.discard(process)
            self._change.notify_all()


def _version(template: Grant[ReadPolicy]) -> Hashable:
    """The template as it is now: one that was mended need not rest."""
    try:
        changed = os.stat(b"/".join((os.fsencode(template.root), *template.name))).st_mtime_ns
    except (OSError, ValueError):
        changed = None
    return template.root, template.name, changed


def _failed(why: str) -> RequestRefused:
    return RequestRefused(ErrorCode.NOT_DEFINED, why, ErrorText.TEMPLATE_FAILED)


def _stopping() -> RequestRefused:
    return RequestRefused(ErrorCode.NOT_DEFINED, "no more files are made", ErrorText.STOPPING)
