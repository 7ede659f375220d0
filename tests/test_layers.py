"""Imports point down only: the layers of docs/explanation/architecture.md."""

import ast
import sys
from functools import cache
from graphlib import TopologicalSorter
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
    "dataplane": set(),
    "origins": {
        *("protocol", "access", "storage", "config", "obstore", "urllib3", "pydantic"),
    }
    | TWISTED,
    "events": {"config"},
    "net": {"protocol", "access", "dataplane", "storage"} | TWISTED,
    "server": {
        *("protocol", "access", "dataplane", "storage", "templates", "config", "net"),
        *("origins", "pydantic"),
    }
    | TWISTED,
    "http": {
        *("protocol", "access", "storage", "config", "net", "server", "OpenSSL"),
    }
    | TWISTED,
    "status": {
        *("protocol", "access", "dataplane", "storage", "config", "net", "server"),
        *("origins", "events", "prometheus_client", "pydantic"),
    }
    | TWISTED,
    "daemon": {
        *("protocol", "access", "dataplane", "storage", "templates", "config", "net", "server"),
        *("origins", "events", "status", "http"),
    }
    | TWISTED,
    "client": {"protocol", "access", "dataplane", "storage", "net"} | TWISTED,
}
OWNERS_OF_THE_REACTOR = {
    *("daemon/service.py", "daemon/worker.py", "daemon/fetcher_process.py"),
    "daemon/event_process.py",
    "client/cli.py",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


@cache
def _parsed(path):
    return ast.parse(path.read_text())


@cache
def _imported(path):
    """Return the dotted names that a module imports; `from x import y` gives x.y."""
    names = []
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_from_its_layer_and_below(path):
    layer, *_ = path.relative_to(PACKAGE).parts
    assert layer in {*LAYERS, "__init__.py"}, f"{path} is on no layer"
    allowed = LAYERS[layer] | {layer} if layer in LAYERS else set()
    for name in _imported(path):
        top, *rest = name.split(".")
        if top == "tftpd":
            assert not rest or rest[0] in allowed, f"{path} imports {name}"
        elif top not in sys.stdlib_module_names:
            assert top in allowed, f"{path} imports {name}"


def test_the_package_itself_imports_nothing():
    assert _imported(PACKAGE / "__init__.py") == []


def test_only_the_entry_points_import_the_reactor():
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


def test_libraries_of_origins_are_imported_in_one_place():
    """A daemon without origins, or with one kind, does not load the libraries of the others."""
    owners = {"obstore": "object_store.py", "urllib3": "web_store.py", "OpenSSL": "tls.py"}
    for library, owner in owners.items():
        importers = [
            path.name
            for path in MODULES
            if any(name.split(".")[0] == library for name in _imported(path))
        ]
        assert set(importers) <= {owner}


def test_no_import_is_part_of_a_cycle():
    """Imports for type checkers and imports within functions count too."""
    modules = {_module_name(path): path for path in MODULES}
    graph = {
        name: {
            imported if imported in modules else imported.rpartition(".")[0]
            for imported in _imported(path)
            if imported.startswith("tftpd.")
        }
        - {name}
        for name, path in modules.items()
    }
    assert set().union(*graph.values()) <= set(modules) | {"tftpd", "tftpd.dataplane._native"}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules
