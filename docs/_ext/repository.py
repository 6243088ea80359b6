"""Pages of the repository outside `docs`, copied into the site with their links adapted."""

import os
import re
from pathlib import Path
from typing import Any

from folders import write_folder
from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
FOLDER = DOCS / "repository"
"""Folder of the copies, which git ignores."""
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def copied() -> dict[Path, Path]:
    """File of the repository -> its copy below `FOLDER`."""
    names = "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"
    files = [*map(ROOT.joinpath, names), *sorted((ROOT / "benchmarks").glob("*.md"))]
    return {file: FOLDER / str(file.relative_to(ROOT)).lower() for file in files}


def adapt_links(text: str, source: Path, page: Path) -> str:
    """Rewrites the relative links of the file `source` for its place `page` in the site."""
    copies = copied()

    def adapt(result: re.Match[str]) -> str:
        target = (source.parent / result[0]).resolve()
        return os.path.relpath(copies.get(target, target), page.parent)

    return LINK.sub(adapt, text)


def write_copies(app: Sphinx) -> None:
    """Copies all files."""
    pages = {
        str(page.relative_to(FOLDER)): adapt_links(source.read_text(), source, page)
        for source, page in copied().items()
    }
    write_folder(FOLDER, pages)


def adapt_page(app: Sphinx, docname: str, text: list[str]) -> None:
    """Replaces links to copied files by links to the copies."""
    page = Path(app.env.doc2path(docname))
    if not page.is_relative_to(FOLDER) and "](../" in text[0]:
        text[0] = adapt_links(text[0], page, page)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects to Sphinx's events."""
    app.connect("builder-inited", write_copies)
    app.connect("source-read", adapt_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
