"""Configuration of Sphinx, for the HTML site and for the manual pages."""

import sys
from pathlib import Path

import tftpd

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "tftpd"
release = version = tftpd.__version__
# Date of the manual pages. A constant, because the date of the build would change them each day.
today = "2026-11-21"

extensions = [
    *("myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"),
    *("reference_directives", "manual_pages"),
]
# Docstrings, which are for readers of the code first, have `code` in single backticks.
default_role = "code"
autoclass_content = "both"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
include_patterns = ["index.md", "*/*.md"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"tftpd {release}"
# `--option` must not become a dash and `option`.
smartquotes = False

# `sphinx-build -b man docs share/man` writes share/man/man1/tftpc.1 and its like.
man_make_section_directory = True
man_pages = [
    ("reference/tftpc", "tftpc", "read and write files on TFTP servers", "", 1),
    ("reference/tftpd", "tftpd", "TFTP server", "", 8),
    ("reference/configuration", "tftpd.yaml", "configuration of tftpd", "", 5),
]
