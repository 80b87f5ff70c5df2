"""What Sphinx makes the site of: `python -m sphinx -W -n docs OUT`, with what `pip install -e '.[docs]'` brings.

Help texts and IR on the pages are what the commands print while the site is built.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import patc

project = "patc"
author = "the patc developers"
release = patc.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.programoutput",
]
html_theme = "furo"
html_title = f"patc {release}"
myst_heading_anchors = 3
exclude_patterns = ["conf.py"]
autodoc_typehints = "none"  # signatures have them
default_role = "code"
autodoc_member_order = "bysource"
# The commands of this environment, whatever else is installed, in plain text of one width.
os.environ |= {
    "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",
    "COLUMNS": "100",
    "NO_COLOR": "1",
    "PATC_NO_CACHE": "1",
}


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", keep_form, priority=400)  # before napoleon


def keep_form(app: Any, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Show what is written of ops and attributes as it is: formulas and tables by their columns."""
    if name.startswith("patc.dialects."):
        lines[:] = ["::", "", *(f"    {line}" for line in lines)]
