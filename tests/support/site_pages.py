"""Pages of the documentation with code cells (text notebooks of myst-nb)."""

import re
import textwrap
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
CELL = re.compile(r"^( *)```\{code-cell\}[^\n]*\n(.*?)^ *```$", re.M | re.S)
OPTIONS = re.compile(r"\A(?:---\n.*?^---\n|(?::[^\n]*\n)+)", re.M | re.S)


def cells(page: Path) -> list[str]:
    """The code of the cells of a page, without their options."""
    found = (textwrap.dedent(content) for _, content in CELL.findall(page.read_text()))
    return [OPTIONS.sub("", content) for content in found]


def with_cells(*folders: str) -> list[Path]:
    """The pages in these folders of docs/ that have code cells, in the order of their names."""
    pages = [page for folder in folders for page in sorted((DOCS / folder).glob("*.md"))]
    return [page for page in pages if cells(page)]


def write_files(page: Path, folder: Path) -> None:
    """Writes the files of the cells that start with `%%writefile NAME`."""
    for cell in cells(page):
        first, _, content = cell.partition("\n")
        if first.startswith("%%writefile "):
            (folder / first.split()[1]).write_text(content)


def run_cells(page: Path) -> dict:
    """Runs the cells of a page in one namespace, in the working folder; returns the namespace."""
    namespace: dict = {"__name__": "__main__"}
    for index, cell in enumerate(cells(page)):
        exec(compile(cell, f"{page.name}, cell {index}", "exec"), namespace)
    return namespace


def python_blocks(page: Path) -> list[str]:
    """The Python of a page that is no cell, in order."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)
