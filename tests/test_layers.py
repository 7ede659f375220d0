"""Imports point down only: the drawing in docs/explanation/architecture.md, held to the code."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "tftpd"

TWISTED = {"twisted", "zope"}
LAYERS = {
    "protocol": set(),
    "access": {"protocol", "re2"},
    "storage": {"protocol", "access"},
    "templates": {"protocol", "access", "storage", "jinja2"},
    "config": {"protocol", "access", "storage", "yaml", "pydantic", "pydantic_core"},
    "net": {"protocol", "access", "storage"} | TWISTED,
    "server": {"protocol", "access", "storage", "templates", "config", "net"} | TWISTED,
    "status": {
        *("protocol", "access", "storage", "config", "net", "server"),
        "prometheus_client",
    }
    | TWISTED,
    "daemon": {
        *("protocol", "access", "storage", "templates", "config", "net", "server", "status"),
    }
    | TWISTED,
    "client": {"protocol", "access", "storage", "net", "tqdm"} | TWISTED,
}
OWNERS_OF_THE_REACTOR = {"daemon/service.py", "daemon/worker.py", "client/cli.py"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def _imported(path):
    """Dotted names that a module imports, those of `from x import y` as x.y."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_from_its_floor_and_below(path):
    floor, *_ = path.relative_to(PACKAGE).parts
    assert floor in {*LAYERS, "__init__.py"}, f"{path} is on no floor"
    allowed = LAYERS[floor] | {floor} if floor in LAYERS else set()
    for name in _imported(path):
        top, *rest = name.split(".")
        if top == "tftpd":
            assert not rest or rest[0] in allowed, f"{path} imports {name}"
        elif top not in sys.stdlib_module_names:
            assert top in allowed, f"{path} imports {name}"


def test_the_package_itself_imports_nothing():
    assert list(_imported(PACKAGE / "__init__.py")) == []


def test_the_reactor_is_an_argument_but_where_the_program_begins():
    owners = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if "twisted.internet.reactor" in _imported(path)
    }
    assert owners <= OWNERS_OF_THE_REACTOR


def test_yaml_is_read_in_one_place():
    readers = [path.name for path in MODULES if "yaml" in _imported(path)]
    assert readers == ["yaml_document.py"]


def test_jinja2_is_imported_in_one_place():
    tops = {path.name: {name.split(".")[0] for name in _imported(path)} for path in MODULES}
    assert [name for name, imported in tops.items() if "jinja2" in imported] == ["sandbox.py"]
