"""Templates: any template gives a file or a refusal and reaches nothing outside its directory."""

import copy
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any
from warnings import catch_warnings

from tests.fuzz.choices import Choices
from tests.fuzz.harness import scratch_directory, time_limit
from tests.fuzz.sandbox_audit import SandboxAudit
from tftpd.access.policy import Grant, ReadPolicy
from tftpd.templates.protocol import MessageKind, RenderJob, decode_refusal, receive_message
from tftpd.templates.sandbox import TemplateSandbox
from tftpd.templates.worker import _address_space, render_message

_MEMORY_BYTES = 64 << 20  # more than there are
_CPU_SECONDS = 0.1  # of a template; then it is ended, as the daemon does
_RETRY_SECONDS = 0.002
_INTERRUPTIBLE = ("jinja2.nodes", "jinja2.optimizer", "jinja2.visitor", "jinja2.filters")
_MAX_FILE_BYTES = (1 << 16, 100, 0)
_MAX_MESSAGE_BYTES = 1 << 16
_SEPARATOR = b"\n---\n"  # between the template and the one that it may include
_SECRET = b"7b1f5a"  # in outside/secret.j2
_ADMIN_VARIABLES = {"a": 1, "list": [1, [2]], "dict": {"b": "c"}, "items": "d", "none": None}
_VARIABLES = {
    "variables": {**_ADMIN_VARIABLES, "f": 2.5},
    "ip": "192.0.2.7",
    "mac": None,
    "name": "{{ ''.__class__ }}",
    "asked": "a\nb\udcff",
    "groups": {"a": "{% for %}"},
}
_KNOWN_FILE = b"{'b': 'c'}\n[0, 1, 2]\nFalse\nFalse\nFalse\n1\n[1, 3]\n"
_FILES = Path(__file__).parents[1] / "template_files"

_AUDIT = SandboxAudit()


class _TimeIsUp(BaseException):
    """The template has used its CPU time."""


def check(data: bytes) -> None:
    """Render a template that may include another, and then a known one."""
    choices = Choices(data)
    root = _template_root()
    size = choices.one(_MAX_FILE_BYTES)
    template, _, part = choices.rest().partition(_SEPARATOR)
    (root / "t.j2").write_bytes(template)
    (root / "part.j2").write_bytes(part)
    variables = copy.deepcopy(_VARIABLES)
    with time_limit():
        try:
            with _cpu_limit():
                message = _render(root, b"t.j2", variables, size)
            _check_answer(message, size)
        except _TimeIsUp:
            _templates.cache_clear()
    assert variables == _VARIABLES, "the template has changed the variables"
    message = _render(root, b"known.j2", variables, 1 << 10)
    known = _check_answer(message, 1 << 10)
    assert known == (MessageKind.FILE, _KNOWN_FILE), f"{known}: changed by the last template"


def _check_answer(message: bytes, size: int) -> tuple[MessageKind, bytes]:
    """Return the kind and the body of an answer."""
    stream = BytesIO(message)
    kind, body = receive_message(stream.read, _MAX_MESSAGE_BYTES)
    assert not stream.read(), "data after the message"
    assert _SECRET not in body, "a file outside the directory"
    if kind is MessageKind.FILE:
        assert len(body) <= size, f"{len(body)} bytes"
    else:
        assert kind in (MessageKind.REFUSED, MessageKind.LAST)
        reason = decode_refusal(body).reason
        assert reason.isprintable(), f"{reason!r} is not one line"
        assert 0 < len(reason) <= 1000, "no reason, or a long one"
    return kind, body


def _render(root: Path, name: bytes, variables: dict[str, Any], size: int) -> bytes:
    """Return the message that answers a job, with limited memory as in a template process."""
    job = RenderJob(Grant(root, (name,), ReadPolicy()), variables, size, 1.0)
    templates = _templates()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + _MEMORY_BYTES, hard))
    try:
        with catch_warnings(action="ignore"), _AUDIT.only_below(str(root)):
            message = render_message(templates.render, job)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    if message[0] == MessageKind.LAST:
        _templates.cache_clear()  # without memory its state is undefined
    return message


@cache
def _templates() -> TemplateSandbox:
    templates = TemplateSandbox()
    for environment in (templates._environment, templates._cache.crlf_environment):
        _AUDIT.watch(environment)
    return templates


@cache
def _template_root() -> Path:
    base = scratch_directory() / "templates"
    shutil.copytree(_FILES, base)
    (base / "root/link.j2").symlink_to("../outside/secret.j2")
    return base / "root"


@contextmanager
def _cpu_limit() -> Iterator[None]:
    """Raise `_TimeIsUp` after the CPU time, as soon as the code of a template or jinja2 runs.

    Elsewhere the exception could interrupt a change of shared state.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        module = frame.f_globals if frame is not None else {}
        if "__jinja_template__" in module or module.get("__name__") in _INTERRUPTIBLE:
            raise _TimeIsUp

    signal.signal(signal.SIGVTALRM, interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, _CPU_SECONDS, _RETRY_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
