"""Templates: the result is a file or a one-line reason; nothing else is reachable."""

import copy
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from warnings import catch_warnings

from fuzz.bounds import bounded
from fuzz.choices import Choices
from fuzz.places import place
from fuzz.reaching import reach
from fuzz.writing import written
from tftpd.access.client import Client
from tftpd.access.paths import RequestName
from tftpd.access.policy import Grant, ReadPolicy
from tftpd.access.variables import VariableRule, VariableTable
from tftpd.server.config_builder import template_variables
from tftpd.server.request import RenderContext
from tftpd.templates.protocol import MessageKind, RenderJob, decode_refusal, receive_message
from tftpd.templates.sandbox import TemplateSandbox
from tftpd.templates.worker import _address_space, render_message

_MEMORY = 64 << 20  # octets beyond those that there are
_TIME = 0.1  # seconds of the processor; what takes longer is ended, as the daemon does
_AGAIN = 0.002  # seconds until it is tried again to end it
_INTERRUPTED = ("jinja2.nodes", "jinja2.optimizer", "jinja2.visitor", "jinja2.filters")
_SIZES = (1 << 16, 100, 0)
_NEXT = b"\n---\n"  # between a template that is given as it is, and its part
_LONGEST = 1 << 16  # octets of a message
_SECRET = "7b1f5a"
_FACTS = {"a": 1, "list": [1, [2]], "dict": {"b": "c"}, "items": "d", "none": None, "f": 2.5}
_WORDS = (b"pxelinux.cfg/default", b"{{ ''.__class__ }}", b"{% for %}", b"a\nb", b"")
_KNOWN = (
    "{{ variables.list }}{{ variables.dict }}{{ variables.items }}{{ range(3) | list }}"
    "{{ lipsum is defined }}"
    "{{ x is defined }}{{ n is defined }}{{ namespace(a=1).a }}{{ [3, 1] | sort | pprint }}"
)
_SAID = b"[1, [2]]{'b': 'c'}d[0, 1, 2]FalseFalseFalse1[1, 3]"
_FILES = {
    "root/base.j2": "<{% block a %}1{% endblock %}{% block b %}{{ self.a() }}{% endblock %}>",
    "root/macros.j2": "{% macro m(x) %}{{ x }}{{ caller and caller(x) }}{% endmacro %}",
    "root/sub/part.j2": "{{ variables.a }}{% include 'part.j2' %}",
    "root/known.j2": _KNOWN,
    "outside/secret.j2": _SECRET,
}


class _Ended(BaseException):
    """Its time is over."""


def check(octets: bytes) -> None:
    """Render a template that may have another for a part, and then one that is known."""
    choices = Choices(octets)
    root = _root()
    plain, size, own = choices.flag(), choices.one(_SIZES), choices.number(1)
    variables = template_variables(
        _wanted(choices), VariableTable([VariableRule(copy.deepcopy(_FACTS))])
    )
    if plain:
        template, _, part = choices.rest().partition(_NEXT)
    else:
        template, part = written(choices), written(choices)
    for name, text in (("t.j2", template), ("sub/t.j2", template), ("part.j2", part)):
        (root / name).write_bytes(text)
    grant = Grant(root, (b"sub",) * own + (b"t.j2",), ReadPolicy(), own=own)
    job = RenderJob(grant, variables, size, 1.0)
    before = copy.deepcopy(variables)
    with bounded():
        try:
            with _time():
                message = _answered(job)
            _check_answer(message, size)
        except _Ended:
            _templates.cache_clear()
    assert variables == before, "variables are changed"
    known = RenderJob(
        Grant(root, (b"known.j2",), ReadPolicy()), {"variables": _FACTS}, 1 << 10, 1.0
    )
    kind, body = receive_message(BytesIO(_answered(known)).read, _LONGEST)
    assert (kind, body) == (MessageKind.FILE, _SAID), f"{body!r}: something is left of it"


def _check_answer(message: bytes, size: int) -> None:
    stream = BytesIO(message)
    kind, body = receive_message(stream.read, _LONGEST)
    assert not stream.read(), "there is more than a message"
    assert _SECRET.encode() not in body, "it was elsewhere"
    if kind is MessageKind.FILE:
        assert len(body) <= size, f"{len(body)} octets"
        return
    assert kind in (MessageKind.REFUSED, MessageKind.LAST)
    why = decode_refusal(body).reason
    assert why.isprintable(), f"{why!r} is more than a line"
    assert 0 < len(why) <= 1000, "no line, or a long one"


def _wanted(choices: Choices) -> RenderContext:
    def word() -> bytes:
        return choices.octets(20) if choices.flag() else choices.one(_WORDS)

    mac = choices.one((None, b"\x52\x54\0\xab\xcd\xef"))
    address = ip_address(choices.one(("192.0.2.7", "2001:db8::7")))
    client = Client(address, lambda: mac, server="192.0.2.1")
    return RenderContext(word(), RequestName(word(), groups={"a": word()}), client)


def _answered(job: RenderJob) -> bytes:
    """What is said to a job."""
    templates = _templates()
    with catch_warnings(action="ignore"), _memory(), reach().beneath(str(job.grant.root)):
        message = render_message(templates, job)
    if message[0] == MessageKind.LAST:
        _templates.cache_clear()  # what is left of it is in pieces
    return message


@cache
def _templates() -> TemplateSandbox:
    templates = TemplateSandbox()
    for environment in (templates._environment, templates._cache.crlf_environment):
        reach().watch(environment)
    return templates


@cache
def _root() -> Path:
    base = place() / "templates"
    for name, text in _FILES.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (base / "root/link.j2").symlink_to("../outside/secret.j2")
    return base / "root"


@contextmanager
def _memory() -> Iterator[None]:
    """What is done in here has so much, as in a process of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + _MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def _time() -> Iterator[None]:
    """What is done in here ends by `_Ended`, once its time is over and a template's code runs.

    Elsewhere it could be in the middle of what others have too.
    """

    def end(number: int, frame: FrameType | None) -> None:
        known = frame.f_globals if frame is not None else {}
        if "__jinja_template__" in known or known.get("__name__") in _INTERRUPTED:
            raise _Ended

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, _TIME, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
