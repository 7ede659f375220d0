"""Audit of what a template reaches: the objects that the sandbox returns, and system calls."""

import encodings
import os
import pkgutil
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from jinja2 import Environment, Template, Undefined
from jinja2.runtime import Context
from jinja2.utils import Cycler, Joiner, Namespace

_FORBIDDEN = (
    *(types.ModuleType, types.CodeType, types.FrameType, types.TracebackType),
    *(Environment, Context, Template),
)
_ALLOWED_TYPES = (Cycler, Joiner, Namespace)  # classes that templates may call
_ALLOWED_EVENTS = (
    *("compile", "exec", "code.__new__", "object.__getattr__", "sys._getframe"),  # jinja2
    *("builtins.id", "marshal.loads"),  # pprint, and the import of a codec
)
_IMPORTED_LATE = ("jinja2.debug", "html", "pprint", "textwrap", "unicodedata")
_CODECS = encodings.__path__[0]  # `''.encode(name)` reads files of this directory
_MAX_NUMBER_BITS = 1 << 14  # no signal interrupts a calculation with large numbers


class SandboxAudit:
    """Records forbidden accesses of templates.

    They are reported at the end of a block, because a template and its renderer handle
    exceptions. The audit hook (PEP 578) stays installed until the process ends.
    """

    def __init__(self) -> None:
        codecs = [f"encodings.{entry.name}" for entry in pkgutil.iter_modules(encodings.__path__)]
        for name in (*_IMPORTED_LATE, *codecs):
            with suppress(ImportError):  # a codec of another system
                import_module(name)
        self._root = ""
        self._violations: list[str] = []
        sys.addaudithook(self._on_event)

    @contextmanager
    def only_below(self, root: str) -> Iterator[None]:
        """Fail if the block does more than read files below a directory."""
        self._root = root
        self._violations.clear()
        try:
            yield
        finally:
            self._root = ""
        assert not self._violations, self._violations[0]

    def watch(self, environment: Environment) -> None:
        """Check each object that the environment returns to a template."""
        sandbox: Any = environment

        def checked_lookup(lookup: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
            def get(owner: Any, name: Any) -> Any:
                value = self._check(lookup(owner, name))
                is_found = not isinstance(value, Undefined) and not isinstance(owner, Mapping)
                if is_found and isinstance(name, str) and name.startswith("_"):
                    self._violations.append(f"{name} of {type(owner)}")
                return value

            return get

        def limited_operation(context: Any, operator: str, left: Any, right: Any) -> Any:
            if isinstance(left, int) and isinstance(right, int):
                power_bits = left.bit_length() * abs(right) if operator == "**" else 0
                if max(left.bit_length(), right.bit_length(), power_bits) > _MAX_NUMBER_BITS:
                    raise OverflowError("the number is too large for this target")
            return sandbox.binop_table[operator](left, right)

        call = sandbox.call
        sandbox.call = lambda *args, **kwargs: self._check(call(*args, **kwargs))
        sandbox.getattr = checked_lookup(sandbox.getattr)
        sandbox.getitem = checked_lookup(sandbox.getitem)
        sandbox.intercepted_binops = frozenset({"*", "**", "/", "//", "%"})
        sandbox.call_binop = limited_operation

    def _check(self, value: Any) -> Any:
        is_type = isinstance(value, type) and value not in _ALLOWED_TYPES
        if is_type or isinstance(value, _FORBIDDEN):
            self._violations.append(f"{value}")
        return value

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._root and not self._is_allowed(event, arguments):
            self._violations.append(f"{event} {arguments}")

    def _is_allowed(self, event: str, arguments: tuple[Any, ...]) -> bool:
        match event:
            case "open":
                path, _, flags = arguments
                path = os.fsdecode(path) if isinstance(path, str | bytes) else str(path)
                writes = flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC) != os.O_RDONLY
                # The storage package opens one component at a time, relative to its directory.
                is_below = path == self._root or ("/" not in path and path != "..")
                return not writes and (is_below or path.startswith(_CODECS))
            case "import":
                return bool(arguments[0].startswith("encodings."))
            case "os.listdir":
                return bool(arguments[0] == _CODECS)
        return event in _ALLOWED_EVENTS
