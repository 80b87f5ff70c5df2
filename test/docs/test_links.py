"""Links of README and the pages: to files of the tree, and to other places. The build of the site checks sections."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from repository import ROOT

_LINK = re.compile(r"\bhttps?://[^\s)>\"'`\]]+")
_FILE = re.compile(r"\]\((?!https?:)([^)#\s]+)")
PAGES = [ROOT / "README.md", ROOT / "runtime" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_other_places_are_well_formed(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        parts = urlsplit(link.rstrip(".,;:"))
        local = parts.hostname in ("localhost", "127.0.0.1")
        assert local or (parts.scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.hostname or "")), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_to_some(page: Path) -> None:
    dead = [link for link in _FILE.findall(page.read_text()) if not (page.parent / link).exists()]
    assert dead == []


def test_no_page_has_a_name_that_sphinx_takes() -> None:
    """Its own page would be written in place of ours, without a warning."""
    assert {page.stem for page in (ROOT / "docs").glob("*.md")}.isdisjoint(
        {"search", "genindex", "modindex", "py-modindex"}
    )
