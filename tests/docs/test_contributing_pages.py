"""The pages on contributing name what exists."""

import re
from pathlib import Path

import pytest

from mtljax.cli.catalog import DICTS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "contributing"
NAMES = ("", "mtljax", "tests/support", "docs", "docs/_ext")
PLACES = [ROOT / name for name in NAMES]
FILE = re.compile(r"`([\w./-]+(?:\.(?:py|toml|txt|yml|md)|/))`")


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda page: page.stem)
def test_files_that_are_named_exist(page):
    files = FILE.findall(page.read_text())
    assert not [file for file in files if not any((place / file).exists() for place in PLACES)]


def test_every_kind_of_component_has_a_paragraph():
    headings = re.findall(r"^## (.*)$", (FOLDER / "adding.md").read_text(), re.M)
    words = {word for heading in headings for word in re.findall(r"\w+", heading.lower())}
    kinds = {"sources": "source", "merges": "merging"}
    missing = [kind for kind in DICTS if kinds.get(kind, kind.removesuffix("s")) not in words]
    assert not missing
    assert {"front", "metric", "verb", "experiment", "page"} <= words


def test_the_layers_drawn_are_all_packages(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    layers = pytest.importorskip("layers")
    names = [name for layer in layers.layers() for name in layer]
    found = {path.stem for path in (ROOT / "mtljax").iterdir() if (path / "__init__.py").exists()}
    found |= {path.stem for path in (ROOT / "mtljax").glob("*.py")} - {"__init__"}
    assert sorted(names) == sorted(found)
    assert layers.markdown().count("{py:mod}") == len(names)
