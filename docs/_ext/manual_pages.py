"""Corrections of what Sphinx's `man` builder writes."""

import re

from docutils.nodes import Element
from sphinx.application import Sphinx
from sphinx.writers.manpage import ManualPageTranslator


class ManualPage(ManualPageTranslator):
    """Manual page that mandoc's lint accepts, with options and paths in one piece."""

    def astext(self) -> str:
        """Return the page without hyphenation and without needless empty lines."""
        page = super().astext().replace("\n.SH NAME", "\n.nr HY 0\n.ad l\n.SH NAME", 1)
        page = re.sub(r"(?m)^(\.S[HS] .*\n)\.sp\n", r"\1", page)
        return page.replace("\n\n.EE\n", "\n.EE\n")

    def visit_reference(self, node: Element) -> None:
        """Show the text of a link; a link to another page of the site has no target here."""
        if not node.get("internal"):
            super().visit_reference(node)

    def depart_reference(self, node: Element) -> None:
        """End the text of a link."""

    # The value of an option is in italics.
    visit_desc_addname = ManualPageTranslator.visit_emphasis
    depart_desc_addname = ManualPageTranslator.depart_emphasis


def setup(app: Sphinx) -> None:
    """Use this translator for manual pages."""
    app.set_translator("man", ManualPage)
