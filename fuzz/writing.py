"""Templates made of choices: right ones, wrong ones, and some that want more than they may."""

from fuzz.choices import Choices

PARTS = (
    "part.j2",
    "base.j2",
    "macros.j2",
    "t.j2",
    "sub/part.j2",
    "../outside/secret.j2",
    "link.j2",
)

_DEEPEST = 4  # statements in statements, and operators in operators
_MOST = 6  # statements beside each other

_NAMES = (
    *("x", "n", "facts", "ip", "mac", "name", "asked", "groups", "server", "ip_hex", "loop"),
    *("range", "cycler", "joiner", "namespace", "dict", "self", "m", "caller", "varargs"),
    *("kwargs", "super", "missing", "true", "none", "lipsum", "p", "_", "__class__", "é"),
)
_CONSTANTS = (
    *("0", "1", "-1", "3", "255", "100000", "1000000000", "2.5", "1e308", "9" * 40, "''", "'a'"),
    *("'{0.__class__.__mro__}'", "'{0[a].__init__.__globals__}'", "'{:>1000000000}'", "'%s%s'"),
    *("'%(a)s'", "'%1000000000d'", "'{x}'", "'__class__'", "'update'", "'a<b>&\\n\\t\\x00'"),
    *("'\\ud800'", "'\\udcff'", "[]", "[1, 'a', none]", "{}", "{'a': [1]}", "(1,)", "'a' * 1000"),
)
_ATTRIBUTES = (
    *("a", "list", "items", "keys", "update", "append", "pop", "format", "format_map", "join"),
    *("__class__", "__mro__", "__subclasses__", "__init__", "__globals__", "__builtins__"),
    *("__dict__", "__code__", "gi_frame", "f_globals", "mro", "_func", "environment", "blocks"),
    *("next", "current", "index", "cycle", "changed", "parent", "name", "upper", "encode"),
    *("_TemplateReference__context", "__self__", "__call__", "split", "zfill", "center", "b"),
)
_FILTERS = (
    *("abs", "attr", "batch", "capitalize", "center", "default", "dictsort", "escape", "first"),
    *("filesizeformat", "float", "forceescape", "format", "groupby", "indent", "int", "items"),
    *("join", "last", "length", "list", "lower", "map", "max", "min", "pprint", "random"),
    *("reject", "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr"),
    *("slice", "sort", "string", "striptags", "sum", "title", "tojson", "trim", "truncate"),
    *("unique", "upper", "urlencode", "urlize", "wordcount", "wordwrap", "xmlattr", "nothing"),
)
_TESTS = (
    *("defined", "undefined", "none", "odd", "divisibleby(3)", "in(x)", "iterable", "mapping"),
    *("sameas(x)", "string", "callable", "filter", "test", "lt(3)", "escaped", "number", "nothing"),
)
_BINARY = ("+", "-", "*", "/", "//", "%", "**", "~", "and", "or", "in", "not in", "==", "<", ">=")
_KEYWORDS = ("attribute", "default", "width", "indent", "reverse", "x", "fill_with", "a")
_RAW = (
    *("{{", "}}", "{%", "%}", "{#", "#}", "{%-", "-%}", "{%+", "\n", "\r\n", "  ", "\t", "|", "("),
    *(")", "endfor", "{% endif %}", "{% raw %}", "{% endraw %}", "\\", "'", "[", "]", "{% do x %}"),
    *("{% debug %}", "{% trans %}", "\0", "\ufeff", "é", "{% break %}", "not " * 40, "(" * 60),
)


def written(choices: Choices) -> bytes:
    """A template, at times with octets that are none."""
    text = _body(choices, 0).encode()
    return text + choices.octets(20) if choices.number(7) == 1 else text


def _body(choices: Choices, depth: int) -> str:
    return "".join(_statement(choices, depth) for _ in range(choices.number(_MOST)))


def _statement(choices: Choices, depth: int) -> str:
    def body() -> str:
        return _body(choices, depth + 1)

    def value() -> str:
        return _value(choices, depth)

    def name() -> str:
        return choices.one(_NAMES)

    if depth >= _DEEPEST:
        return f"{{{{ {value()} }}}}"
    match choices.number(19):
        case 0:
            return choices.octets(12).decode("utf-8", "replace")
        case 1:
            return choices.one(_RAW)
        case 2 | 3 | 4 | 5:
            return f"{{{{ {value()} }}}}"
        case 6:
            condition = f" if {value()}" if choices.flag() else ""
            recursive = " recursive" if choices.flag() else ""
            head = f"{{% for {name()} in {value()}{condition}{recursive} %}}"
            return (
                head + body() + ("{% else %}" + body() if choices.flag() else "") + "{% endfor %}"
            )
        case 7:
            return f"{{% if {value()} %}}{body()}{{% elif {value()} %}}{body()}{{% endif %}}"
        case 8:
            return f"{{% set {name()} = {value()} %}}"
        case 9:
            return f"{{% set n = namespace(x={value()}) %}}{{% set n.{_attribute(choices)} = n %}}"
        case 10:
            filtered = f" | {_filter(choices, depth)}" if choices.flag() else ""
            return f"{{% set {name()}{filtered} %}}{body()}{{% endset %}}"
        case 11:
            return f"{{% macro m(x, y={value()}) %}}{body()}{{% endmacro %}}{{{{ m({value()}) }}}}"
        case 12:
            return f"{{% call(x) m({value()}) %}}{body()}{{% endcall %}}"
        case 13:
            return f"{{% filter {_filter(choices, depth)} %}}{body()}{{% endfilter %}}"
        case 14:
            missing = " ignore missing" if choices.flag() else ""
            without = " without context" if choices.flag() else ""
            return f"{{% include {_part(choices, depth)}{missing}{without} %}}"
        case 15:
            return f"{{% import {_part(choices, depth)} as p %}}{{{{ p.{_attribute(choices)} }}}}"
        case 16:
            return f"{{% from {_part(choices, depth)} import m, {_attribute(choices)} as x %}}"
        case 17:
            return f"{{% extends {_part(choices, depth)} %}}"
        case 18:
            head = choices.one(("a", "b", "a scoped", "b required"))
            return f"{{% block {head} %}}{body()}{{{{ super() }}}}{{% endblock %}}"
        case _:
            tag = choices.one(("with x = ", "autoescape "))
            return f"{{% {tag}{value()} %}}{body()}{{% end{tag.split()[0]} %}}"


def _value(choices: Choices, depth: int) -> str:
    def value() -> str:
        return _value(choices, depth + 1)

    if depth >= _DEEPEST:
        return choices.one(_NAMES if choices.flag() else _CONSTANTS)
    match choices.number(13):
        case 0 | 1:
            return choices.one(_NAMES)
        case 2:
            return choices.one(_CONSTANTS)
        case 3:
            return f"{value()}.{_attribute(choices)}"
        case 4:
            return f"{value()}[{value()}]"
        case 5:
            return f"{value()}[{value()}:{value()}]"
        case 6:
            return f"{value()}({_arguments(choices, depth)})"
        case 7 | 8:
            return f"({value()} | {_filter(choices, depth)})"
        case 9:
            return f"({value()} is {choices.one(_TESTS)})"
        case 10:
            return f"({value()} {choices.one(_BINARY)} {value()})"
        case 11:
            return f"({value()} if {value()} else {value()})"
        case 12:
            return f"[{value()}, {value()}]"
        case _:
            return f"{{{value()}: {value()}}}"


def _filter(choices: Choices, depth: int) -> str:
    found = choices.one(_FILTERS)
    return f"{found}({_arguments(choices, depth)})" if choices.flag() else found


def _arguments(choices: Choices, depth: int) -> str:
    said = []
    for _ in range(choices.number(3)):
        given = _value(choices, depth + 1)
        match choices.number(7):
            case 0:
                given = f"{choices.one(_KEYWORDS)}={given}"
            case 1:
                given = f"'{_attribute(choices)}'"
            case 2:
                given = choices.one(("*", "**")) + given
        said.append(given)
    return ", ".join(said)


def _attribute(choices: Choices) -> str:
    return choices.one(_ATTRIBUTES)


def _part(choices: Choices, depth: int) -> str:
    if choices.flag():
        return f"'{choices.one(PARTS)}'"
    return _value(choices, depth)
