"""Code blocks of the documents."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.daemons import CHECKOUT

DOCS = CHECKOUT / "docs"
TOP = [
    CHECKOUT / f"{name}.md"
    for name in ("README", "README.zh-CN", "CHANGELOG", "CONTRIBUTING", "SECURITY")
]
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page, without its indentation."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(CHECKOUT)}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in their order. Directives of Sphinx are left out."""
    blocks = []
    lines = iter(enumerate(page.read_text().splitlines(), start=1))
    for number, line in lines:
        opened = re.fullmatch(r"( *)```(\S*).*", line)
        if not opened:
            continue
        indent, language = opened.groups()
        text = []
        for _, inner in lines:
            if inner == f"{indent}```":
                break
            text.append(inner.removeprefix(indent))
        if not language.startswith("{"):
            blocks.append(Block(page, number, language, "".join(f"{part}\n" for part in text)))
    return blocks


BLOCKS = [block for page in [*TOP, *PAGES] for block in read_blocks(page)]
