"""The tutorials run from top to bottom, each in an empty folder, as the build runs them."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from support import site_pages

ROOT = Path(__file__).parents[2]
PAGES = site_pages.with_cells("tutorials")


def described(source):
    """The description of the picture of a cell with its options; None without one."""
    found = re.search(r"^ *alt: (\S.{20,})$", source, re.M)
    return found and found[1]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs_and_describes_its_pictures(page, tmp_path, monkeypatch):
    programs = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([programs, os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    monkeypatch.setenv("SHELLOPTS", "errexit:pipefail")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "work").mkdir()
    sources = [content for _, content in site_pages.CELL.findall(page.read_text())]
    codes = map(nbformat.v4.new_code_cell, site_pages.cells(page))
    notebook = nbformat.v4.new_notebook(cells=list(codes))
    resources = {"metadata": {"path": str(tmp_path / "work")}}
    NotebookClient(notebook, timeout=None, startup_timeout=600, resources=resources).execute()
    for source, cell in zip(sources, notebook.cells, strict=True):
        shown = [o for o in cell.outputs if "image/png" in o.get("data", {})]
        assert len(shown) <= 1
        assert bool(shown) == bool(described(source)), source


def test_every_tutorial_is_in_the_index():
    index = (site_pages.DOCS / "tutorials" / "index.md").read_text()
    listed = re.search(r"```\{toctree\}(.*?)```", index, re.S)[1].split()
    assert {page.stem for page in PAGES} <= set(listed)
