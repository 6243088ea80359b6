"""Directive `layers`: the packages in layers, from the import contract in pyproject.toml."""

import importlib
import tomllib
from pathlib import Path
from typing import Any

from docstrings import inline
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]


def layers() -> list[list[str]]:
    """Packages of each layer, the highest layer first."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (c for c in linter["contracts"] if c["type"] == "layers")
    return [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]


def markdown() -> str:
    """List of the layers, each a list of packages with the first line of their docstrings."""
    lines = []
    for packages in layers():
        start = "- "
        for name in packages:
            docstring = importlib.import_module(f"mtljax.{name}").__doc__ or ""
            text = inline(docstring.partition("\n")[0])
            lines.append(f"{start}- {{py:mod}}`{name} <mtljax.{name}>`: {text}")
            start = "  "
    return "\n".join(lines)


class Layers(SphinxDirective):
    """Replaced by the list, which site.css draws as boxes."""

    def run(self) -> list[nodes.Node]:
        """Returns the list."""
        result = self.parse_text_to_nodes(markdown())
        for node in result:
            if isinstance(node, nodes.bullet_list):
                node["classes"].append("layers")
        return result


def setup(app: Sphinx) -> dict[str, Any]:
    """Adds the directive."""
    app.add_directive("layers", Layers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
