"""Corrections of the theme's HTML for keyboards, screen readers and small screens."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

REPLACEMENTS = {
    'role="heading"': 'role="heading" aria-level="2"',  # Sphinx's captions of tables of contents
    ' aria-label="Toggle hidden content"': "",  # of myst-nb; the text is visible
    "<pre>": '<pre tabindex="0">',  # code that is wider than the page scrolls
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
}
LONG_WORD = re.compile(r'<span class="pre">(?=[^<]{36})')
"""A word of code that may not fit on a line of a phone."""
LONG_CELL = 40
"""Characters above which the text of a table's cell should wrap late."""


def correct(text: Any) -> Any:
    """Applies the replacements to HTML."""
    if isinstance(text, str):
        for old, new in REPLACEMENTS.items():
            text = text.replace(old, new)
        text = LONG_WORD.sub('<span class="pre long">', text)
    return text


def mark_long_columns(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Adds the class `long` to the cells of columns with long text, whose width has a minimum."""
    for table in doctree.findall(nodes.table):
        for column in zip(*(row.children for row in table.findall(nodes.row)), strict=False):
            if any(len(cell.astext()) > LONG_CELL for cell in column):
                for cell in column:
                    cell["classes"].append("long")


def correct_page(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Corrects the parts of a page that have HTML."""
    for name in ("body", "toc", "furo_navigation_tree"):
        if name in context:
            context[name] = correct(context[name])


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects to Sphinx's events, after the theme."""
    app.connect("doctree-resolved", mark_long_columns)
    app.connect("html-page-context", correct_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
