"""Templates of jinja2, in its sandbox, and what they include beneath one root."""

from collections import OrderedDict
from collections.abc import Iterable, MutableMapping
from dataclasses import replace
from types import CodeType
from typing import Any

from jinja2 import (
    BaseLoader,
    Environment,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplatesNotFound,
    TemplateSyntaxError,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tftpd.access.paths import PARENT, TEMPORARY, Name, printable_name, split_name
from tftpd.access.policy import Grant, ReadPolicy
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.storage.source import FileSource
from tftpd.templates.protocol import RenderJob, line

LONGEST = 1 << 20
"""Octets of a template."""

_KEPT = 4 << 20  # octets of templates that stay compiled
_EACH = 8 << 10  # octets that each counts as beside its own
_LONGEST_ERROR = 300  # characters


class Templates:
    """Renders, each time as if for the first time; what was compiled is kept.

    Lines that hold nothing but tags leave nothing, not even their ends, and
    the ends of lines are as in the template.
    """

    def __init__(self) -> None:
        self._environment = _Environment(
            loader=_Nowhere(),
            undefined=StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            cache_size=0,  # it keeps values too, from one client to the next
        )
        self._compiled = _Compiled(self._environment)

    def render(self, job: RenderJob) -> bytes:
        """The file that `job` is for.

        Raises `Refused` as a file that cannot be read does, or with all that
        is wrong with a template in one line; and `MemoryError`.
        """
        tree = _Tree(job.grant, self._compiled)
        self._environment.loader = self._compiled.with_returns.loader = tree
        name = _text(b"/".join(job.grant.name))
        octets = _read(job.grant)
        try:
            template = tree.template(name, octets)
            context = template.new_context(dict(job.facts))
            return _together(template.root_render_func(context), job.size)
        except MemoryError:
            raise
        except Exception as error:
            raise RequestRefused(
                ErrorCode.NOT_DEFINED, _told(error, name), ErrorText.TEMPLATE_FAILED
            ) from None


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, in which `facts.items` is a fact where there is one of that name."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


class _Unfit(Exception):
    """The text says why there is no file."""


class _Compiled:
    """The code of the templates that were used last, by their names and octets.

    They are read each time, and never old: that costs less than it seems, and
    no time of change is fine enough to tell of every change.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        environment.globals.pop("lipsum")
        environment.globals["dict"] = _dict
        self.with_returns = environment.overlay(newline_sequence="\r\n")
        self._codes: OrderedDict[tuple[str, bytes], CodeType] = OrderedDict()
        self._size = 0

    def template(self, name: str, octets: bytes) -> Template:
        """One that has no values from before."""
        returns = octets.partition(b"\n")[0].endswith(b"\r")
        environment = self.with_returns if returns else self._environment
        key = (name, octets)
        code = self._codes.get(key)
        if code is None:
            code = self._codes[key] = environment.compile(_decoded(octets), name)
            self._size += len(octets) + _EACH
            while self._size > _KEPT:
                (_, dropped), _ = self._codes.popitem(last=False)
                self._size -= len(dropped) + _EACH
        else:
            self._codes.move_to_end(key)
        return environment.template_class.from_code(
            environment, code, environment.make_globals(None)
        )


def _dict(*pairs: Any, **values: Any) -> dict[Any, Any]:
    """jinja2's `dict`, but no class: of a part of one, such as `dict[0]`, `mro()` may be asked."""
    return dict(*pairs, **values)


class _Nowhere(BaseLoader):
    """Has no templates."""


class _Tree(BaseLoader):
    """The templates beneath the root of a grant, or beneath what is the client's own there.

    Each stays as it is when it is first needed.
    """

    def __init__(self, grant: Grant[ReadPolicy], compiled: _Compiled) -> None:
        self._grant = grant
        self._compiled = compiled
        self._loaded: dict[str, Template] = {}

    def template(self, name: str, octets: bytes) -> Template:
        """That of these octets, which is the one of this name from now on."""
        template = self._loaded[name] = self._compiled.template(name, octets)
        return template

    def load(
        self,
        environment: Environment,
        name: str,
        globals: MutableMapping[str, Any] | None = None,  # noqa: A002  jinja2's name
    ) -> Template:
        """jinja2: the template of a name, which is one beneath the root."""
        if name in self._loaded:
            return self._loaded[name]
        grant = self._grant
        try:
            own = grant.name[: grant.own]
            octets = _read(replace(grant, name=(*own, *_beneath(name))))
        except RequestRefused as refused:
            if refused.code is ErrorCode.FILE_NOT_FOUND:
                raise TemplateNotFound(name) from None
            raise _Unfit(f'"{_shown(name)}": {refused}') from None
        return self.template(name, octets)


def _beneath(name: str) -> Name:
    """The steps of a name that a template includes; raises `Refused`."""
    walked = split_name(name.encode("utf-8", "surrogateescape"))
    if PARENT in walked:
        raise RequestRefused(
            ErrorCode.ACCESS_VIOLATION, "names are those beneath the root, without .."
        )
    if any(step.startswith(TEMPORARY) for step in walked):
        raise RequestRefused(
            ErrorCode.ACCESS_VIOLATION, "the name is reserved for unfinished uploads"
        )
    return walked


def _read(grant: Grant[ReadPolicy]) -> bytes:
    source = FileSource.open(grant)
    try:
        if source.size > LONGEST:
            why = f"has {source.size} octets, a template at most {LONGEST}"
            raise RequestRefused(ErrorCode.NOT_DEFINED, why, ErrorText.TEMPLATE_FAILED)
        room = bytearray(source.size)
        at = 0
        while at < len(room):
            at += source.read([memoryview(room)[at:]], at, wait=True)
        source.check_unchanged()
        return bytes(room)
    finally:
        source.close()


def _decoded(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        line = 1 + octets.count(b"\n", 0, error.start)
        raise _Unfit(f"not UTF-8 in line {line}") from None


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _together(pieces: Iterable[str], size: int) -> bytes:
    """The octets of all pieces; raises `_Unfit` where there are more than `size`."""
    octets = bytearray()
    for piece in pieces:
        octets += piece.encode("utf-8", "surrogateescape")
        if len(octets) > size:
            raise _Unfit(f"gives more than {size} octets")
    return bytes(octets)


def _told(error: Exception, name: str) -> str:
    """Where it went wrong, and what, in one line; `name` is told by whoever asked."""
    place, number = _place(error, name)
    where = "" if place == name else f"in {_shown(place)} "
    where += f"line {number}: " if number else ""
    return where + line(_words(error), _LONGEST_ERROR)


def _words(error: Exception) -> str:
    match error:
        case TemplatesNotFound():
            return str(error)
        case TemplateNotFound():
            return f'there is no "{_shown(str(error))}"'
        case RecursionError():
            return "nested too deep, or includes itself"
        case _Unfit() | TemplateError() if error.args:
            return str(error.args[0])  # the sandbox's and of names that are not defined, too
    return f"{type(error).__name__}: {error}"


def _place(error: Exception, name: str) -> tuple[str, int]:
    """The template and the line of it that `error` comes from; line 0 is none."""
    if isinstance(error, TemplateSyntaxError):
        return error.name or name, error.lineno
    place, number = name, 0
    trace = error.__traceback__
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        if isinstance(template, Template):
            place = template.name or name
            number = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return place, number


def _shown(name: str) -> str:
    """`name` as logs have it."""
    return printable_name(name.encode("utf-8", "surrogateescape"))
