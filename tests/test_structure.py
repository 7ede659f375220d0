"""Number, size and names of modules: limits that keep the code base easy to search."""

import ast
from collections import Counter

from tests.support.count_lines import BESIDE, CHECKOUT, count_below

PACKAGE = CHECKOUT / "tftpd"
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]

MAX_LINES = 25_020
MAX_EXTENSION_LINES = 500
MAX_LINES_BESIDE = 5_460
MAX_MODULES = 181
MAX_SMALL_MODULES = 8
SMALL_MODULE_LINES = 50

# Names that say the same in each package.
REPEATED_NAMES = {
    *("errors", "cli", "client", "profiles", "variables", "types", "settings"),
    *("service", "worker", "request", "server"),
}


def _repeated(names):
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _package(path):
    return path.relative_to(PACKAGE).parts[0]


def test_the_code_around_the_package_stays_within_its_limit():
    assert sum(count_below(CHECKOUT / name) for name in BESIDE) <= MAX_LINES_BESIDE


def test_the_package_stays_within_its_limit_of_lines():
    """A change that adds more code makes room elsewhere, or raises the limit with a reason."""
    assert count_below(CHECKOUT / "tftpd") <= MAX_LINES


def test_the_extension_has_at_most_500_lines():
    """All lines count, unlike those of Python: a reader must trust all of it."""
    lines = (PACKAGE / "dataplane/_native.c").read_text().splitlines()
    assert len(lines) <= MAX_EXTENSION_LINES


def test_the_number_of_modules_stays_within_its_limit():
    assert len(MODULES) <= MAX_MODULES


def test_few_modules_have_50_lines_or_fewer():
    small = [
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if len(path.read_text().splitlines()) <= SMALL_MODULE_LINES
    ]
    assert len(small) <= MAX_SMALL_MODULES, small


def test_a_module_name_is_used_once_in_a_package():
    assert _repeated((_package(path), path.stem) for path in MODULES) == []


def test_a_module_name_is_used_in_one_package_only():
    packages = {(_package(path), path.stem) for path in MODULES}
    repeated = _repeated(stem for _, stem in packages)
    assert [name for name in repeated if name not in REPEATED_NAMES] == []


def test_a_public_class_name_is_used_once():
    names = [
        node.name
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert _repeated(names) == []
