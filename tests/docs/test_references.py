"""References of the documents: to code, to tests, and to each other."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.blocks import DOCS, PAGES, TOP
from tests.support.daemons import CHECKOUT

MODULES = sorted((CHECKOUT / "tftpd").rglob("*.py"))

_FENCED = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^(#+) +(.*?) *$", re.MULTILINE)
_TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
_PLACEHOLDER = re.compile(r"[<*]|\b[A-Z]{3,}\b")


def page_id(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def prose(path: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCED.sub("", path.read_text())


def slug(heading: str) -> str:
    """The anchor that GitHub and MyST give to a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")


@cache
def anchors(path: Path) -> set[str]:
    return {slug(heading.replace("`", "")) for _, heading in _HEADING.findall(prose(path))}


@cache
def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("path", [*TOP, *PAGES], ids=page_id)
def test_every_cited_test_exists(path):
    cited = _TEST.findall(path.read_text())
    missing = [
        f"{file}::{name}"
        for file, name in cited
        if not (CHECKOUT / file).is_file() or name not in functions(CHECKOUT / file)
    ]
    assert missing == []


@pytest.mark.parametrize("path", [*TOP, *PAGES], ids=page_id)
def test_every_cited_file_of_the_code_exists(path):
    names = {name.partition("::")[0] for name in _CODE.findall(prose(path))}
    files = {
        name
        for name in names
        if re.fullmatch(r"[\w./-]+/[\w.-]+\.(py|yaml|txt)", name) and not name.startswith("/")
    }
    missing = [
        name
        for name in sorted(files)
        if not _PLACEHOLDER.search(name)
        and not (CHECKOUT / name).exists()
        and not (CHECKOUT / "tftpd" / name).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("path", [*TOP, *PAGES], ids=page_id)
def test_every_link_to_another_page_has_a_target(path):
    broken = []
    for target in _LINK.findall(prose(path)):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        if not page.is_file() or (anchor and anchor not in anchors(page)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_a_page_has_one_title(path):
    levels = [level for level, _ in _HEADING.findall(prose(path))]
    assert levels[0] == "#"
    assert levels.count("#") == 1


def test_the_architecture_lists_every_module_once():
    page = (DOCS / "explanation/architecture.md").read_text()
    section = page.partition("## Modules\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", section, re.MULTILINE)
    modules = [
        str(path.relative_to(CHECKOUT / "tftpd")) for path in MODULES if path.name != "__init__.py"
    ]
    assert sorted(listed) == sorted(modules)


def test_every_requirement_of_an_rfc_names_a_module_and_a_test():
    page = (DOCS / "reference/rfc.md").read_text()
    for title in ("RFC 1350", "RFC 1123", "RFC 2347", "RFC 2348", "RFC 2349", "RFC 7440"):
        section = page.partition(f"## {title}")[2].partition("\n## ")[0]
        rows = [row for row in re.findall(r"^\| .*$", section, re.MULTILINE) if "---" not in row]
        assert len(rows) > 1
        for row in rows[1:]:
            assert re.search(r"`tftpd/[\w/]+\.py`", row), row
            assert _TEST.search(row), row


def table(page: str, first: str) -> list[dict[str, str]]:
    """Return the rows of the table whose first column has this title."""
    rest = re.split(rf"^\| {first} +\|", page, maxsplit=1, flags=re.MULTILINE)[1]
    lines = rest.partition("\n\n")[0]
    names, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in f"{first} |{lines}".splitlines()
    ]
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_the_readme_has_the_ratios_of_the_measurements():
    """Versions of the servers are left out of their names."""
    measured = {
        row["scenario"]: row
        for row in table((DOCS / "explanation/performance.md").read_text(), "scenario")
    }
    readme = (CHECKOUT / "README.md").read_text().replace("| | tftpd |", "| of | tftpd |", 1)
    claims = {row["of"]: row for row in table(readme, "of")}
    for claim, scenario in {
        "speed, 256 clients, lock-step": "boot256",
        "speed, one client, windowsize 64": "win64",
        "speed, one client, lock-step": "lock1468",
        "speed, 16 clients, files of 4 KiB, lock-step": "small",
    }.items():
        figures = {
            name: float(re.sub("[,*]", "", figure))
            for name, figure in measured[scenario].items()
            if name in ("tftpd", "in.tftpd", "atftpd", "dnsmasq") and figure != "-"
        }
        row = {name.split()[0]: cell for name, cell in claims[claim].items()}
        row["in.tftpd"] = row["tftp-hpa"]
        for name, figure in figures.items():
            assert float(row[name]) == pytest.approx(figure / figures["tftpd"], abs=0.051), claim


def test_the_chinese_readme_has_the_commands_links_and_figures_of_the_english_one():
    english, chinese = (CHECKOUT / name for name in ("README.md", "README.zh-CN.md"))

    def commands(path: Path) -> list[str]:
        return [re.sub(r" *#.*", "", text) for _, _, text in _FENCED.findall(path.read_text())]

    assert [text for text in commands(english) if text not in commands(chinese)] == []
    assert set(_LINK.findall(prose(english))) - {chinese.name} <= set(_LINK.findall(prose(chinese)))
    assert set(re.findall(r"\d[\d.]*\d|\d", prose(english))) <= set(
        re.findall(r"\d[\d.]*\d|\d", prose(chinese))
    )

    def figures(path: Path) -> list[list[str]]:
        text = re.sub("not measured|未测", "-", prose(path))
        rows = re.findall(r"^\| (?:speed|速度|time to start|启动时间)[^|]*(.*)", text, re.MULTILINE)
        return [[cell.strip() for cell in row.split("|")] for row in rows]

    assert len(figures(english)) == 5
    assert figures(english) == figures(chinese)
