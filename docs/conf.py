"""How Sphinx builds these pages: `sphinx-build -W docs docs/_build`. They read well on GitHub, too."""

import re
from pathlib import Path

_package = Path(__file__).resolve().parent.parent / "illumidesk" / "__init__.py"

project = "IllumiDesk"
author = "The IllumiDesk developers"
copyright = author
release = re.search(r'__version__ = "([^"]+)"', _package.read_text("utf-8"))[1]

extensions = ["myst_parser"]
myst_heading_anchors = 3
# Included in other pages, no pages by themselves.
exclude_patterns = ["_build", "_security_figures.md", "_capacity_figures.md"]

html_theme = "furo"
html_title = f"IllumiDesk {release}"
