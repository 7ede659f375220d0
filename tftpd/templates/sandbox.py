"""Jinja sandbox: renders templates, which may include others below the same root."""

import importlib.metadata
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import replace
from types import CodeType
from typing import Any

import jinja2
from jinja2 import Environment, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tftpd.access.origin_roots import OriginRoot
from tftpd.access.paths import (
    PARENT,
    Name,
    escape_control_chars,
    printable_name,
    refuse_reserved,
    split_name,
)
from tftpd.access.policy import Grant, ReadPolicy
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage.source import read_whole
from tftpd.storage.walk import open_file
from tftpd.templates.protocol import RenderJob, check_template_size, template_failed

_CACHE_BYTES = 4 << 20  # of the source of compiled templates
_ENTRY_BYTES = 8 << 10  # added to the source of each compiled template
_MAX_ERROR_CHARS = 300

# Each expression reaches the class of an object, and so everything, if the sandbox has the
# hole: attributes, str.format() by name, stored (CVE-2024-56326), or found by the filter
# `attr` (CVE-2025-27516). A distribution may have patched an old version.
_ESCAPES = (
    "{{ ''.__class__ }}",
    "{{ ''|attr('__class__') }}",
    "{{ '{0.__class__}'.format(0) }}",
    "{{ '{x.__class__}'.format_map({'x': 0}) }}",
    "{{ ('{0.__class__}'|attr('format'))(0) }}",
    "{{ ('{x.__class__}'|attr('format_map'))({'x': 0}) }}",
    "{{ ('{0.__class__}'|safe|attr('format'))(0) }}",
    "{% for f in ['{0.__class__}']|map('attr', 'format') %}{{ f(0) }}{% endfor %}",
    "{% set n = namespace(f='{0.__class__}'.format) %}{{ n.f(0) }}",
    "{% macro m(f) %}{{ f(0) }}{% endmacro %}{{ m('{0.__class__}'.format) }}",
)


class TemplateSandbox:
    """Renders templates; caches the compiled code, but no values between two renderings.

    A line that contains only block tags leaves no output. Line ends are those of the template.
    """

    def __init__(self) -> None:
        """Create the sandbox.

        Raises:
            ImportError: A template can leave the sandbox of the installed jinja2.
        """
        self._environment = _Environment(
            undefined=jinja2.StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            cache_size=0,  # jinja's cache would keep values of one client for the next
        )
        self._cache = _CompiledCache(self._environment)
        self._check_escapes()

    def render(self, job: RenderJob) -> bytes:
        """Return the file of a job, or nothing if its template shall be compiled only.

        Raises:
            RequestRefused: The template cannot be read, or it has an error. The reason is one
                line with the place and the error.
            MemoryError: The process has no memory left.
        """
        loader = _TreeLoader(job.grant, self._cache)
        self._environment.loader = self._cache.crlf_environment.loader = loader
        name = _decode_name(b"/".join(job.grant.name))
        source = _read_template(job.grant) if job.source is None else job.source
        try:
            template = loader.add(name, source)
            if job.variables is None:
                return b""
            context = template.new_context(dict(job.variables))
            return _join(template.root_render_func(context), job.max_size)
        except MemoryError:
            raise
        except Exception as error:
            raise template_failed(_describe_error(error, name)) from None

    def _check_escapes(self) -> None:
        for template in _ESCAPES:
            with suppress(jinja2.TemplateError):
                if "class" in self._environment.from_string(template).render():
                    version = importlib.metadata.version("jinja2")
                    raise ImportError(
                        f"version {version} is unsafe: a template can leave its sandbox by "
                        f"{template}; install 3.1.6 or newer"
                    )


class _Environment(ImmutableSandboxedEnvironment):
    """Sandbox in which `variables.items` is the variable `items`, if there is one."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


class _RenderError(Exception):
    """The template gives no file; the argument is the reason."""


class _CompiledCache:
    """Least recently used code of templates, by name and source.

    The source is read at each use, so that the code is never outdated. That is fast enough, and
    no timestamp is fine enough to show every change.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        environment.globals.pop("lipsum")
        environment.globals["dict"] = _make_dict
        self.crlf_environment = environment.overlay(newline_sequence="\r\n")
        self._codes: dict[tuple[str, bytes], CodeType] = {}
        self._size = 0

    def get(self, name: str, source: bytes) -> Template:
        """Return a template without values from an earlier rendering."""
        crlf = source.partition(b"\n")[0].endswith(b"\r")
        environment = self.crlf_environment if crlf else self._environment
        key = (name, source)
        code = self._codes.pop(key, None)
        if code is None:
            code = environment.compile(_decode_source(source), name)
            self._size += len(source) + _ENTRY_BYTES
        self._codes[key] = code  # the last one is the most recently used
        while self._size > _CACHE_BYTES:
            oldest = next(iter(self._codes))
            del self._codes[oldest]
            self._size -= len(oldest[1]) + _ENTRY_BYTES
        return environment.template_class.from_code(
            environment, code, environment.make_globals(None)
        )


def _make_dict(*pairs: Any, **values: Any) -> dict[Any, Any]:
    """Do what `dict` does, as a function: a class gives access to `dict[0].mro()`."""
    return dict(*pairs, **values)


class _TreeLoader(jinja2.BaseLoader):
    """Loader of templates below the root of a grant, or below the client's own directory there.

    A template does not change during one rendering.
    """

    def __init__(self, grant: Grant[ReadPolicy], cache: _CompiledCache) -> None:
        self._grant = grant
        self._cache = cache
        self._loaded: dict[str, Template] = {}

    def add(self, name: str, source: bytes) -> Template:
        """Compile a template and use it for this name from now on."""
        template = self._loaded[name] = self._cache.get(name, source)
        return template

    def load(self, environment: Environment, name: str, globals: Any = None) -> Template:  # noqa: A002  jinja2's name
        """Return the template with a name below the root (called by jinja2)."""
        if name in self._loaded:
            return self._loaded[name]
        grant = self._grant
        try:
            own = grant.name[: grant.own]
            source = _read_template(replace(grant, name=(*own, *_split_include(name))))
        except RequestRefused as refused:
            if refused.code is ErrorCode.FILE_NOT_FOUND:
                raise jinja2.TemplateNotFound(name) from None
            raise _RenderError(f'"{_printable(name)}": {refused}') from None
        return self.add(name, source)


def _split_include(name: str) -> Name:
    """Return the components of a name that a template includes; raise `RequestRefused`."""
    components = split_name(_encode_name(name))
    if PARENT in components:
        reason = 'a template name is relative to the root, without ".."'
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, reason)
    refuse_reserved(components)
    return components


def _read_template(grant: Grant[ReadPolicy]) -> bytes:
    if isinstance(grant.root, OriginRoot):
        reason = "a template at an origin cannot include others"
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, reason)
    with closing(open_file(grant)) as source:
        check_template_size(source.size)
        return read_whole(source)


def _decode_source(source: bytes) -> str:
    try:
        return source.decode()
    except UnicodeDecodeError as error:
        line = 1 + source.count(b"\n", 0, error.start)
        raise _RenderError(f"not UTF-8 in line {line}") from None


def _decode_name(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _encode_name(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _join(pieces: Iterable[str], max_size: int) -> bytes:
    """Return all pieces as bytes; raise `_RenderError` if they exceed `max_size` bytes."""
    data = bytearray()
    for piece in pieces:
        data += piece.encode("utf-8", "surrogateescape")
        if len(data) > max_size:
            raise _RenderError(f"the file is larger than {max_size} bytes")
    return bytes(data)


def _describe_error(error: Exception, name: str) -> str:
    """Return one line with the place and the error.

    The name of the requested template is omitted: the caller adds it.
    """
    template, number = _find_place(error, name)
    place = "" if template == name else f"in {_printable(template)} "
    place += f"line {number}: " if number else ""
    return place + escape_control_chars(_error_message(error), _MAX_ERROR_CHARS)


def _error_message(error: Exception) -> str:
    match error:
        case jinja2.TemplatesNotFound():
            return str(error)
        case jinja2.TemplateNotFound():
            return f'there is no "{_printable(str(error))}"'
        case RecursionError():
            return "nested too deeply, or includes itself"
        case _RenderError() | jinja2.TemplateError() if error.args:
            return str(error.args[0])  # TemplateError: sandbox errors and undefined names, too
    return f"{type(error).__name__}: {error}"


def _find_place(error: Exception, name: str) -> tuple[str, int]:
    """Return the template and the line that raised `error`; line 0 stands for none."""
    if isinstance(error, jinja2.TemplateSyntaxError):
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


def _printable(name: str) -> str:
    return printable_name(_encode_name(name))
