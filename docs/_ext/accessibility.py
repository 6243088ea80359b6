"""Corrections of the theme's HTML for keyboards and screen readers."""

from typing import Any

from sphinx.application import Sphinx

REPLACEMENTS = {
    'role="heading"': 'role="heading" aria-level="2"',  # Sphinx's captions of tables of contents
    ' aria-label="Toggle hidden content"': "",  # of myst-nb; the text is visible
    "<pre>": '<pre tabindex="0">',  # code that is wider than the page scrolls
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
}


def correct(text: Any) -> Any:
    """Applies the replacements to HTML."""
    if isinstance(text, str):
        for old, new in REPLACEMENTS.items():
            text = text.replace(old, new)
    return text


def correct_page(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Corrects the parts of a page that have HTML."""
    for name in ("body", "toc", "furo_navigation_tree"):
        if name in context:
            context[name] = correct(context[name])


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects to Sphinx's events, after the theme."""
    app.connect("html-page-context", correct_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
