"""What a template gets at: each object that the sandbox gives it, and what it has of the system."""

import encodings
import os
import pkgutil
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from jinja2 import Environment, Template, Undefined
from jinja2.runtime import Context
from jinja2.utils import Cycler, Joiner, Namespace

_INNER = (
    *(types.ModuleType, types.CodeType, types.FrameType, types.TracebackType),
    *(Environment, Context, Template),
)
_TYPES = frozenset({Cycler, Joiner, Namespace})  # that templates may make values of
_NEEDED = frozenset(
    {
        *("compile", "exec", "code.__new__", "object.__getattr__", "sys._getframe"),  # by jinja2
        *("builtins.id", "marshal.loads"),  # by pprint, and by the import of a codec
    }
)
_LATE = ("jinja2.debug", "html", "pprint", "textwrap", "unicodedata")  # imported where needed
_CODECS = encodings.__path__[0]  # `''.encode(name)` looks there, and nowhere else
_MOST_BITS = 1 << 14
"""Of a number: who reckons with larger ones hears no signal, and has to be killed."""


@dataclass
class Reach:
    """Where templates may reach to, while they may reach anywhere, and what they have reached.

    It is told in the end: a template, and whoever renders it, may pass over exceptions.
    """

    root: str = ""
    wrong: list[str] = field(default_factory=list)

    @contextmanager
    def beneath(self, root: str) -> Iterator[None]:
        """What is done in here opens files beneath `root`, to read them, and asks nothing else."""
        self.root = root
        self.wrong.clear()
        try:
            yield
        finally:
            self.root = ""
        assert not self.wrong, self.wrong[0]

    def watch(self, environment: Environment) -> None:
        """Look at each object that `environment` gives to a template."""

        def watched(get: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
            def give(obj: Any, name: Any) -> Any:
                value = get(obj, name)
                inner = isinstance(name, str) and name.startswith("_")
                if inner and not isinstance(obj, Mapping) and not isinstance(value, Undefined):
                    self.wrong.append(f"{name} of {type(obj)} is given")
                return self._given(value)

            return give

        def called(call: Callable[..., Any]) -> Callable[..., Any]:
            return lambda context, /, *given, **named: self._given(call(context, *given, **named))

        def reckoned(context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_numbers(operator, left, right)
            return environment.binop_table[operator](left, right)  # type: ignore[attr-defined]

        for name, instead in (
            ("getattr", watched(environment.getattr)),
            ("getitem", watched(environment.getitem)),
            ("call", called(environment.call)),  # type: ignore[attr-defined]
            ("intercepted_binops", frozenset({"*", "**", "/", "//", "%"})),
            ("call_binop", reckoned),
        ):
            setattr(environment, name, instead)

    def hear(self, event: str, said: tuple[Any, ...]) -> None:
        """What this process asks of the system (PEP 578)."""
        if self.root and not self._allowed(event, said):
            self.wrong.append(f"{event} {said}")

    def _allowed(self, event: str, said: tuple[Any, ...]) -> bool:
        match event:
            case "open":
                return _reads(said[0], said[2], self.root)
            case "import":
                return bool(said[0].startswith("encodings."))
            case "os.listdir":
                return bool(said[0] == _CODECS)
        return event in _NEEDED

    def _given(self, value: Any) -> Any:
        if isinstance(value, _INNER) or (isinstance(value, type) and value not in _TYPES):
            self.wrong.append(f"{value} is given")
        return value


@cache
def reach() -> Reach:
    """That of this process, which hears of it for good."""
    codecs = [f"encodings.{each.name}" for each in pkgutil.iter_modules(encodings.__path__)]
    for name in (*_LATE, *codecs):
        with suppress(ImportError):  # of another system
            import_module(name)
    made = Reach()
    sys.addaudithook(made.hear)
    return made


def _reads(path: Any, flags: int, root: str) -> bool:
    """Whether that opens `root`, or a step from there, for nothing but to read it."""
    step = os.fsdecode(path) if isinstance(path, str | bytes) else str(path)
    reads = flags & os.O_ACCMODE == os.O_RDONLY and not flags & (os.O_CREAT | os.O_TRUNC)
    beneath = step == root or ("/" not in step and step != "..")
    return reads and (beneath or step.startswith(_CODECS))


def _check_numbers(operator: str, left: Any, right: Any) -> None:
    if not isinstance(left, int) or not isinstance(right, int):
        return
    bits = max(left.bit_length(), right.bit_length())
    if bits > _MOST_BITS or (operator == "**" and left.bit_length() * abs(right) > _MOST_BITS):
        raise OverflowError("a number too large for this")
