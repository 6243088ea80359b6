"""Folders of pages that the build writes and git ignores."""

from collections.abc import Mapping
from pathlib import Path


def write_folder(folder: Path, pages: Mapping[str, str]) -> None:
    """Writes these pages to a folder and removes all other files in it.

    A page whose text is the same is not written: Sphinx reads a page again when its time changed.

    Args:
      pages: Path in the folder -> text.
    """
    for path in list(folder.rglob("*.*")):
        if path.is_file() and str(path.relative_to(folder)) not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
